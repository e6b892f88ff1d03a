//! Element-wise operators with broadcasting, and reductions.

use super::super::constant::{IntKind, Ints};
use super::{Call, in_kind, scalar};
use crate::graph::attrs::{SymInt, normalize_axis};
use crate::tensor::{MAX_RANK, element_count, strides};

type Binary = fn(SymInt, SymInt) -> Option<SymInt>;

fn truth(v: bool) -> SymInt {
    SymInt::Int(i64::from(v))
}

/// Truth value of a bool element.
fn is_true(v: SymInt) -> bool {
    v != SymInt::Int(0)
}

pub(super) fn fold(op: &str, call: &mut Call) -> Option<Ints> {
    match op {
        "Add" => binary(call, scalar::add),
        "Sub" => binary(call, scalar::sub),
        "Mul" => binary(call, scalar::mul),
        "Div" => binary(call, scalar::div),
        "Mod" => {
            let fmod = call.r.flag("fmod", false).ok()?;
            let f: Binary =
                if fmod { |a, b| scalar::modulo(a, b, true) } else { |a, b| scalar::modulo(a, b, false) };
            binary(call, f)
        }
        "Min" => variadic(call, scalar::min),
        "Max" => variadic(call, scalar::max),
        "Neg" => unary(call, scalar::neg),
        "Abs" => unary(call, scalar::abs),
        "Equal" => logical(call, |a, b| scalar::equal(a, b).map(truth)),
        "Less" => logical(call, |a, b| scalar::compare(a, b).map(|o| truth(o.is_lt()))),
        "LessOrEqual" => logical(call, |a, b| scalar::compare(a, b).map(|o| truth(o.is_le()))),
        "Greater" => logical(call, |a, b| scalar::compare(a, b).map(|o| truth(o.is_gt()))),
        "GreaterOrEqual" => logical(call, |a, b| scalar::compare(a, b).map(|o| truth(o.is_ge()))),
        "And" => logical(call, |a, b| Some(truth(is_true(a) && is_true(b)))),
        "Or" => logical(call, |a, b| Some(truth(is_true(a) || is_true(b)))),
        "Xor" => logical(call, |a, b| Some(truth(is_true(a) != is_true(b)))),
        "Not" => unary(call, |a| Some(truth(!is_true(a)))),
        "Where" => select(call),
        "ReduceProd" => reduce(call, scalar::mul, Some(SymInt::Int(1))),
        "ReduceSum" => reduce(call, scalar::add, Some(SymInt::Int(0))),
        "ReduceMin" => reduce(call, scalar::min, None),
        "ReduceMax" => reduce(call, scalar::max, None),
        _ => None,
    }
}

/// ONNX's multidirectional broadcasting.
pub(super) fn broadcast(shapes: &[&[usize]], limit: usize) -> Option<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max()?;
    let mut out = vec![1; rank];
    for s in shapes {
        for (o, d) in out[rank - s.len()..].iter_mut().zip(*s) {
            *o = match (*o, *d) {
                (1, d) => d,
                (o, 1) => o,
                (o, d) if o == d => o,
                _ => return None,
            };
        }
    }
    (rank <= MAX_RANK && element_count(&out)? <= limit).then_some(out)
}

/// For every element of `out`, the element of a tensor of shape `from` that is broadcast to it.
pub(super) fn sources(from: &[usize], out: &[usize]) -> Vec<usize> {
    let lead = out.len() - from.len();
    let steps: Vec<usize> = (0..out.len())
        .map(|i| if i < lead || from[i - lead] == 1 { 0 } else { strides(from)[i - lead] })
        .collect();
    let places = strides(out);
    let n: usize = out.iter().product();
    let source = |i: usize| (0..out.len()).map(|a| i / places[a] % out[a] * steps[a]).sum();
    (0..n).map(source).collect()
}

fn unary(call: &Call, f: fn(SymInt) -> Option<SymInt>) -> Option<Ints> {
    let x = call.ints(0)?;
    let values = x.values.iter().map(|v| f(*v)).collect::<Option<_>>()?;
    in_kind(x.kind, x.shape, values)
}

fn zip(call: &Call, a: &Ints, b: &Ints, kind: IntKind, f: Binary) -> Option<Ints> {
    let shape = broadcast(&[&a.shape, &b.shape], call.limit)?;
    let pairs = sources(&a.shape, &shape).into_iter().zip(sources(&b.shape, &shape));
    let values = pairs.map(|(i, j)| f(a.values[i], b.values[j])).collect::<Option<_>>()?;
    in_kind(kind, shape, values)
}

fn binary(call: &Call, f: Binary) -> Option<Ints> {
    let (a, b) = (call.ints(0)?, call.ints(1)?);
    zip(call, &a, &b, a.kind, f)
}

fn logical(call: &Call, f: Binary) -> Option<Ints> {
    zip(call, &call.ints(0)?, &call.ints(1)?, IntKind::Bool, f)
}

fn variadic(call: &Call, f: Binary) -> Option<Ints> {
    let mut out = call.ints(0)?;
    for i in 1..call.inputs.len() {
        out = zip(call, &out, &call.ints(i)?, out.kind, f)?;
    }
    Some(out)
}

fn select(call: &Call) -> Option<Ints> {
    let (c, a, b) = (call.ints(0)?, call.ints(1)?, call.ints(2)?);
    let shape = broadcast(&[&c.shape, &a.shape, &b.shape], call.limit)?;
    let (ci, ai, bi) = (sources(&c.shape, &shape), sources(&a.shape, &shape), sources(&b.shape, &shape));
    let one = |i: usize| if is_true(c.values[ci[i]]) { a.values[ai[i]] } else { b.values[bi[i]] };
    let values = (0..ci.len()).map(one).collect();
    in_kind(a.kind, shape, values)
}

fn reduce(call: &mut Call, f: Binary, empty: Option<SymInt>) -> Option<Ints> {
    let keep = call.r.flag("keepdims", true).ok()?;
    let no_axes_is_identity = call.r.flag("noop_with_empty_axes", false).ok()?;
    let axes = call.list("axes", 1)?.unwrap_or_default();
    let x = call.ints(0)?;
    if axes.is_empty() && no_axes_is_identity {
        return Some(x);
    }
    let rank = x.shape.len();
    let mut reduced = vec![axes.is_empty(); rank];
    for a in axes {
        reduced[normalize_axis(a, rank)?] = true;
    }
    let kept: Vec<usize> = x.shape.iter().zip(&reduced).map(|(d, r)| if *r { 1 } else { *d }).collect();
    let steps = strides(&kept);
    let places = strides(&x.shape);
    let mut out: Vec<Option<SymInt>> = vec![empty; element_count(&kept)?];
    for (i, v) in x.values.iter().enumerate() {
        let at: usize =
            (0..rank).map(|a| if reduced[a] { 0 } else { i / places[a] % x.shape[a] * steps[a] }).sum();
        out[at] = Some(match out[at] {
            Some(acc) => f(acc, *v)?,
            None => *v,
        });
    }
    let shape = if keep {
        kept
    } else {
        kept.into_iter().zip(&reduced).filter(|(_, r)| !**r).map(|(d, _)| d).collect()
    };
    in_kind(x.kind, shape, out.into_iter().collect::<Option<_>>()?)
}
