//! The CPU executor: nodes in order, each as its operator defines it.

use super::fuse::{Tail, tails};
use super::{ExecError, NanCount, Trace};
use crate::graph::{Graph, Scratch, ValueId};
use crate::tensor::{Dim, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one tensor on the CPU: what a storage binding has at most anywhere, too.
const TENSOR_BYTES: u64 = 2 << 30;

/// Elements that one task changes in their place.
const CHUNK: usize = 16 * 1024;

/// Runs a concrete graph (see [`Graph::at_batch`]) on the CPU.
#[derive(Debug)]
pub struct CpuExecutor {
    graph: Graph,
    /// What a run without taps does.
    schedule: Schedule,
    scratch: Scratch,
}

impl CpuExecutor {
    /// Prepares a graph whose types are all concrete.
    pub fn new(graph: Graph) -> Self {
        let schedule = schedule(&graph, graph.outputs.iter().copied());
        CpuExecutor { graph, schedule, scratch: Scratch::new() }
    }

    /// Runs once. Inputs in the graph's order; `taps` are values wanted beside the outputs.
    ///
    /// # Errors
    /// Inputs that do not fit, and what an operator finds in its data (an index outside its axis).
    pub fn run(&self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        // On a thread of the pool, which every operator would have to wake otherwise.
        rayon::scope(|_| {
            if taps.is_empty() {
                return self.walk(&self.schedule, inputs, taps, &mut |_, _| {});
            }
            let all = self.graph.outputs.iter().chain(taps).copied();
            self.walk(&schedule(&self.graph, all), inputs, taps, &mut |_, _| {})
        })
    }

    /// Runs once and shows each value, inputs first, as soon as it is there. Gives the bytes of tensors that are alive at
    /// once, constants apart.
    ///
    /// # Errors
    /// As [`CpuExecutor::run`].
    pub(super) fn watch(
        &self,
        inputs: &[Tensor],
        show: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<u64, ExecError> {
        let schedule =
            schedule(&self.graph, self.graph.nodes().iter().flat_map(|n| n.outputs.iter().copied()));
        self.walk(&schedule, inputs, &[], show)?;
        Ok(peak(&self.graph, &schedule))
    }

    fn walk(
        &self,
        schedule: &Schedule,
        inputs: &[Tensor],
        taps: &[ValueId],
        show: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<Trace, ExecError> {
        super::check_inputs(&self.graph, inputs)?;
        let mut live: HashMap<ValueId, Tensor> = HashMap::new();
        for (id, t) in self.graph.inputs.iter().zip(inputs) {
            show(*id, t);
            live.insert(*id, t.clone());
        }
        let wanted = |v: &ValueId| taps.contains(v) || self.graph.outputs.contains(v);
        let get = |live: &HashMap<ValueId, Tensor>, v: &ValueId| match &self.graph.value(*v).constant {
            Some(t) => t.clone(),
            None => live[v].clone(),
        };
        let mut nans: Vec<(usize, u64)> = Vec::new();
        for step in schedule {
            let node = &self.graph.nodes()[step.node];
            let args: Vec<Tensor> = node.inputs.iter().map(|v| get(&live, v)).collect();
            let (mut outputs, given) = super::eval(node, &self.scratch, &args)?;
            nans.push((step.node, given));
            drop(args);
            if let ([y], false) = (outputs.as_mut_slice(), step.tails.is_empty()) {
                nans.extend(apply(&step.tails, y));
            }
            let values = step.outputs(&self.graph);
            values.iter().zip(&outputs).for_each(|(v, t)| show(*v, t));
            live.extend(values.iter().copied().zip(outputs));
            for v in step.dead.iter().filter(|v| !wanted(v)) {
                if let Some(t) = live.remove(v) {
                    self.scratch.give_tensor(t);
                }
            }
        }
        let all = self.graph.outputs.iter().chain(taps);
        let values = all.map(|v| (*v, get(&live, v))).collect();
        Ok(Trace { values, nans: NanCount::all(&self.graph, nans), ..Trace::default() })
    }
}

/// Changes a tensor in its place. How many NaN each of the nodes was given if it quantizes.
fn apply(tails: &[Tail], y: &mut Tensor) -> Vec<(usize, u64)> {
    let nans: Vec<AtomicU64> = tails.iter().map(|_| AtomicU64::new(0)).collect();
    y.f32s_mut().par_chunks_mut(CHUNK).for_each(|y| {
        for ((_, epilogue), nans) in tails.iter().zip(&nans) {
            nans.fetch_add(epilogue.apply(y), Ordering::Relaxed);
        }
    });
    tails.iter().map(|(tail, _)| *tail).zip(nans.into_iter().map(AtomicU64::into_inner)).collect()
}

/// A node with those that change its result in its place.
#[derive(Debug)]
struct Step {
    /// By index.
    node: usize,
    tails: Vec<Tail>,
    /// Values that nobody needs after it.
    dead: Vec<ValueId>,
}

impl Step {
    fn outputs<'a>(&self, graph: &'a Graph) -> &'a [ValueId] {
        let last = self.tails.last().map_or(self.node, |(tail, _)| *tail);
        &graph.nodes()[last].outputs
    }
}

/// In order.
type Schedule = Vec<Step>;

/// The nodes on which these values depend.
fn schedule(graph: &Graph, wanted: impl IntoIterator<Item = ValueId>) -> Schedule {
    let wanted: BTreeSet<ValueId> = wanted.into_iter().collect();
    let needed = graph.needed_nodes(wanted.iter().copied());
    let mut tails = tails(graph, |i| needed.contains(&i), &wanted);
    let mut absorbed: HashSet<usize> = HashSet::new();
    let mut out = Schedule::new();
    for node in (0..graph.nodes().len()).filter(|i| needed.contains(i)) {
        if !absorbed.contains(&node) {
            let tails = std::mem::take(&mut tails[node]);
            absorbed.extend(tails.iter().map(|(tail, _)| *tail));
            out.push(Step { node, tails, dead: Vec::new() });
        }
    }
    let mut last_use: HashMap<ValueId, usize> = HashMap::new();
    for (at, step) in out.iter().enumerate() {
        let inputs = &graph.nodes()[step.node].inputs;
        last_use.extend(inputs.iter().chain(step.outputs(graph)).map(|v| (*v, at)));
    }
    last_use.into_iter().for_each(|(v, at)| out[at].dead.push(v));
    out
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
    peak(graph, &schedule(graph, graph.outputs.iter().copied()))
}

fn peak(graph: &Graph, schedule: &Schedule) -> u64 {
    let sum = |all: &[ValueId], from: u64| all.iter().fold(from, |n, v| n.saturating_add(bytes(graph, *v)));
    let mut alive = sum(&graph.inputs, 0);
    let mut peak = alive;
    for step in schedule {
        alive = sum(step.outputs(graph), alive);
        peak = peak.max(alive);
        let dead = step.dead.iter().filter(|v| !graph.outputs.contains(v));
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
