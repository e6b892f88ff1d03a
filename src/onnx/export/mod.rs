//! Graphs as ONNX models of operator set 21.
//!
//! Operators are written as their attributes say ([`crate::graph::OnnxForm`]); integers are int32, with casts where ONNX
//! insists on int64. A quantizer becomes `QuantizeLinear` and `DequantizeLinear`, of a constant its codes and
//! `DequantizeLinear`.

mod node;
mod quantizer;
mod tensor;

use super::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use super::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use crate::graph::attrs::onnx_number;
use crate::graph::{Graph, ValueId};
use crate::tensor::{Dim, TensorType};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The operator set that is written.
pub const OPSET: i64 = 21;

/// The version of the format that has it.
const IR_VERSION: i64 = 10;

/// Protobuf's limit of a message.
const MOST_BYTES: usize = (1 << 31) - 1;

/// A model, and what of it is not as in the graph.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The file.
    pub model: Vec<u8>,
    /// Nodes in it.
    pub nodes: usize,
    /// What computes otherwise there, and how.
    pub warnings: Vec<String>,
}

/// Why a graph cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Quantizers without frozen parameters.
    #[error("{} quantizers are not calibrated (`samebit calibrate` finds their scales): {}", .0.len(), .0.join(", "))]
    Uncalibrated(Vec<String>),
    /// A graph that breaks a rule.
    #[error("{0}")]
    Graph(String),
    /// What ONNX cannot say.
    #[error("{} nodes have no form in operator set {OPSET}:\n  {}", .0.len(), .0.join("\n  "))]
    Unsaid(Vec<String>),
    /// Larger than a protobuf file can be.
    #[error("the model has {0} bytes, ONNX files have at most {MOST_BYTES}")]
    TooLarge(usize),
}

/// Writes a graph as an ONNX model.
///
/// # Errors
/// See [`ExportError`].
pub fn export(graph: &Graph) -> Result<Exported, ExportError> {
    // ONNX has no place for what is inside an operator.
    let stripped;
    let graph = if graph.has_internals() {
        stripped = graph.clone().without_internals().map_err(|e| ExportError::Graph(e.to_string()))?;
        &stripped
    } else {
        graph
    };
    let mut w = Writer::new(graph);
    w.constants();
    for node in graph.nodes() {
        w.node(node);
    }
    if !w.uncalibrated.is_empty() {
        return Err(ExportError::Uncalibrated(w.uncalibrated));
    }
    if !w.problems.is_empty() {
        return Err(ExportError::Unsaid(w.problems));
    }
    let info = |v: &ValueId| value_info(&graph.value(*v).name, &graph.value(*v).ty);
    let nodes = w.nodes.len();
    let proto = GraphProto {
        name: Some(graph.name.clone()),
        node: w.nodes,
        initializer: w.initializers,
        input: graph.inputs.iter().map(info).collect(),
        output: graph.outputs.iter().map(info).collect(),
        ..GraphProto::default()
    };
    let domain =
        |name: &str, version| OperatorSetIdProto { domain: Some(name.to_owned()), version: Some(version) };
    let others = w.domains.iter().map(|d| domain(d, 1));
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import: std::iter::once(domain("", OPSET)).chain(others).collect(),
        producer_name: Some("samebit".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(proto),
        ..ModelProto::default()
    };
    if model.encoded_len() > MOST_BYTES {
        return Err(ExportError::TooLarge(model.encoded_len()));
    }
    let counted = |(what, n): (&'static str, usize)| format!("{n} quantizers {what}");
    let warnings = w.warnings.into_iter().map(counted).collect();
    Ok(Exported { model: model.encode_to_vec(), nodes, warnings })
}

/// A model while it is written.
struct Writer<'g> {
    graph: &'g Graph,
    /// Names of tensors and nodes that are taken.
    taken: HashSet<String>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Domains of operators beside ONNX's own.
    domains: BTreeSet<String>,
    /// The tensor `[N]`, once a node needs it.
    batch: Option<String>,
    uncalibrated: Vec<String>,
    problems: Vec<String>,
    /// What quantizers do otherwise there, and how many do.
    warnings: BTreeMap<&'static str, usize>,
}

impl<'g> Writer<'g> {
    fn new(graph: &'g Graph) -> Writer<'g> {
        let values = graph.values().iter().map(|v| v.name.clone());
        let taken = values.chain(graph.nodes().iter().map(|n| n.name.clone())).collect();
        Writer {
            graph,
            taken,
            nodes: Vec::new(),
            initializers: Vec::new(),
            domains: BTreeSet::new(),
            batch: None,
            uncalibrated: Vec::new(),
            problems: Vec::new(),
            warnings: BTreeMap::new(),
        }
    }

    /// A name that nothing has.
    fn fresh(&mut self, name: &str) -> String {
        let numbered = (2..).map(|i| format!("{name}.{i}"));
        let mut all = std::iter::once(name.to_owned()).chain(numbered);
        let name = all.find(|n| !self.taken.contains(n)).expect("there is no end of numbers");
        self.taken.insert(name.clone());
        name
    }

    fn name(&self, v: ValueId) -> String {
        self.graph.value(v).name.clone()
    }

    /// The constants that anything but a quantizer takes.
    fn constants(&mut self) {
        let mut used: BTreeSet<ValueId> = self.graph.outputs.iter().copied().collect();
        for node in self.graph.nodes().iter().filter(|n| !n.quantizer().is_some_and(|q| q.quantizes())) {
            used.extend(&node.inputs);
        }
        for v in used {
            let value = self.graph.value(v);
            if let Some(t) = &value.constant {
                self.initializers.push(tensor::stored(&value.name, t));
            }
        }
    }

    /// Adds a node of the default domain that our graph does not have.
    fn helper(&mut self, op: &str, inputs: &[&str], output: &str, attrs: &[(&str, i64)]) {
        let name = self.fresh(&format!("{output}/{op}"));
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.to_owned()],
            name: Some(name),
            op_type: Some(op.to_owned()),
            attribute: attrs.iter().map(|(n, v)| node::int(n, *v)).collect(),
            ..NodeProto::default()
        });
    }
}

fn value_info(name: &str, ty: &TensorType) -> ValueInfoProto {
    let dim = |d: &Dim| Dimension {
        value: Some(match d {
            Dim::Fixed(n) => DimValue::DimValue(i64::try_from(*n).unwrap_or(i64::MAX)),
            batch => DimValue::DimParam(batch.to_string()),
        }),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: i32::try_from(onnx_number(ty.dtype)).ok(),
        shape: Some(TensorShapeProto { dim: ty.shape.iter().map(dim).collect() }),
    };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty), ..ValueInfoProto::default() }
}
