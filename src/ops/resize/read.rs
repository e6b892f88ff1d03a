//! Attributes and inputs that say what is resized, and how.

use super::{COORDINATES, MODES, NEAREST, POLICIES, Resize};
use crate::graph::attrs::{SymInt, normalize_axis};
use crate::graph::op::check;
use crate::graph::{Op, OpError, Reader};
use crate::ops::strided::signed;
use crate::tensor::{Dim, TensorType};
use std::sync::Arc;

pub(super) fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let old = r.op_type() == "Upsample" || r.opset() < 11;
    let mode = r.one_of("mode", "nearest", MODES)?;
    let (coordinates, nearest) = match (old, r.op_type()) {
        (true, "Upsample") => ("asymmetric", "floor"),
        (true, _) => ("asymmetric", "up_floor_down_ceil"),
        (false, _) => ("half_pixel", "round_prefer_floor"),
    };
    let coordinates = r.one_of("coordinate_transformation_mode", coordinates, COORDINATES)?;
    let nearest = r.one_of("nearest_mode", nearest, NEAREST)?;
    let cubic_a = r.float("cubic_coeff_a", -0.75)?;
    let exclude_outside = r.flag("exclude_outside", false)?;
    let extrapolation = r.float("extrapolation_value", 0.0)?;
    if r.flag("antialias", false)? {
        return Err(r.unsupported("antialias", 1, "0"));
    }
    let policy = r.one_of("keep_aspect_ratio_policy", "stretch", POLICIES)?;
    let axes = r.ints("axes")?;
    let x = r.input(0)?.clone();
    let rank = x.rank();
    let axes = axes.unwrap_or_else(|| (0..signed(rank)).collect());
    let at = |axis: i64| normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank });
    let axes: Vec<usize> = axes.into_iter().map(at).collect::<Result<_, _>>()?;
    let roi = read_roi(r, coordinates, old, rank, &axes)?;
    let given = r.floats_or_input("scales", if old { 1 } else { 2 })?.filter(|v| !v.is_empty());
    let sizes = if old && r.opset() != i64::MAX { None } else { r.sym_ints_or_input("sizes", 3)? };
    let sizes = sizes.filter(|v| !v.is_empty());
    let (scales, sizes) = match (given, sizes) {
        (Some(scales), sizes) => {
            let scales = spread(r, "scales", &scales, &axes, vec![1.0; rank])?;
            let out = scaled(r, &x, &scales)?;
            // A graph file states both, because sizes do not follow from rounded scales.
            let stated = sizes.map(|s| s.iter().map(|s| s.dim()).collect::<Option<Vec<_>>>());
            (scales, stated.flatten().unwrap_or(out))
        }
        (None, Some(sizes)) => from_sizes(r, &x, &sizes, &axes, policy)?,
        (None, None) => return Err(OpError::MissingInput { input: if old { 1 } else { 3 } }),
    };
    let op =
        Resize { mode, coordinates, nearest, cubic_a, exclude_outside, extrapolation, scales, sizes, roi };
    Ok(Arc::new(op))
}

/// The region of interest, which only one coordinate transformation looks at.
fn read_roi(
    r: &mut Reader,
    coordinates: &str,
    old: bool,
    rank: usize,
    axes: &[usize],
) -> Result<Vec<f32>, OpError> {
    if old {
        return Ok(Vec::new());
    }
    if coordinates != "tf_crop_and_resize" {
        r.ignore("roi");
        r.consume(1);
        return Ok(Vec::new());
    }
    let given = r.floats_or_input("roi", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    if given.len() != 2 * axes.len() {
        let supported = format!("two numbers for each of {} axes", axes.len());
        return Err(r.unsupported("roi", format!("{given:?}"), &supported));
    }
    let mut roi = [vec![0.0; rank], vec![1.0; rank]].concat();
    for (i, axis) in axes.iter().enumerate() {
        roi[*axis] = given[i];
        roi[rank + axis] = given[axes.len() + i];
    }
    Ok(roi)
}

/// `given[i]` at axis `axes[i]`.
fn spread<T: Copy + std::fmt::Debug>(
    r: &Reader,
    name: &str,
    given: &[T],
    axes: &[usize],
    mut out: Vec<T>,
) -> Result<Vec<T>, OpError> {
    if given.len() != axes.len() {
        let supported = format!("one for each of {} axes", axes.len());
        return Err(r.unsupported(name, format!("{given:?}"), &supported));
    }
    for (axis, v) in axes.iter().zip(given) {
        out[*axis] = *v;
    }
    Ok(out)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lengths are rounded to f32 as the runtimes do; a scale is checked to be positive and finite"
)]
fn scaled(r: &Reader, x: &TensorType, scales: &[f32]) -> Result<Vec<Dim>, OpError> {
    let one = |(axis, (d, s)): (usize, (&Dim, &f32))| match d {
        _ if *s == 1.0 => Ok(*d),
        _ if !(s.is_finite() && *s > 0.0) => Err(r.unsupported("scales", s, "positive numbers")),
        Dim::Fixed(d) => Ok(Dim::Fixed((*d as f32 * s).floor() as usize)),
        Dim::Batch(_) => Err(OpError::SymbolicDim { input: 0, axis }),
    };
    x.shape.iter().zip(scales).enumerate().map(one).collect()
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lengths are rounded to f32 as the runtimes do"
)]
fn from_sizes(
    r: &Reader,
    x: &TensorType,
    sizes: &[SymInt],
    axes: &[usize],
    policy: &str,
) -> Result<(Vec<f32>, Vec<Dim>), OpError> {
    let unchanged = x.shape.iter().map(|d| SymInt::from(*d)).collect();
    let wanted = spread(r, "sizes", sizes, axes, unchanged)?;
    let mut scales = vec![1.0; x.rank()];
    let mut out = x.shape.clone();
    for &axis in axes {
        let size = wanted[axis].dim().ok_or_else(|| r.unsupported("sizes", wanted[axis], "0 or more"))?;
        if size == x.shape[axis] {
            continue;
        }
        let (Dim::Fixed(d), Dim::Fixed(size)) = (x.shape[axis], size) else {
            return Err(OpError::SymbolicDim { input: 0, axis });
        };
        scales[axis] = if d == 0 { 1.0 } else { size as f32 / d as f32 };
        out[axis] = Dim::Fixed(size);
    }
    if policy != "stretch" {
        let all = axes.iter().map(|a| scales[*a]);
        let one =
            if policy == "not_larger" { all.fold(f32::INFINITY, f32::min) } else { all.fold(0.0, f32::max) };
        for &axis in axes {
            let d = check::fixed(std::slice::from_ref(x), 0, axis)?;
            scales[axis] = one;
            out[axis] = Dim::Fixed((d as f32 * one + 0.5).floor() as usize);
        }
    }
    Ok((scales, out))
}
