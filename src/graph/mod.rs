//! The intermediate representation.
//!
//! # Rules
//!
//! A [`Graph`] is a list of [`Value`]s and a list of [`Node`]s.
//!
//! 1. Every value has a unique id, a unique non-empty name and a type. It is exactly one of: a graph input, a
//!    constant (it carries its tensor), or an output of one node.
//! 2. Every node has an id that is stable under edits and unique among nodes, a unique non-empty name, an operator
//!    and, where it came from a file, the name that the file gave it.
//! 3. Nodes are in an order in which every input is produced before it is used; so there is no cycle.
//! 4. The types of a node's outputs are what [`Op::infer`] says of its inputs' types.
//! 5. A dimension is an integer or k*N, with N the one symbolic batch. Axes mean what ONNX says they mean; memory
//!    layout is no business of the graph. Rank is at most 6, elements of a concrete tensor at most 2^31.
//! 6. Graph outputs are values of any kind, each listed once. Inputs are listed in the order of the file.
//! 7. There are no quantizers in stage `float`, and operators on codes in stages `export`, `quantized` and `compiled` only. A quantizer with an owner stands for a tensor inside the integer form of
//!    that node; nothing takes what it gives, and it is computed only where it is asked for.
//!
//! [`Graph::verify`] checks all of them; import and every pass end with it.

pub mod attrs;
pub mod codes;
mod edit;
pub mod epilogue;
pub mod file;
mod json;
pub mod lower;
pub mod op;
mod placed;
pub mod sample;
pub mod text;
mod verify;

pub use attrs::{AttrValue, Attrs, OnnxForm, Place, Reader, Source};
pub use codes::{CodeOutput, CodeParams};
pub use epilogue::Epilogue;
pub use op::{Grain, Internals, Lookup, Op, OpDef, OpError, Part, QuantRule, Scratch, Tap};
pub use placed::Placed;
pub use verify::GraphError;

use crate::quant::{Profile, Quantizer};
use crate::tensor::{Tensor, TensorType};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Identity of a value within its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Identity of a node, stable under edits; printed `%12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// How far the numbers of a graph have come from float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As imported.
    Float,
    /// With quantizers, which simulate in f32 what integers would do.
    FakeQuant,
    /// The same with integer forms in place of what they are not equal to: tables, softmax, normalisations.
    Export,
    /// With operators on codes, and floats only where nothing else can be.
    Quantized,
    /// The same as a deployment file has it, with memory and kernels chosen.
    Compiled,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 5] =
        [Stage::Float, Stage::FakeQuant, Stage::Export, Stage::Quantized, Stage::Compiled];

    /// Whether operators compute on codes.
    pub fn is_on_codes(self) -> bool {
        matches!(self, Stage::Quantized | Stage::Compiled)
    }

    /// Its name in files, text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Float => "float",
            Stage::FakeQuant => "fake-quant",
            Stage::Export => "export",
            Stage::Quantized => "quantized",
            Stage::Compiled => "compiled",
        }
    }
}

/// A tensor of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Unique name: the tensor's name in the ONNX file.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// Its elements, where it is a constant.
    pub constant: Option<Tensor>,
}

/// An application of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// Stable identity.
    pub id: NodeId,
    /// Unique name.
    pub name: String,
    /// Name and operator type in the file it was imported from, for messages.
    pub source: Option<String>,
    /// What it computes.
    pub op: Arc<dyn Op>,
    /// Inputs in operator order.
    pub inputs: Vec<ValueId>,
    /// Outputs in operator order.
    pub outputs: Vec<ValueId>,
}

impl Node {
    /// Name and operator, for messages: `conv1 (Conv)`.
    pub fn label(&self) -> String {
        format!("{} ({})", self.name, self.op.def().name)
    }
}

impl Node {
    /// Whether it makes codes of numbers when the graph runs, or what is left of them then.
    pub fn quantizes(&self) -> bool {
        self.quantizer().is_some_and(Quantizer::quantizes) || self.op.def().name == "Quantize"
    }

    /// The quantizer that it is.
    pub fn quantizer(&self) -> Option<&Quantizer> {
        match self.op.quant_rule() {
            QuantRule::Quantizer(q) => Some(q),
            _ => None,
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.source == other.source
            && self.op.def().name == other.op.def().name
            && self.op.attrs().same_bits(&other.op.attrs())
            && self.inputs == other.inputs
            && self.outputs == other.outputs
    }
}

/// What the numbers of a graph were made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose arithmetic it is.
    pub profile: Profile,
    /// Consistency level 0 to 4: how far the simulation has what the integer model has.
    pub level: u8,
}

/// A model. See the rules at the top of this module.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// How far its numbers have come.
    pub stage: Stage,
    /// The target, in stages behind `float`.
    pub target: Option<Target>,
    /// Memory and kernels, in stage `compiled`: followed where the plan of a run has the same tensors.
    pub placed: Option<Arc<Placed>>,
    /// Values; the position is the id.
    values: Vec<Value>,
    /// Nodes in execution order.
    nodes: Vec<Node>,
    /// Inputs in the order of the file.
    pub inputs: Vec<ValueId>,
    /// Outputs in the order of the file.
    pub outputs: Vec<ValueId>,
    next_node: u32,
}

impl Graph {
    /// A graph without content.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            stage: Stage::Float,
            target: None,
            placed: None,
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            next_node: 0,
        }
    }

    fn add_value(&mut self, name: impl Into<String>, ty: TensorType, constant: Option<Tensor>) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        self.values.push(Value { name: name.into(), ty, constant });
        id
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let id = self.add_value(name, ty, None);
        self.inputs.push(id);
        id
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        self.add_value(name, tensor.ty(), Some(tensor))
    }

    /// Adds a node whose inputs are there already; output types follow from [`Op::infer`].
    pub fn add_node(
        &mut self,
        name: impl Into<String>,
        source: Option<String>,
        op: Arc<dyn Op>,
        inputs: &[ValueId],
        outputs: &[String],
    ) -> Result<Vec<ValueId>, OpError> {
        let types: Vec<TensorType> = inputs.iter().map(|v| self.value(*v).ty.clone()).collect();
        let out_types = op.infer(&types)?;
        let outputs: Vec<ValueId> = out_types
            .into_iter()
            .zip(outputs)
            .map(|(ty, name)| self.add_value(name.clone(), ty, None))
            .collect();
        let id = NodeId(self.next_node);
        self.next_node += 1;
        self.nodes.push(Node {
            id,
            name: name.into(),
            source,
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
        });
        Ok(outputs)
    }

    /// A graph from parts, as files and text give them; verified.
    pub fn from_parts(
        name: String,
        stage: Stage,
        target: Option<Target>,
        values: Vec<Value>,
        nodes: Vec<Node>,
        inputs: Vec<ValueId>,
        outputs: Vec<ValueId>,
    ) -> Result<Graph, GraphError> {
        let next_node = nodes.iter().map(|n| n.id.0.saturating_add(1)).max().unwrap_or(0);
        let graph = Graph { name, stage, target, placed: None, values, nodes, inputs, outputs, next_node };
        graph.verify()?;
        Ok(graph)
    }

    /// The values; the position is the id.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The nodes in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The value of an id of this graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The value called `name`.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        let i = self.values.iter().position(|v| v.name == name)?;
        u32::try_from(i).ok().map(ValueId)
    }

    /// The node that produces each value.
    pub fn producers(&self) -> HashMap<ValueId, usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.flat_map(|(i, n)| n.outputs.iter().map(move |v| (*v, i))).collect()
    }

    /// Whether any input's shape depends on the batch.
    pub fn is_batched(&self) -> bool {
        self.inputs.iter().any(|v| self.value(*v).ty.is_symbolic())
    }

    /// Number of nodes of each operator, by name.
    pub fn op_counts(&self) -> std::collections::BTreeMap<&'static str, usize> {
        let mut out = std::collections::BTreeMap::new();
        for n in &self.nodes {
            *out.entry(n.op.def().name).or_insert(0) += 1;
        }
        out
    }

    /// The graph with N = `batch`: every type concrete, ids and names kept. Verified.
    pub fn at_batch(&self, batch: usize) -> Result<Graph, GraphError> {
        let mut out = self.clone();
        for v in &mut out.values {
            v.ty =
                v.ty.at(batch)
                    .ok_or_else(|| GraphError::TooLarge { value: v.name.clone(), ty: v.ty.to_string() })?;
        }
        for node in &mut out.nodes {
            let attrs = node.op.attrs();
            let concrete = attrs
                .at(batch)
                .ok_or_else(|| GraphError::TooLarge { value: node.name.clone(), ty: "attributes".into() })?;
            if attrs != concrete {
                let inputs = node.inputs.iter();
                let inputs = inputs
                    .map(|v| Some(attrs::Input { ty: out.values[v.0 as usize].ty.clone(), known: None }))
                    .collect();
                let def = node.op.def();
                let mut reader = Reader::new(Source::Graph, def.name, concrete, inputs, node.outputs.len());
                node.op =
                    (def.read)(&mut reader).map_err(|error| GraphError::Op { node: node.label(), error })?;
            }
        }
        out.verify()?;
        Ok(out)
    }
}
