//! `Resize`: other lengths of axes, by the nearest pixel or by interpolation. ONNX's `Upsample` is read as it.
//!
//! *Shapes*: `[d0, d1, ..] -> [sizes[0], sizes[1], ..]`; `scales[a]` pixels of y lie on one pixel of x.
//!
//! Which pixels an index takes, and with which weights, is computed once on the host in f32, so that both
//! executors agree.

use super::element::moved;
use super::lookup::{self, FillValue, Lookup, OUTSIDE};
use super::resample::{self, Resample, Taps};
use super::strided::signed;
use crate::graph::attrs::{SymInt, normalize_axis};
use crate::graph::lower::{Io, Kernel, Layout, Layouts, Lowering, View, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;

const MODES: &[&str] = &["nearest", "linear", "cubic"];
const COORDINATES: &[&str] = &[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
];
/// `up_floor_down_ceil` is what ONNX meant before operator set 11, where it could not be chosen.
const NEAREST: &[&str] = &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "up_floor_down_ceil"];
const POLICIES: &[&str] = &["stretch", "not_larger", "not_smaller"];

#[derive(Debug)]
struct Resize {
    mode: &'static str,
    coordinates: &'static str,
    nearest: &'static str,
    cubic_a: f32,
    exclude_outside: bool,
    extrapolation: f32,
    /// One an axis.
    scales: Vec<f32>,
    sizes: Vec<Dim>,
    /// Begin of each axis, then end of each; empty unless `tf_crop_and_resize`.
    roi: Vec<f32>,
}

static KERNELS: [&Kernel; 4] =
    [lookup::KERNELS[0], lookup::KERNELS[1], resample::KERNELS[0], resample::KERNELS[1]];

pub(super) static DEF: OpDef =
    OpDef { name: "Resize", onnx: &["Resize", "Upsample"], read, kernels: &KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
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

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, h, w) = (rng.int(1, 9), rng.int(2, 6), rng.int(2, 7));
    let base = |mode: &str, coordinates: &str, scales: &[f32]| {
        let attrs = Attrs::new().str("mode", mode).str("coordinate_transformation_mode", coordinates);
        attrs.floats("scales", scales)
    };
    let mut out = Vec::new();
    for mode in MODES {
        // Two, four and sixty-four products.
        let of = |attrs: Attrs, shape: &[usize]| Sample::new(attrs, [SampleInput::f32(shape)]).reduction(16);
        for (i, coordinates) in COORDINATES.iter().enumerate() {
            let shape = if i % 2 == 0 { [7, a, h, w] } else { [1, 8, w, h] };
            for scales in [[1.0, 1.0, 2.0, 2.5], [1.0, 1.0, 0.6, 1.7]] {
                let attrs = base(mode, coordinates, &scales).float("extrapolation_value", 1.5);
                let roi = [0.0, 0.0, 0.2, -0.3, 1.0, 1.0, 0.8, 1.2];
                let attrs = if i == 6 { attrs.floats("roi", &roi) } else { attrs };
                out.push(of(attrs, &shape));
            }
        }
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 1.9]), &[7, a, h]));
        out.push(of(base(mode, "align_corners", &[2.5]), &[h]));
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 2.0, 0.7, 1.5]), &[2, a, 3, h, w]));
        out.push(of(base(mode, "half_pixel", &[1.0, 2.0, 2.0]), &[3, h, w]));
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 2.0]), &[2, 0, 3]));
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 1.0, 1.0]), &[7, a, h, w]));
    }
    for nearest in NEAREST {
        let attrs = base("nearest", "half_pixel", &[1.0, 1.0, 2.0, 0.75]).str("nearest_mode", nearest);
        out.push(Sample::new(attrs.clone(), [SampleInput::f32([7, a, h, 8])]));
        out.push(Sample::new(attrs, [SampleInput::of([1, a, h, 8], Fill::Ints(-99, 99))]));
    }
    let cubic = base("cubic", "half_pixel", &[1.0, 1.0, 1.6, 0.7]).int("exclude_outside", 1);
    out.push(Sample::new(cubic.float("cubic_coeff_a", -0.5), [SampleInput::f32([7, a, h, w])]).reduction(16));
    out
}

impl Resize {
    fn keeps(&self, axis: usize, x: Dim) -> bool {
        let whole = self.roi.is_empty() || [self.roi[axis], self.roi[self.scales.len() + axis]] == [0.0, 1.0];
        self.scales[axis].to_bits() == 1.0f32.to_bits() && self.sizes[axis] == x && whole
    }

    /// Where index `i` of the resized axis lies in x, in pixels.
    #[allow(clippy::cast_precision_loss, reason = "computed in f32 as the runtimes do, so that they agree")]
    fn coordinate(&self, axis: usize, i: usize, from: usize, to: usize) -> f32 {
        let (i, d, n, scale) = (i as f32, from as f32, to as f32, self.scales[axis]);
        match self.coordinates {
            "asymmetric" => i / scale,
            "pytorch_half_pixel" if to <= 1 => 0.0,
            "tf_half_pixel_for_nn" => (i + 0.5) / scale,
            "align_corners" if to == 1 => 0.0,
            "align_corners" => i * (d - 1.0) / (n - 1.0),
            "tf_crop_and_resize" => {
                let (begin, end) = (self.roi[axis], self.roi[self.scales.len() + axis]);
                if to > 1 {
                    begin * (d - 1.0) + (i * (end - begin) * (d - 1.0)) / (n - 1.0)
                } else {
                    0.5 * (begin + end) * (d - 1.0)
                }
            }
            "half_pixel_symmetric" => {
                let adjustment = n / (scale * d);
                let offset = d / 2.0 * (1.0 - adjustment);
                offset + (i + 0.5) / scale - 0.5
            }
            _ => (i + 0.5) / scale - 0.5,
        }
    }

    /// Whether a coordinate is taken from the extrapolation value instead of a pixel.
    #[allow(clippy::cast_precision_loss, reason = "a length of an axis against an f32 coordinate")]
    fn extrapolates(&self, at: f32, from: usize) -> bool {
        self.coordinates == "tf_crop_and_resize" && !(at >= 0.0 && at <= (from - 1) as f32)
    }

    fn nearest(&self, axis: usize, from: usize, to: usize) -> Vec<u32> {
        let pixel = |i: usize| {
            let at = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return OUTSIDE;
            }
            let tie = at - at.floor() == 0.5;
            let rounded = match self.nearest {
                "floor" => at.floor(),
                "ceil" => at.ceil(),
                "up_floor_down_ceil" if self.scales[axis] < 1.0 => at.ceil(),
                "up_floor_down_ceil" => at.floor(),
                "round_prefer_ceil" if tie => at.ceil(),
                _ if tie => at.floor(),
                _ => (at + 0.5).floor(),
            };
            clamped(rounded, from)
        };
        (0..to).map(pixel).collect()
    }

    #[allow(clippy::cast_precision_loss, reason = "an index of an axis as an f32 coordinate")]
    fn linear(&self, axis: usize, from: usize, to: usize) -> Taps {
        let row = |i: usize| {
            let at = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return [(None, 0.0), (None, 0.0)];
            }
            let at = at.clamp(0.0, (from - 1) as f32);
            let low = clamped(at.floor(), from);
            let high = (low + 1).min(u32(from - 1));
            let w = at - low as f32;
            [(Some(low), 1.0 - w), (Some(high), w)]
        };
        Taps { taps: 2, pairs: (0..to).flat_map(row).collect() }
    }

    fn cubic(&self, axis: usize, from: usize, to: usize) -> Taps {
        let row = |i: usize| {
            let at = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return [(None, 0.0); 4];
            }
            let low = at.floor();
            let mut weights = cubic_weights(at - low, self.cubic_a);
            let pixels = [low - 1.0, low, low + 1.0, low + 2.0];
            if self.exclude_outside {
                for (w, p) in weights.iter_mut().zip(pixels) {
                    #[allow(clippy::cast_precision_loss, reason = "a length against an f32 coordinate")]
                    let inside = p >= 0.0 && p < from as f32;
                    *w = if inside { *w } else { 0.0 };
                }
                let sum: f32 = weights.iter().sum();
                weights = weights.map(|w| w / sum);
            }
            [0, 1, 2, 3].map(|k| (Some(clamped(pixels[k], from)), weights[k]))
        };
        Taps { taps: 4, pairs: (0..to).flat_map(row).collect() }
    }

    fn fill(&self) -> FillValue {
        #[allow(clippy::cast_possible_truncation, reason = "saturates, which is what an integer can hold")]
        let int = self.extrapolation as i32;
        FillValue { float: self.extrapolation, int }
    }

    fn lookup(&self, x: &View, y: &View) -> Lookup {
        let table = |a: usize| {
            (!self.keeps(a, Dim::Fixed(x.shape[a]))).then(|| self.nearest(a, x.shape[a], y.shape[a]))
        };
        Lookup::new(x, y, &(0..x.shape.len()).map(table).collect::<Vec<_>>(), self.fill())
    }

    fn resample(&self, x: &View, y: &View) -> Resample {
        let taps = |a: usize| {
            let (from, to) = (x.shape[a], y.shape[a]);
            let taps =
                || if self.mode == "linear" { self.linear(a, from, to) } else { self.cubic(a, from, to) };
            (!self.keeps(a, Dim::Fixed(from))).then(taps)
        };
        Resample::new(x, y, &(0..x.shape.len()).map(taps).collect::<Vec<_>>(), self.extrapolation)
    }
}

/// A coordinate that is a whole number as an index, kept inside the axis.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer saturates, and the axis bounds it"
)]
fn clamped(at: f32, len: usize) -> u32 {
    (at.max(0.0) as u32).min(u32(len - 1))
}

/// Weights of the pixels at -1, 0, 1 and 2 for a point `s` behind pixel 0 (Keys 1981).
fn cubic_weights(s: f32, a: f32) -> [f32; 4] {
    let near = |t: f32| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
    let far = |t: f32| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
    [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)]
}

impl Op for Resize {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new()
            .str("mode", self.mode)
            .str("coordinate_transformation_mode", self.coordinates)
            .str("nearest_mode", self.nearest)
            .float("cubic_coeff_a", self.cubic_a)
            .int("exclude_outside", i64::from(self.exclude_outside))
            .float("extrapolation_value", self.extrapolation)
            .floats("scales", &self.scales)
            .at_place(Place::Input(2))
            .dims("sizes", &self.sizes)
            .at_place(Place::Input(3));
        if self.roi.is_empty() { attrs } else { attrs.floats("roi", &self.roi).at_place(Place::Input(1)) }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (roi, scales and sizes are attributes)")?;
        if self.mode != "nearest" {
            check::f32(inputs, 0)?;
        }
        let x = &inputs[0];
        let rank = x.rank();
        let scales_fit = self.scales.iter().all(|s| s.is_finite() && *s > 0.0);
        let roi_fits = self.roi.len() == 2 * rank || self.coordinates != "tf_crop_and_resize";
        if self.scales.len() != rank || self.sizes.len() != rank || !scales_fit || !roi_fits {
            return Err(OpError::Attribute {
                name: "scales".into(),
                value: format!("{:?}, sizes {:?}", self.scales, self.sizes),
                supported: format!("positive numbers, one for each of {rank} axes"),
            });
        }
        let out = TensorType { dtype: x.dtype, shape: self.sizes.clone() };
        for (axis, (d, size)) in x.shape.iter().zip(&self.sizes).enumerate() {
            match (d, size) {
                _ if self.keeps(axis, *d) => {}
                (Dim::Fixed(0), Dim::Fixed(n)) if *n > 0 => {
                    return Err(OpError::shape(0, "pixels to resize", x));
                }
                (Dim::Fixed(_), Dim::Fixed(_)) => {}
                _ => return Err(OpError::SymbolicDim { input: 0, axis }),
            }
        }
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let out = self.infer(&[x.ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        let view = |shape: &[usize]| View { dtype: out.dtype, shape: shape.to_vec(), layout: Layout::Linear };
        let (from, to) = (view(x.shape()), view(&shape));
        if self.mode == "nearest" || to.is_empty() {
            return Ok(vec![moved(cx, &shape, &[x], &self.lookup(&from, &to))?]);
        }
        let mut y = cx.take(to.len());
        self.resample(&from, &to).run(x.f32s(), &mut y);
        Ok(vec![Tensor::from_f32(shape, y)])
    }

    /// Groups of four channels stay groups unless the fill would get into the padding lanes.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let x = &inputs[0];
        if x.rank() >= 3 && self.roi.is_empty() && self.keeps(1, x.shape[1]) {
            Layouts::Any
        } else {
            Layouts::Linear
        }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        if self.mode != "nearest" {
            return self.resample(x, y).lower();
        }
        let fill = self.fill();
        let word = if x.dtype == DType::F32 { fill.float.to_bits() } else { fill.int.cast_unsigned() };
        Ok(self.lookup(x, y).lower(word))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match self.mode {
            "nearest" => QuantRule::Codes,
            "linear" => QuantRule::Compute,
            _ => QuantRule::Float,
        }
    }
}
