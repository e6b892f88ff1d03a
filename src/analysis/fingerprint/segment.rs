//! What lies between tensors that a black box shows.

use crate::error::Error;
use crate::exec::ExecError;
use crate::graph::{CodeOutput, Graph, Node, ValueId};
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// How far an answer may be from what a profile gives without excluding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slack {
    /// Codes must be equal, f32 made of sums to some ulp.
    None,
    /// Codes may be one apart.
    OneCode(&'static str),
    /// Nothing follows from a difference.
    Open(&'static str),
    /// f32 that floats computed.
    Floats,
}

const SOFTMAX: &str = "runtimes have formulas of their own for softmax";
const ISLAND: &str = "it comes from floats";
const BEHIND: &str = "it lies behind a softmax or floats whose results are not shown";

/// The operators between a tensor and those shown before it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Indices of operators on codes that compute, the last one last.
    pub(super) ops: Vec<usize>,
    pub(super) slack: Slack,
    /// Graph inputs that it needs and that are not among those given.
    pub(super) missing: Vec<ValueId>,
}

/// Whether a node computes on codes by rules that profiles may differ in.
fn computes(node: &Node) -> bool {
    node.op.integer_of().is_some() || node.op.def().name == "Table"
}

/// Whether a node computes in floats.
fn floats(graph: &Graph, node: &Node) -> bool {
    let name = node.op.def().name;
    let f32s = |vs: &[ValueId]| vs.iter().any(|v| graph.value(*v).ty.dtype == DType::F32);
    node.op.codes().is_none() && name != "Dequantize" && f32s(&node.outputs)
}

fn is_softmax(node: &Node) -> bool {
    node.op.integer_of().is_some_and(|(op, _)| matches!(op.def().name, "Softmax" | "LogSoftmax"))
}

/// The segment that ends with a value.
pub(super) fn segment(graph: &Graph, v: ValueId, given: &HashSet<ValueId>) -> Segment {
    let producers: HashMap<ValueId, usize> = graph.producers();
    let mut nodes: HashSet<usize> = HashSet::new();
    let mut missing = Vec::new();
    let mut open = vec![v];
    while let Some(at) = open.pop() {
        if at != v && given.contains(&at) {
            continue;
        }
        match producers.get(&at) {
            Some(i) if nodes.insert(*i) => open.extend(&graph.nodes()[*i].inputs),
            Some(_) => {}
            None if graph.inputs.contains(&at) && !missing.contains(&at) => missing.push(at),
            None => {}
        }
    }
    let mut order: Vec<usize> = nodes.into_iter().collect();
    order.sort_unstable();
    let node = |i: &usize| &graph.nodes()[*i];
    let ops: Vec<usize> = order.iter().copied().filter(|i| computes(node(i))).collect();
    let last = order.last().map(node);
    let real = last.is_some_and(|n| n.op.codes() == Some(CodeOutput::Real));
    let f32s = graph.value(v).ty.dtype == DType::F32;
    // What computes behind them makes more of a difference than one code.
    let loose = |i: &usize| is_softmax(node(i)) || floats(graph, node(i)) || from_floats(graph, node(i));
    let behind = order.iter().position(loose).is_some_and(|first| {
        let rest = &order[first + 1..];
        rest.iter().any(|i| computes(node(i)) || node(i).op.codes() == Some(CodeOutput::Real))
    });
    let slack = match () {
        () if behind => Slack::Open(BEHIND),
        () if f32s && !real => Slack::Floats,
        () if order.iter().any(|i| is_softmax(node(i))) => Slack::OneCode(SOFTMAX),
        () if order.iter().any(loose) => Slack::OneCode(ISLAND),
        () => Slack::None,
    };
    Segment { ops, slack, missing }
}

/// Whether a node makes codes of floats that are no input of the graph.
fn from_floats(graph: &Graph, node: &Node) -> bool {
    node.op.def().name == "Quantize" && !graph.inputs.contains(&node.inputs[0])
}

/// The graph with given values in place of what computes them, each as an input behind those of the graph, in order; its
/// outputs are the wanted values, by name.
pub(super) fn forced(graph: &Graph, given: &[ValueId], wanted: &[ValueId]) -> Result<Graph, Error> {
    let mut out = graph.clone();
    for v in given.iter().filter(|v| !graph.inputs.contains(v)) {
        let value = graph.value(*v).clone();
        let name = out.fresh_value(&format!("{}/given", value.name));
        let new = out.add_input(name, value.ty);
        for i in 0..out.nodes().len() {
            out.replace_input(i, *v, new);
        }
    }
    out.outputs = wanted.to_vec();
    Ok(out.tidied().map_err(ExecError::from)?)
}
