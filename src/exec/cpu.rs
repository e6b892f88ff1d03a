//! The CPU executor: nodes in order, each as its operator defines it.

use super::fuse::{Tail, tails};
use super::{ExecError, Trace};
use crate::graph::{Graph, Scratch, ValueId};
use crate::tensor::{Dim, Tensor};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Bytes of one tensor on the CPU: what a storage binding has at most anywhere, too.
const TENSOR_BYTES: u64 = 2 << 30;

/// Elements that one task changes in their place.
const CHUNK: usize = 16 * 1024;

/// What is called with each value.
type Show<'a> = &'a mut dyn FnMut(ValueId, &Tensor);

/// Runs a concrete graph (see [`Graph::at_batch`]) on the CPU.
#[derive(Debug)]
pub struct CpuExecutor {
    graph: Graph,
    /// For each node, the values that nobody needs after it.
    dead_after: Vec<Vec<ValueId>>,
    /// For each node, those that may be applied to its result in its place.
    tails: Vec<Vec<Tail>>,
    scratch: Scratch,
}

impl CpuExecutor {
    /// Prepares a graph whose types are all concrete.
    pub fn new(graph: Graph) -> Self {
        let dead_after = dead_after(&graph);
        let tails = tails(&graph, |_| true, &graph.outputs.iter().copied().collect());
        CpuExecutor { graph, dead_after, tails, scratch: Scratch::new() }
    }

    /// Runs once. Inputs in the graph's order; `taps` are values wanted beside the outputs.
    ///
    /// # Errors
    /// Inputs that do not fit, and what an operator finds in its data (an index outside its axis).
    pub fn run(&self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        self.walk(inputs, taps, None)
    }

    /// Runs once and shows each value, inputs first, as soon as it is there.
    ///
    /// # Errors
    /// As [`CpuExecutor::run`].
    pub(super) fn watch(&self, inputs: &[Tensor], show: Show<'_>) -> Result<(), ExecError> {
        self.walk(inputs, &[], Some(show)).map(drop)
    }

    fn walk(
        &self,
        inputs: &[Tensor],
        taps: &[ValueId],
        mut show: Option<Show<'_>>,
    ) -> Result<Trace, ExecError> {
        super::check_inputs(&self.graph, inputs)?;
        let mut live: HashMap<ValueId, Tensor> = HashMap::new();
        let mut done: HashSet<usize> = HashSet::new();
        for (id, t) in self.graph.inputs.iter().zip(inputs) {
            if let Some(show) = &mut show {
                show(*id, t);
            }
            live.insert(*id, t.clone());
        }
        let wanted = |v: &ValueId| taps.contains(v) || self.graph.outputs.contains(v);
        let get = |live: &HashMap<ValueId, Tensor>, v: &ValueId| match &self.graph.value(*v).constant {
            Some(t) => t.clone(),
            None => live[v].clone(),
        };
        for (i, (node, dead)) in self.graph.nodes().iter().zip(&self.dead_after).enumerate() {
            if !done.contains(&i) {
                let args: Vec<Tensor> = node.inputs.iter().map(|v| get(&live, v)).collect();
                let mut outputs = super::eval(node, &self.scratch, &args)?;
                drop(args);
                let mut last = node;
                match &mut show {
                    Some(show) => node.outputs.iter().zip(&outputs).for_each(|(v, t)| show(*v, t)),
                    None => {
                        for (tail, _) in self.finish(i, taps, &mut outputs) {
                            done.insert(*tail);
                            last = &self.graph.nodes()[*tail];
                        }
                    }
                }
                live.extend(last.outputs.iter().copied().zip(outputs));
            }
            for v in dead.iter().filter(|v| !wanted(v)) {
                if let Some(t) = live.remove(v) {
                    self.scratch.give_tensor(t);
                }
            }
        }
        let all = self.graph.outputs.iter().chain(taps);
        let values = all.map(|v| (*v, get(&live, v))).collect();
        Ok(Trace { values, ..Trace::default() })
    }

    /// Applies the nodes that follow node `i` to its result in its place, up to what is tapped and unless another tensor
    /// has the same elements; those nodes.
    fn finish(&self, i: usize, taps: &[ValueId], outputs: &mut [Tensor]) -> &[Tail] {
        let tails = &self.tails[i];
        let before = std::iter::once(i).chain(tails.iter().map(|(tail, _)| *tail)).take(tails.len());
        let tapped = |node: &usize| self.graph.nodes()[*node].outputs.iter().any(|v| taps.contains(v));
        let tails = &tails[..before.take_while(|node| !tapped(node)).count()];
        if tails.is_empty() {
            return &[];
        }
        let Some(x) = outputs.first_mut().and_then(Tensor::f32s_mut) else { return &[] };
        x.par_chunks_mut(CHUNK).for_each(|x| tails.iter().for_each(|(_, epilogue)| epilogue.apply(x)));
        tails
    }
}

/// For each node, the values that nobody needs after it.
fn dead_after(graph: &Graph) -> Vec<Vec<ValueId>> {
    let mut last_use: HashMap<ValueId, usize> = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        last_use.extend(node.inputs.iter().chain(&node.outputs).map(|v| (*v, i)));
    }
    let mut dead = vec![Vec::new(); graph.nodes().len()];
    last_use.into_iter().for_each(|(v, i)| dead[i].push(v));
    dead
}

/// Bytes of a runtime tensor; constants are counted as none.
fn bytes(graph: &Graph, v: ValueId) -> u64 {
    let v = graph.value(v);
    if v.constant.is_some() {
        return 0;
    }
    let elements = v.ty.elements().and_then(Dim::fixed).unwrap_or(usize::MAX);
    (elements as u64).saturating_mul(v.ty.dtype.size_bytes() as u64)
}

/// Bytes that are alive at once, constants apart, when the CPU runs a concrete graph.
pub(super) fn peak_bytes(graph: &Graph) -> u64 {
    let sum = |all: &[ValueId], from: u64| all.iter().fold(from, |n, v| n.saturating_add(bytes(graph, *v)));
    let mut alive = sum(&graph.inputs, 0);
    let mut peak = alive;
    for (node, dead) in graph.nodes().iter().zip(dead_after(graph)) {
        alive = sum(&node.outputs, alive);
        peak = peak.max(alive);
        let dead = dead.iter().filter(|v| !graph.outputs.contains(v));
        alive = dead.fold(alive, |n, v| n.saturating_sub(bytes(graph, *v)));
    }
    peak
}

/// Refuses a tensor that no device takes, before any memory is asked for.
pub(super) fn fits_the_cpu(graph: &Graph) -> Result<(), ExecError> {
    let mut all = (0..).map(ValueId).zip(graph.values());
    match all.find(|(v, _)| bytes(graph, *v) > TENSOR_BYTES) {
        Some((v, value)) => Err(ExecError::TooLarge {
            what: format!("tensor {:?} of type {}", value.name, value.ty),
            amount: bytes(graph, v),
            unit: "bytes",
            limit: TENSOR_BYTES,
        }),
        None => Ok(()),
    }
}
