//! What a device does to run a graph at one batch, as plain data: layouts, dispatches, copies, memory.
//!
//! A plan is a list of segments. A segment computes some nodes on the host, uploads tensors, runs dispatches, and reads
//! tensors back; all that a run is asked for ends on the host. There is more than one segment only where an operator
//! without a kernel needs what the device computed.

mod build;
#[cfg(test)]
mod tests;

use super::fuse::tails;
use super::{ExecError, Watch};
use crate::gpu::Limits;
use crate::gpu::kernels::Access;
use crate::graph::lower::{Kernel, Layout, View};
use crate::graph::{Graph, ValueId};
use build::Builder;
use std::collections::BTreeSet;

/// Which memory a region lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// Arena of this index.
    Arena(usize),
    /// Constant of this index.
    Constant(usize),
    /// Table of this index.
    Table(usize),
    /// Histograms of watched values, which outlive the plan.
    Histograms,
    /// Results of watched values.
    Results,
}

/// Bytes in some memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The memory.
    pub memory: Memory,
    /// Where it begins.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// A dispatch with its memory.
#[derive(Clone, Debug)]
pub struct Step {
    /// The node that it computes and those that are its epilogue, or `copy of` a tensor; for messages.
    pub label: String,
    /// What runs.
    pub kernel: &'static Kernel,
    /// Values of `override` constants.
    pub overrides: Vec<(&'static str, u32)>,
    /// Offset of its `Params` in [`Plan::params`].
    pub params_offset: u64,
    /// Storage bindings from 1 on.
    pub bind: Vec<Span>,
    /// How the kernel uses each of them.
    pub access: Vec<Access>,
    /// Workgroups.
    pub grid: [u32; 3],
}

/// A tensor that goes from the host to the device or back.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Its identity.
    pub value: ValueId,
    /// Its type, shape and layout on the device.
    pub view: View,
    /// Where it lies there.
    pub at: Span,
    /// Where it lies in the upload or readback buffer.
    pub offset: u64,
}

/// A constant in the layout that kernels want.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    /// Its identity in the graph.
    pub value: ValueId,
    /// Its shape, perhaps with 1s in front.
    pub shape: Vec<usize>,
    /// Its layout.
    pub layout: Layout,
}

/// What happens between two moments at which the host waits.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// Nodes that the host computes first, by index.
    pub host: Vec<usize>,
    /// Then these go to the device.
    pub uploads: Vec<Transfer>,
    /// Then these run.
    pub steps: Vec<Step>,
    /// Then these come back.
    pub reads: Vec<Transfer>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In order.
    pub segments: Vec<Segment>,
    /// `Params` of all dispatches.
    pub params: Vec<u8>,
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
    /// Arena, offset and bytes of each temporary tensor, in the order in which steps first touch them.
    pub tensors: Vec<(usize, u64, u64)>,
    /// Constants that kernels read, with their bytes.
    pub constants: Vec<(Constant, u64)>,
    /// Words that operators computed for their kernels.
    pub tables: Vec<Vec<u32>>,
    /// Bytes of the upload buffer.
    pub upload_bytes: u64,
    /// Bytes of the readback buffer.
    pub readback_bytes: u64,
    /// Nodes that the host computes, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
    /// Values that are observed, with where their results lie; these are read back after the last segment.
    pub watched: Vec<(Watch, Span)>,
    /// Bytes of all results.
    pub result_bytes: u64,
    /// Nodes by index that are quantizers and count NaN, each in the counter of its place.
    pub quantizers: Vec<usize>,
    /// Where the counters lie in the readback buffer, if they are read: after the last segment.
    pub counters_at: Option<u64>,
}

impl Plan {
    /// Plans a concrete graph for a device with these limits; `taps` are wanted beside the outputs.
    ///
    /// # Errors
    /// A tensor or dispatch that is beyond the device, and a lowering that does not fit its kernel.
    pub fn new(graph: &Graph, taps: &[ValueId], limits: &Limits) -> Result<Plan, ExecError> {
        let wanted: BTreeSet<ValueId> = graph.outputs.iter().chain(taps).copied().collect();
        let needed = graph.needed_nodes(wanted.iter().copied());
        let mut b = Builder::new(graph, limits, tails(graph, |i| needed.contains(&i), &wanted));
        for (i, node) in graph.nodes().iter().enumerate() {
            if needed.contains(&i) {
                b.node(i, node)?;
            }
        }
        for v in wanted {
            b.fetch(v)?;
        }
        b.finish()
    }

    /// Plans a concrete graph in order to observe these values, and nothing else.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn observing(graph: &Graph, watched: &[Watch], limits: &Limits) -> Result<Plan, ExecError> {
        let wanted: BTreeSet<ValueId> = watched.iter().map(|w| w.value).collect();
        let needed = graph.needed_nodes(wanted.iter().copied());
        let mut b = Builder::new(graph, limits, tails(graph, |i| needed.contains(&i), &wanted));
        b.expect(watched)?;
        b.watch(&graph.inputs)?;
        for (i, node) in graph.nodes().iter().enumerate() {
            if needed.contains(&i) {
                b.node(i, node)?;
                b.watch(&node.outputs)?;
            }
        }
        b.finish()
    }

    /// Dispatches of a run.
    pub fn dispatches(&self) -> u64 {
        self.segments.iter().map(|s| s.steps.len() as u64).sum()
    }

    /// Bytes on the device, constants included.
    pub fn device_bytes(&self) -> u64 {
        let constants: u64 = self.constants.iter().map(|(_, b)| b).sum();
        let tables: u64 = self.tables.iter().map(|t| t.len() as u64 * 4).sum();
        self.arenas.iter().sum::<u64>() + constants + tables + self.params.len() as u64
    }

    /// Bytes that grow with the batch: arenas, and the buffers between host and device.
    pub fn batch_bytes(&self) -> u64 {
        self.arenas.iter().sum::<u64>() + self.upload_bytes + self.readback_bytes + self.result_bytes
    }
}

/// Bytes that the histograms of so many watched values take.
pub(super) fn watched_bytes(values: usize, limits: &Limits) -> u64 {
    build::histogram(values, limits).offset
}
