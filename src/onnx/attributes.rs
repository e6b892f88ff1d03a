//! ONNX attributes as the operators' reader takes them.

use super::constant::{Constant, IntKind, Ints, NoTensor};
use super::problem::ProblemKind;
use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, NodeProto};
use super::tensors::{self, Folder};
use crate::graph::Attrs;
use crate::graph::attrs::{AttrValue, SymInt};
use crate::tensor::Tensor;
use bytes::Bytes;

/// The attribute's type; files before IR version 2 leave it to be seen from the fields.
fn kind(a: &AttributeProto) -> AttributeType {
    match a.r#type.map(AttributeType::try_from) {
        Some(Ok(t)) if t != AttributeType::Undefined => return t,
        Some(Err(_)) => return AttributeType::Undefined,
        _ => {}
    }
    let fields = [
        (a.f.is_some(), AttributeType::Float),
        (a.i.is_some(), AttributeType::Int),
        (a.s.is_some(), AttributeType::String),
        (a.t.is_some(), AttributeType::Tensor),
        (a.g.is_some(), AttributeType::Graph),
        (!a.floats.is_empty(), AttributeType::Floats),
        (!a.ints.is_empty(), AttributeType::Ints),
        (!a.strings.is_empty(), AttributeType::Strings),
    ];
    fields.into_iter().find(|(there, _)| *there).map_or(AttributeType::Undefined, |(_, t)| t)
}

fn form(name: &str, form: impl Into<String>) -> ProblemKind {
    ProblemKind::AttributeForm { name: name.to_owned(), form: form.into() }
}

fn text(name: &str, bytes: &Bytes) -> Result<String, ProblemKind> {
    String::from_utf8(bytes.to_vec()).map_err(|_| form(name, "text that is not UTF-8"))
}

/// The attributes of a node, and what is wrong with those that are missing among them.
pub(super) fn read(node: &NodeProto, folder: &Folder) -> (Attrs, Vec<ProblemKind>) {
    let mut out = Attrs::new();
    let mut problems = Vec::new();
    for a in &node.attribute {
        if out.0.iter().any(|(n, _)| n == a.name()) {
            problems.push(form(a.name(), "given twice"));
            continue;
        }
        match value(a, folder) {
            Ok(v) => out.0.push((a.name().to_owned(), v)),
            Err(p) => problems.push(p),
        }
    }
    (out, problems)
}

fn value(a: &AttributeProto, folder: &Folder) -> Result<AttrValue, ProblemKind> {
    let name = a.name();
    if !a.ref_attr_name().is_empty() {
        return Err(form(name, format!("a reference to {:?} of a function", a.ref_attr_name())));
    }
    Ok(match kind(a) {
        AttributeType::Float => AttrValue::Float(a.f()),
        AttributeType::Int => AttrValue::Int(a.i()),
        AttributeType::String => AttrValue::Str(text(name, &a.s.clone().unwrap_or_default())?),
        AttributeType::Floats => AttrValue::Floats(a.floats.clone()),
        AttributeType::Ints => AttrValue::Ints(a.ints.iter().map(|v| SymInt::Int(*v)).collect()),
        AttributeType::Strings => {
            AttrValue::Strs(a.strings.iter().map(|s| text(name, s)).collect::<Result<_, _>>()?)
        }
        AttributeType::Tensor => {
            let Some(t) = &a.t else { return Err(form(name, "a tensor without content")) };
            match tensors::read(t, folder)?.tensor(t.name()) {
                Ok(t) => AttrValue::Tensor(t),
                Err(NoTensor::Range(p)) => return Err(p.into()),
                Err(NoTensor::DependsOnBatch) => {
                    return Err(form(name, "a tensor that depends on the batch"));
                }
            }
        }
        AttributeType::Undefined => {
            return Err(form(name, format!("of type number {}", a.r#type.unwrap_or(0))));
        }
        other => return Err(form(name, other.as_str_name().to_lowercase())),
    })
}

/// What is wrong with the attributes of an `If`.
pub(super) fn branches(node: &NodeProto, folder: &Folder) -> Vec<ProblemKind> {
    let problem = |a: &AttributeProto| match a.name() {
        "then_branch" | "else_branch" if kind(a) == AttributeType::Graph => None,
        name @ ("then_branch" | "else_branch") => Some(ProblemKind::AttributeForm {
            name: name.to_owned(),
            form: format!("{}, not a graph", kind(a).as_str_name().to_lowercase()),
        }),
        _ => Some(unknown(a, folder, "If (then_branch, else_branch)")),
    };
    node.attribute.iter().filter_map(problem).collect()
}

/// An attribute that the operator does not have.
fn unknown(a: &AttributeProto, folder: &Folder, operator: &str) -> ProblemKind {
    match value(a, folder) {
        Ok(v) => ProblemKind::UnknownAttribute {
            name: a.name().to_owned(),
            value: v.to_string(),
            operator: operator.to_owned(),
        },
        Err(p) => p,
    }
}

/// The value of a `Constant` node, and what is wrong with it.
pub(super) fn constant(node: &NodeProto, folder: &Folder) -> (Option<Constant>, Vec<ProblemKind>) {
    const VALUES: [&str; 5] = ["value", "value_int", "value_ints", "value_float", "value_floats"];
    let (values, others): (Vec<&AttributeProto>, Vec<&AttributeProto>) =
        node.attribute.iter().partition(|a| VALUES.contains(&a.name()));
    let operator = format!("Constant ({})", VALUES.join(", "));
    let mut problems: Vec<ProblemKind> = others.into_iter().map(|a| unknown(a, folder, &operator)).collect();
    let value = match values.as_slice() {
        [a] => constant_value(a, folder).map_err(|p| problems.push(p)).ok(),
        [first, rest @ ..] => {
            let beside = |a: &&AttributeProto| form(a.name(), format!("given beside {}", first.name()));
            problems.extend(rest.iter().map(beside));
            None
        }
        [] if problems.is_empty() => {
            problems.push(form("value", "missing"));
            None
        }
        [] => None,
    };
    (value, problems)
}

fn constant_value(a: &AttributeProto, folder: &Folder) -> Result<Constant, ProblemKind> {
    if a.name() == "value"
        && let Some(t) = &a.t
    {
        return Ok(tensors::read(t, folder)?);
    }
    let ints = |shape: Vec<usize>, v: &[i64]| {
        let values = v.iter().map(|x| SymInt::Int(*x)).collect();
        Constant::Ints(Ints::new(IntKind::I64, shape, values))
    };
    match (a.name(), value(a, folder)?) {
        ("value_int", AttrValue::Int(v)) => Ok(ints(vec![], &[v])),
        ("value_ints", AttrValue::Ints(_)) => Ok(ints(vec![a.ints.len()], &a.ints)),
        ("value_float", AttrValue::Float(v)) => Ok(Constant::Tensor(Tensor::scalar(v))),
        ("value_floats", AttrValue::Floats(v)) => Ok(Constant::Tensor(Tensor::from_f32([v.len()], v))),
        (name, v) => Err(form(name, format!("{v}, which is not what its name says"))),
    }
}
