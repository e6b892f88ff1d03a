//! Operators that move elements: each output element is one input element.

use super::super::constant::Ints;
use super::Call;
use super::elementwise::{broadcast, sources};
use crate::graph::attrs::{SymInt, normalize_axis};
use crate::tensor::{MAX_RANK, element_count};

pub(super) fn fold(op: &str, call: &mut Call) -> Option<Ints> {
    match op {
        "Identity" => call.ints(0),
        "Gather" => gather(call),
        "Concat" => concat(call),
        "Unsqueeze" => unsqueeze(call),
        "Squeeze" => squeeze(call),
        "Slice" => slice(call),
        "Reshape" => reshape(call),
        "Flatten" => flatten(call),
        "Transpose" => transpose(call),
        "Expand" => expand(call),
        _ => None,
    }
}

fn with_shape(x: &Ints, shape: Vec<usize>) -> Option<Ints> {
    (shape.len() <= MAX_RANK && element_count(&shape) == Some(x.values.len())).then(|| Ints {
        kind: x.kind,
        shape,
        values: x.values.clone(),
    })
}

fn pick(x: &Ints, shape: Vec<usize>, from: impl Iterator<Item = usize>) -> Option<Ints> {
    let values: Vec<SymInt> = from.map(|i| x.values.get(i).copied()).collect::<Option<_>>()?;
    (element_count(&shape) == Some(values.len())).then(|| Ints::new(x.kind, shape, values))
}

/// Elements of `x` along `axis`, at these positions in this order.
fn take(x: &Ints, axis: usize, at: &[usize]) -> Option<Ints> {
    let inner: usize = x.shape[axis + 1..].iter().product();
    let outer: usize = x.shape[..axis].iter().product();
    let len = x.shape[axis];
    let mut shape = x.shape.clone();
    shape[axis] = at.len();
    let from = (0..outer)
        .flat_map(|o| at.iter().flat_map(move |a| (0..inner).map(move |i| (o * len + a) * inner + i)));
    pick(x, shape, from)
}

fn gather(call: &mut Call) -> Option<Ints> {
    let axis = call.r.int("axis", 0).ok()?;
    let (x, index) = (call.ints(0)?, call.ints(1)?);
    let axis = normalize_axis(axis, x.shape.len())?;
    let at: Vec<usize> =
        index.concrete()?.into_iter().map(|i| normalize_axis(i, x.shape[axis])).collect::<Option<_>>()?;
    let rest: usize = x.values.len().checked_div(x.shape[axis])?;
    if at.len().checked_mul(rest)? > call.limit {
        return None;
    }
    let taken = take(&x, axis, &at)?;
    let mut shape = x.shape[..axis].to_vec();
    shape.extend(&index.shape);
    shape.extend(&x.shape[axis + 1..]);
    with_shape(&taken, shape)
}

fn concat(call: &mut Call) -> Option<Ints> {
    let axis = call.r.opt_int("axis").ok()??;
    let parts: Vec<Ints> = (0..call.inputs.len()).map(|i| call.ints(i)).collect::<Option<_>>()?;
    let first = parts.first()?;
    let axis = normalize_axis(axis, first.shape.len())?;
    let fits = |p: &Ints| {
        p.shape.len() == first.shape.len()
            && (0..p.shape.len()).all(|a| a == axis || p.shape[a] == first.shape[a])
    };
    let total: usize = parts.iter().map(|p| p.values.len()).sum();
    if !parts.iter().all(fits) || total > call.limit {
        return None;
    }
    let outer: usize = first.shape[..axis].iter().product();
    let inner: usize = first.shape[axis + 1..].iter().product();
    let mut values = Vec::with_capacity(total);
    for o in 0..outer {
        for p in &parts {
            let run = p.shape[axis] * inner;
            values.extend_from_slice(&p.values[o * run..(o + 1) * run]);
        }
    }
    let mut shape = first.shape.clone();
    shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
    Some(Ints::new(first.kind, shape, values))
}

fn unsqueeze(call: &mut Call) -> Option<Ints> {
    let axes = call.list("axes", 1)??;
    let x = call.ints(0)?;
    let rank = x.shape.len().checked_add(axes.len()).filter(|r| *r <= MAX_RANK)?;
    let mut new = vec![false; rank];
    for a in axes {
        let a = normalize_axis(a, rank)?;
        if std::mem::replace(&mut new[a], true) {
            return None;
        }
    }
    let mut old = x.shape.iter();
    let shape = new.iter().map(|n| if *n { Some(1) } else { old.next().copied() }).collect::<Option<_>>()?;
    with_shape(&x, shape)
}

fn squeeze(call: &mut Call) -> Option<Ints> {
    let axes = call.list("axes", 1)?;
    let x = call.ints(0)?;
    let rank = x.shape.len();
    let mut gone: Vec<bool> = x.shape.iter().map(|d| axes.is_none() && *d == 1).collect();
    for a in axes.unwrap_or_default() {
        gone[normalize_axis(a, rank)?] = true;
    }
    let shape = x.shape.iter().zip(&gone).filter(|(_, g)| !**g).map(|(d, _)| *d).collect();
    with_shape(&x, shape)
}

fn slice(call: &mut Call) -> Option<Ints> {
    let (starts, ends) = (call.list("starts", 1)??, call.list("ends", 2)??);
    let (axes, steps) = (call.list("axes", 3)?, call.list("steps", 4)?);
    let mut x = call.ints(0)?;
    let axes = match axes {
        Some(v) => v,
        None => (0..starts.len()).map(|a| i64::try_from(a).ok()).collect::<Option<_>>()?,
    };
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return None;
    }
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = normalize_axis(axis, x.shape.len())?;
        let at = positions(x.shape[axis], start, end, step)?;
        x = take(&x, axis, &at)?;
    }
    Some(x)
}

/// The positions that ONNX's Slice takes of an axis.
fn positions(len: usize, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    let n = i64::try_from(len).ok()?;
    if step == 0 || n == 0 {
        return (step != 0).then(Vec::new);
    }
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (start, end) = if step > 0 {
        (from_end(start).clamp(0, n), from_end(end).clamp(0, n))
    } else {
        (from_end(start).clamp(0, n - 1), from_end(end).clamp(-1, n - 1))
    };
    let mut out = Vec::new();
    let mut i = start;
    while i >= 0 && ((step > 0 && i < end) || (step < 0 && i > end)) {
        out.push(usize::try_from(i).ok()?);
        i = i.saturating_add(step);
    }
    Some(out)
}

fn reshape(call: &mut Call) -> Option<Ints> {
    let allow_zero = call.r.flag("allowzero", false).ok()?;
    let wanted = call.list("shape", 1)??;
    let x = call.ints(0)?;
    let mut shape = Vec::new();
    let mut rest = None;
    for (i, d) in wanted.iter().enumerate() {
        shape.push(match *d {
            -1 if rest.is_none() => {
                rest = Some(i);
                1
            }
            0 if !allow_zero => *x.shape.get(i)?,
            d => usize::try_from(d).ok()?,
        });
    }
    if let Some(i) = rest {
        let others = element_count(&shape)?;
        shape[i] = x.values.len().checked_div(others)?;
    }
    with_shape(&x, shape)
}

fn flatten(call: &mut Call) -> Option<Ints> {
    let axis = call.r.int("axis", 1).ok()?;
    let x = call.ints(0)?;
    let rank = x.shape.len();
    let axis = if axis == i64::try_from(rank).ok()? { rank } else { normalize_axis(axis, rank)? };
    let shape = vec![x.shape[..axis].iter().product(), x.shape[axis..].iter().product()];
    with_shape(&x, shape)
}

fn transpose(call: &mut Call) -> Option<Ints> {
    let perm = call.r.sizes("perm").ok()?;
    let x = call.ints(0)?;
    let rank = x.shape.len();
    let perm = perm.unwrap_or_else(|| (0..rank).rev().collect());
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return None;
    }
    let shape: Vec<usize> = perm.iter().map(|p| x.shape[*p]).collect();
    let steps: Vec<usize> = perm.iter().map(|p| crate::tensor::strides(&x.shape)[*p]).collect();
    let places = crate::tensor::strides(&shape);
    let source = |i: usize| (0..rank).map(|a| i / places[a] % shape[a] * steps[a]).sum();
    pick(&x, shape.clone(), (0..x.values.len()).map(source))
}

fn expand(call: &Call) -> Option<Ints> {
    let x = call.ints(0)?;
    let wanted: Vec<usize> =
        call.ints(1)?.concrete()?.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<_>>()?;
    let shape = broadcast(&[&x.shape, &wanted], call.limit)?;
    pick(&x, shape.clone(), sources(&x.shape, &shape).into_iter())
}

/// Outputs of `Split`, in equal parts or as said.
pub(super) fn split(call: &mut Call) -> Option<Vec<Ints>> {
    let axis = call.r.int("axis", 0).ok()?;
    call.r.ignore("num_outputs");
    let sizes = call.list("split", 1)?;
    let x = call.ints(0)?;
    let axis = normalize_axis(axis, x.shape.len())?;
    let (len, outputs) = (x.shape[axis], call.r.outputs());
    let sizes: Vec<usize> = match sizes {
        Some(s) => s.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<_>>()?,
        None => {
            let part = len.div_ceil(outputs.max(1));
            (0..outputs).map(|i| len.saturating_sub(i * part).min(part)).collect()
        }
    };
    if sizes.len() != outputs || sizes.iter().try_fold(0usize, |a, s| a.checked_add(*s)) != Some(len) {
        return None;
    }
    let mut start = 0;
    let part = |size: &usize| {
        let at: Vec<usize> = (start..start + size).collect();
        start += size;
        take(&x, axis, &at)
    };
    sizes.iter().map(part).collect()
}
