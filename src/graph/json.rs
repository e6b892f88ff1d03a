//! A graph as JSON, without the elements of its constants.

use super::attrs::{Input, SymInt};
use super::op::{Lookup, check};
use super::text::number;
use super::{
    AttrValue, Attrs, Graph, GraphError, Node, NodeId, OpError, Reader, Source, Stage, Target, Value, ValueId,
};
use crate::quant::Profile;
use crate::tensor::{DType, Dim, Tensor, TensorType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// JSON that is not a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not the JSON of a graph.
    #[error("graph JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A word that means nothing.
    #[error("{place}: {what} {got:?} is unknown")]
    Unknown {
        /// Value or node.
        place: String,
        /// What it should be.
        what: &'static str,
        /// What is there.
        got: String,
    },
    /// A number that is not one.
    #[error("{place}: {got} is not {what}")]
    Number {
        /// Value or node.
        place: String,
        /// What it should be.
        what: &'static str,
        /// What is there.
        got: String,
    },
    /// A node that refers to a value that does not exist.
    #[error("{place} refers to value {id}, which does not exist")]
    NoValue {
        /// The node.
        place: String,
        /// The id.
        id: u32,
    },
    /// A constant whose tensor the file does not have.
    #[error("constant {name:?}: the file has no tensor {key:?}")]
    NoTensor {
        /// The value.
        name: String,
        /// Name of the tensor.
        key: String,
    },
    /// An operator refuses its attributes.
    #[error("{place}: {error}")]
    Op {
        /// The node.
        place: String,
        /// What it says.
        error: OpError,
    },
    /// An attribute that the operator does not have.
    #[error("{place}: attribute {name} = {value} is not one that the operator has")]
    Attribute {
        /// The node.
        place: String,
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Nothing would ever be computed.
    #[error("the graph has no outputs: import or convert the model again")]
    NoOutputs,
    /// The graph breaks a rule.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphJson {
    name: String,
    stage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetJson>,
    inputs: Vec<u32>,
    outputs: Vec<u32>,
    nodes: Vec<NodeJson>,
    values: Vec<ValueJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetJson {
    level: u8,
    /// TOML.
    profile: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueJson {
    name: String,
    dtype: String,
    shape: Vec<SymJson>,
    /// Name of its tensor in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    constant: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeJson {
    id: u32,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    op: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attrs: BTreeMap<String, AttrJson>,
    inputs: Vec<u32>,
    outputs: Vec<u32>,
}

/// An integer, or `"2N"`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SymJson {
    Int(i64),
    Batch(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AttrJson {
    Int(i64),
    Ints(Vec<SymJson>),
    Float(FloatJson),
    Floats(Vec<FloatJson>),
    Str(String),
    Strs(Vec<String>),
}

/// A number; JSON has none for infinities and NaN.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum FloatJson {
    Number(f64),
    Word(String),
}

impl From<SymInt> for SymJson {
    fn from(s: SymInt) -> Self {
        match s {
            SymInt::Int(v) => SymJson::Int(v),
            SymInt::Batch(_) => SymJson::Batch(s.to_string()),
        }
    }
}

impl SymJson {
    fn read(&self, place: &str) -> Result<SymInt, JsonError> {
        let text = match self {
            SymJson::Int(v) => return Ok(SymInt::Int(*v)),
            SymJson::Batch(text) => text,
        };
        let k = match text.strip_suffix('N') {
            Some("") => Some(1),
            Some(k) => k.parse().ok().filter(|k| *k > 0),
            None => None,
        };
        k.map(SymInt::Batch).ok_or_else(|| JsonError::Number {
            place: place.to_owned(),
            what: "a multiple of N",
            got: text.clone(),
        })
    }

    fn dim(&self, place: &str) -> Result<Dim, JsonError> {
        let s = self.read(place)?;
        s.dim().ok_or_else(|| JsonError::Number {
            place: place.to_owned(),
            what: "a dimension",
            got: s.to_string(),
        })
    }
}

impl From<f32> for FloatJson {
    fn from(v: f32) -> Self {
        // Every f32 is an f64, whose decimal form reads back to it.
        if v.is_finite() { FloatJson::Number(v.into()) } else { FloatJson::Word(number::print(v)) }
    }
}

impl FloatJson {
    fn read(&self, place: &str) -> Result<f32, JsonError> {
        let (v, got) = match self {
            FloatJson::Number(v) => {
                #[allow(clippy::cast_possible_truncation, reason = "checked to be an f32 below")]
                let narrow = *v as f32;
                (narrow.is_finite().then_some(narrow), v.to_string())
            }
            FloatJson::Word(w) => (number::parse(w), w.clone()),
        };
        v.ok_or_else(|| JsonError::Number { place: place.to_owned(), what: "a 32-bit float", got })
    }
}

impl AttrJson {
    fn new(v: AttrValue) -> Option<AttrJson> {
        Some(match v {
            AttrValue::Int(v) => AttrJson::Int(v),
            AttrValue::Ints(v) => AttrJson::Ints(v.into_iter().map(Into::into).collect()),
            AttrValue::Float(v) => AttrJson::Float(v.into()),
            AttrValue::Floats(v) => AttrJson::Floats(v.into_iter().map(Into::into).collect()),
            AttrValue::Str(v) => AttrJson::Str(v),
            AttrValue::Strs(v) => AttrJson::Strs(v),
            // Never in a graph's own attributes.
            AttrValue::Tensor(_) => return None,
        })
    }

    fn read(self, place: &str) -> Result<AttrValue, JsonError> {
        Ok(match self {
            AttrJson::Int(v) => AttrValue::Int(v),
            AttrJson::Ints(v) => AttrValue::Ints(v.iter().map(|s| s.read(place)).collect::<Result<_, _>>()?),
            AttrJson::Float(v) => AttrValue::Float(v.read(place)?),
            AttrJson::Floats(v) => {
                AttrValue::Floats(v.iter().map(|x| x.read(place)).collect::<Result<_, _>>()?)
            }
            AttrJson::Str(v) => AttrValue::Str(v),
            AttrJson::Strs(v) => AttrValue::Strs(v),
        })
    }
}

/// The JSON; `keys` names the tensor of each constant.
pub(super) fn write(graph: &Graph, keys: &BTreeMap<ValueId, String>) -> Result<String, serde_json::Error> {
    let ids = |v: &[ValueId]| v.iter().map(|v| v.0).collect();
    let value = |(i, v): (u32, &Value)| ValueJson {
        name: v.name.clone(),
        dtype: v.ty.dtype.name().to_owned(),
        shape: v.ty.shape.iter().map(|d| SymInt::from(*d).into()).collect(),
        constant: keys.get(&ValueId(i)).cloned(),
    };
    let node = |n: &Node| NodeJson {
        id: n.id.0,
        name: n.name.clone(),
        source: n.source.clone(),
        op: n.op.def().name.to_owned(),
        attrs: n.op.attrs().0.into_iter().filter_map(|(k, v)| Some((k, AttrJson::new(v)?))).collect(),
        inputs: ids(&n.inputs),
        outputs: ids(&n.outputs),
    };
    serde_json::to_string(&GraphJson {
        name: graph.name.clone(),
        stage: graph.stage.name().to_owned(),
        target: graph
            .target
            .as_ref()
            .map(|t| TargetJson { level: t.level, profile: t.profile.source.clone() }),
        inputs: ids(&graph.inputs),
        outputs: ids(&graph.outputs),
        nodes: graph.nodes().iter().map(node).collect(),
        values: (0u32..).zip(graph.values()).map(value).collect(),
    })
}

/// The verified graph; `take` gives the tensors of constants.
pub(super) fn read(
    json: &str,
    ops: Lookup,
    take: &mut dyn FnMut(&str, &TensorType) -> Option<Tensor>,
) -> Result<Graph, JsonError> {
    let g: GraphJson = serde_json::from_str(json)?;
    let unknown =
        |place: &str, what, got: &str| JsonError::Unknown { place: place.into(), what, got: got.into() };
    let stage = Stage::ALL.into_iter().find(|s| s.name() == g.stage);
    let stage = stage.ok_or_else(|| unknown("graph", "stage", &g.stage))?;
    let target = g.target.map(|t| match Profile::parse(&t.profile) {
        Ok(profile) if t.level <= 4 => Ok(Target { profile, level: t.level }),
        Ok(_) => Err(unknown("target", "level", &t.level.to_string())),
        Err(e) => Err(unknown("target", "profile", &e.to_string())),
    });
    let target = target.transpose()?;
    let mut values = Vec::new();
    for v in g.values {
        let place = format!("value {:?}", v.name);
        let dtype = DType::from_name(&v.dtype).ok_or_else(|| unknown(&place, "element type", &v.dtype))?;
        let shape = v.shape.iter().map(|d| d.dim(&place)).collect::<Result<_, _>>()?;
        let ty = TensorType { dtype, shape };
        check::size(&ty).map_err(|error| JsonError::Op { place, error })?;
        let constant = match v.constant {
            None => None,
            Some(key) => match take(&key, &ty) {
                None => return Err(JsonError::NoTensor { name: v.name, key }),
                t => t,
            },
        };
        values.push(Value { name: v.name, ty, constant });
    }
    let nodes = g.nodes.into_iter().map(|n| node(n, &values, ops)).collect::<Result<_, _>>()?;
    let ids = |v: Vec<u32>| v.into_iter().map(ValueId).collect();
    let graph = Graph::from_parts(g.name, stage, target, values, nodes, ids(g.inputs), ids(g.outputs))?;
    if graph.outputs.is_empty() {
        return Err(JsonError::NoOutputs);
    }
    for node in graph.nodes() {
        let inputs: Vec<&Value> = node.inputs.iter().map(|v| graph.value(*v)).collect();
        let checked = node.op.check_constants(&inputs);
        checked.map_err(|error| JsonError::Op { place: node.label(), error })?;
    }
    Ok(graph)
}

fn node(n: NodeJson, values: &[Value], ops: Lookup) -> Result<Node, JsonError> {
    let place = format!("node {:?}", n.name);
    let Some(def) = ops(&n.op) else {
        return Err(JsonError::Unknown { place, what: "operator", got: n.op });
    };
    let mut attrs = Attrs::new();
    for (name, v) in n.attrs {
        attrs.0.push((name, v.read(&place)?));
    }
    let mut inputs = Vec::new();
    for id in &n.inputs {
        let Some(v) = values.get(*id as usize) else { return Err(JsonError::NoValue { place, id: *id }) };
        inputs.push(Some(Input { ty: v.ty.clone(), known: None }));
    }
    let mut r = Reader::new(Source::Graph, def.name, attrs, inputs, n.outputs.len());
    let op = (def.read)(&mut r).map_err(|error| JsonError::Op { place: place.clone(), error })?;
    if let Some((name, value)) = r.unread().first() {
        let (name, value) = ((*name).to_owned(), value.to_string());
        return Err(JsonError::Attribute { place, name, value });
    }
    let ids = |v: Vec<u32>| v.into_iter().map(ValueId).collect();
    let (inputs, outputs) = (ids(n.inputs), ids(n.outputs));
    Ok(Node { id: NodeId(n.id), name: n.name, source: n.source, op, inputs, outputs })
}
