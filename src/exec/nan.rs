//! NaN that quantizers were given. They become zero there, so that nobody behind a quantizer can see them.

use crate::graph::{Graph, Node};

/// NaN that a quantizer was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NanCount {
    /// Name of the quantizer's node.
    pub quantizer: String,
    /// What it quantizes: the node before it, an input or a constant.
    pub source: String,
    /// Whether that is a constant, whose NaN are counted once and not in every run.
    pub constant: bool,
    /// How many.
    pub count: u64,
}

impl NanCount {
    /// Of a quantizer of a graph.
    pub(super) fn new(graph: &Graph, quantizer: &Node, count: u64) -> NanCount {
        let v = quantizer.inputs[0];
        let (name, constant) = (&graph.value(v).name, graph.value(v).constant.is_some());
        let source = match graph.nodes().iter().find(|n| n.outputs.contains(&v)) {
            Some(node) => node.label(),
            None if constant => format!("constant {name:?}"),
            None => format!("input {name:?}"),
        };
        NanCount { quantizer: quantizer.name.clone(), source, constant, count }
    }

    /// Those of quantizers that were given any, in the order of the graph, from quantizers by index.
    pub(super) fn all(graph: &Graph, counts: impl IntoIterator<Item = (usize, u64)>) -> Vec<NanCount> {
        let mut counts: Vec<(usize, u64)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        counts.sort_unstable();
        counts.into_iter().map(|(i, count)| NanCount::new(graph, &graph.nodes()[i], count)).collect()
    }

    /// Those of consecutive runs as of one.
    pub(super) fn join(runs: impl IntoIterator<Item = Vec<NanCount>>) -> Vec<NanCount> {
        let mut out: Vec<NanCount> = Vec::new();
        for one in runs.into_iter().flatten() {
            match out.iter_mut().find(|n| n.quantizer == one.quantizer) {
                Some(known) => known.count += one.count,
                None => out.push(one),
            }
        }
        out
    }
}
