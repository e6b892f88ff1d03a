//! Shape arithmetic: operators on integers known at import, computed in 64 bits and with N.

mod elementwise;
mod scalar;
mod structure;

use super::constant::{Constant, IntKind, Ints};
use crate::graph::attrs::{AttrValue, SymInt};
use crate::graph::{OpError, Reader};
use crate::tensor::{Data, Tensor, TensorType, element_count};
use std::sync::Arc;

/// What is known of one input.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub ty: TensorType,
    pub constant: Option<Constant>,
}

/// A node to fold: attributes through the reader, inputs with what is known of them.
pub(super) struct Call<'a> {
    pub r: &'a mut Reader,
    pub inputs: &'a [Option<Known>],
    /// Most elements that the outputs may have.
    pub limit: usize,
}

impl Call<'_> {
    fn constant(&self, i: usize) -> Option<&Constant> {
        self.inputs.get(i)?.as_ref()?.constant.as_ref()
    }

    fn ints(&self, i: usize) -> Option<Ints> {
        self.constant(i)?.ints()
    }

    fn has(&self, i: usize) -> bool {
        matches!(self.inputs.get(i), Some(Some(_)))
    }

    /// A list of integers in attribute `name`, or in input `i`. The outer `None`: not known.
    fn list(&mut self, name: &str, i: usize) -> Option<Option<Vec<i64>>> {
        if let Some(v) = self.r.ints(name).ok()? {
            return Some(Some(v));
        }
        if !self.has(i) {
            return Some(None);
        }
        self.ints(i)?.concrete().map(Some)
    }
}

/// Operators of the default domain that [`fold`] computes.
const FOLDED: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Cast",
    "Concat",
    "ConstantOfShape",
    "Div",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Range",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Whether [`fold`] has a rule for the operator.
pub(super) fn knows(operator: &str) -> bool {
    FOLDED.contains(&operator)
}

/// Reads the attributes of an operator that has no rule but one of [`fold`]'s.
pub(super) fn read_attributes(op: &str, r: &mut Reader) -> Result<(), OpError> {
    if op == "Shape" {
        r.int("start", 0)?;
        r.opt_int("end")?;
    }
    Ok(())
}

/// The outputs of a node of the default domain, if this is shape arithmetic whose inputs are known.
pub(super) fn fold(op: &str, call: &mut Call) -> Option<Vec<Constant>> {
    let one = |v: Ints| vec![Constant::Ints(v)];
    match op {
        "Shape" => shape(call).map(one),
        "Size" => size(call).map(one),
        "ConstantOfShape" => constant_of_shape(call).map(one),
        "Cast" => cast(call).map(|c| vec![c]),
        "Range" => range(call).map(one),
        "Split" => structure::split(call).map(|v| v.into_iter().map(Constant::Ints).collect()),
        _ => structure::fold(op, call).or_else(|| elementwise::fold(op, call)).map(one),
    }
}

fn vector(values: Vec<SymInt>) -> Ints {
    Ints::new(IntKind::I64, vec![values.len()], values)
}

fn shape(call: &mut Call) -> Option<Ints> {
    let (start, end) = (call.r.int("start", 0).ok()?, call.r.opt_int("end").ok()?);
    let dims = &call.inputs.first()?.as_ref()?.ty.shape;
    let rank = i64::try_from(dims.len()).ok()?;
    let clamp =
        |v: i64| usize::try_from((if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank)).ok();
    let (start, end) = (clamp(start)?, clamp(end.unwrap_or(rank))?);
    let dims = dims.get(start..end.max(start))?;
    Some(vector(dims.iter().map(|d| SymInt::from(*d)).collect()))
}

fn size(call: &Call) -> Option<Ints> {
    let n = call.inputs.first()?.as_ref()?.ty.elements()?;
    Some(Ints::new(IntKind::I64, vec![], vec![n.into()]))
}

fn constant_of_shape(call: &mut Call) -> Option<Ints> {
    let dims = call.ints(0)?.concrete()?;
    let dims: Vec<usize> = dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    let n = element_count(&dims).filter(|n| *n <= call.limit)?;
    let Some(AttrValue::Tensor(value)) = call.r.raw("value") else { return None };
    let value = Constant::Tensor(value).ints().filter(|v| v.values.len() == 1)?;
    let kind = if value.kind == IntKind::Bool { IntKind::Bool } else { IntKind::I64 };
    Some(Ints::new(kind, dims, vec![value.values[0]; n]))
}

fn range(call: &Call) -> Option<Ints> {
    let one = |i: usize| call.ints(i).filter(|v| v.values.len() == 1).and_then(|v| v.values[0].int());
    let (start, limit, delta) = (one(0)?, one(1)?, one(2)?);
    let kind = call.ints(0)?.kind;
    let span = i128::from(limit) - i128::from(start);
    let delta = i128::from(delta);
    if delta == 0 {
        return None;
    }
    // Rounded up, so that the last step before the limit counts.
    let n = (span / delta + i128::from(span % delta != 0 && (span < 0) == (delta < 0))).max(0);
    let n = usize::try_from(n).ok().filter(|n| *n <= call.limit)?;
    let values = (0..n).map(|i| i64::try_from(i128::from(start) + i as i128 * delta).ok().map(SymInt::Int));
    Some(Ints::new(kind, vec![n], values.collect::<Option<_>>()?))
}

/// Between integer kinds with N; between integers and numbers where all are known.
fn cast(call: &mut Call) -> Option<Constant> {
    let Some(AttrValue::Int(to)) = call.r.raw("to") else { return None };
    call.r.ignore("saturate");
    if let Some(v) = call.ints(0) {
        return match to {
            1 | 11 => {
                #[allow(clippy::cast_precision_loss, reason = "numbers are f32 here, rounded to nearest")]
                let values = v.concrete()?.into_iter().map(|x| x as f32).collect();
                Some(Constant::Tensor(Tensor::from_f32(v.shape, values)))
            }
            _ => to_kind(to, &v).map(Constant::Ints),
        };
    }
    let Constant::Tensor(t) = call.constant(0)? else { return None };
    let values: Vec<i64> = match t.data() {
        Data::F32(v) => v.iter().map(|x| truncated(*x, to)).collect::<Option<_>>()?,
        Data::I32(_) | Data::Bool(_) => return None,
        _ => t.codes()?.into_iter().map(i64::from).collect(),
    };
    let values: Vec<SymInt> = values.into_iter().map(SymInt::Int).collect();
    to_kind(to, &Ints::new(IntKind::I64, t.shape().to_vec(), values)).map(Constant::Ints)
}

fn to_kind(to: i64, v: &Ints) -> Option<Ints> {
    match to {
        7 => Some(Ints { kind: IntKind::I64, ..v.clone() }),
        6 => in_kind(IntKind::I32, v.shape.clone(), v.values.to_vec()),
        9 => {
            let truth = |x: &SymInt| SymInt::Int(i64::from(*x != SymInt::Int(0)));
            Some(Ints::new(IntKind::Bool, v.shape.clone(), v.values.iter().map(truth).collect()))
        }
        _ => None,
    }
}

/// A number as ONNX casts it; `None` where that is undefined.
fn truncated(x: f32, to: i64) -> Option<i64> {
    /// 2^63.
    const BEYOND: f32 = 9_223_372_036_854_775_808.0;
    if to == 9 {
        return Some(i64::from(x != 0.0));
    }
    #[allow(clippy::cast_possible_truncation, reason = "the range was checked; the fraction is dropped")]
    (-BEYOND..BEYOND).contains(&x).then_some(x as i64)
}

/// Integers of a kind; `None` where 32 bits would have wrapped.
fn in_kind(kind: IntKind, shape: Vec<usize>, values: Vec<SymInt>) -> Option<Ints> {
    let fits = |v: &SymInt| v.int().is_none_or(|v| i32::try_from(v).is_ok());
    (kind != IntKind::I32 || values.iter().all(fits)).then(|| Ints { kind, shape, values: Arc::new(values) })
}
