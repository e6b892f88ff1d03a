//! Running graphs: one [`Engine`] over the CPU executor or a GPU.

mod compile;
mod cpu;
mod engine;
pub(crate) mod frames;
mod fuse;
mod gpu;
mod memory;
mod nan;
mod observe;
pub mod parity;
pub mod plan;
mod relayout;

pub use compile::compile;
pub use cpu::CpuExecutor;
pub use engine::Engine;
pub use gpu::GpuExecutor;
pub use nan::NanCount;
pub use observe::{Frames, Observed, Watch};
pub use plan::Plan;

use crate::gpu::GpuError;
use crate::graph::lower::Kernel;
use crate::graph::{GraphError, OpError, ValueId};
use crate::ops::fake_quantize;
use crate::quant::Quantizer;
use crate::tensor::{Dim, Tensor};
use std::collections::BTreeMap;

/// Kernels of the executor itself.
pub static KERNELS: &[&Kernel] = &[&relayout::COPY, &relayout::PACK, &observe::RUNS, &observe::FRAMES];

/// What a run produced: graph outputs and tapped values, in logical layout.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Tensors by value.
    pub values: BTreeMap<ValueId, Tensor>,
    /// Device dispatches made; 0 on the CPU.
    pub dispatches: u64,
    /// Labels of the nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
    /// Quantizers that were given NaN.
    pub nans: Vec<NanCount>,
}

/// What a run is for, beside the outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// These values are wanted, too.
    Taps(Vec<ValueId>),
    /// No values are wanted, only statistics of those that are watched.
    Watch,
}

/// A run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// An operator refused its inputs at run time.
    #[error("{node}: {error} (inputs {inputs})")]
    Op {
        /// The node.
        node: String,
        /// Types of its inputs.
        inputs: String,
        /// What it says.
        error: OpError,
    },
    /// A lowering that does not fit its kernel: a fault of the operator's definition.
    #[error("{node}: {message}")]
    Lowering {
        /// The node.
        node: String,
        /// What does not fit.
        message: String,
    },
    /// Larger than the device allows.
    #[error(
        "{what} takes {amount} {unit}, the device allows {limit}: smaller inputs or another device, such as the CPU, may do"
    )]
    TooLarge {
        /// A tensor, a buffer or the grid of a dispatch.
        what: String,
        /// How much it takes.
        amount: u64,
        /// Of what: bytes or workgroups.
        unit: &'static str,
        /// What the device allows.
        limit: u64,
    },
    /// The device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The graph does not hold at this batch.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An input that does not fit the graph.
    #[error("input {name:?} must be {expected}, is {got}")]
    Input {
        /// Its name.
        name: String,
        /// What the graph says.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A value whose numbers cannot be observed.
    #[error("tensor {name:?} cannot be observed: it is {what}, and only f32 that a run computes can be")]
    Unwatchable {
        /// Its name.
        name: String,
        /// What it is.
        what: String,
    },
    /// Statistics were asked for that nobody collects.
    #[error("no statistics are being collected: no tensors were named, or a run failed since")]
    NotWatching,
    /// A wrong number of inputs.
    #[error("the graph has {expected} inputs, got {got}")]
    InputCount {
        /// How many the graph has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
}

/// Computes a node on the CPU. Its outputs, and how many NaN it was given if it quantizes.
fn eval(
    node: &crate::graph::Node,
    scratch: &crate::graph::Scratch,
    args: &[Tensor],
) -> Result<(Vec<Tensor>, u64), ExecError> {
    if let (Some(params), [x]) = (node.quantizer().and_then(Quantizer::active), args) {
        let (y, nans) = fake_quantize(params, scratch, x);
        return Ok((vec![y], nans));
    }
    let outputs = node.op.eval(scratch, args).map_err(|error| {
        let inputs: Vec<String> = args.iter().map(|t| t.ty().to_string()).collect();
        ExecError::Op { node: node.label(), inputs: inputs.join(", "), error }
    });
    let given = if node.quantizes() { args[0].f32s().iter().filter(|x| x.is_nan()).count() } else { 0 };
    Ok((outputs?, given as u64))
}

/// The N at which these inputs have the graph's types; 1 for a graph without symbolic dimensions.
///
/// # Errors
/// Inputs that do not fit, or that disagree.
pub(crate) fn batch_of(graph: &crate::graph::Graph, inputs: &[Tensor]) -> Result<usize, ExecError> {
    if inputs.len() != graph.inputs.len() {
        return Err(ExecError::InputCount { expected: graph.inputs.len(), got: inputs.len() });
    }
    let mut batch: Option<(usize, &str)> = None;
    for (id, t) in graph.inputs.iter().zip(inputs) {
        let v = graph.value(*id);
        let wrong =
            |expected: String| ExecError::Input { name: v.name.clone(), expected, got: t.ty().to_string() };
        if t.dtype() != v.ty.dtype || t.rank() != v.ty.rank() {
            return Err(wrong(v.ty.to_string()));
        }
        for (have, want) in t.shape().iter().zip(&v.ty.shape) {
            match *want {
                Dim::Fixed(d) if d == *have => {}
                Dim::Batch(k) if k > 0 && have.is_multiple_of(k) => {
                    let n = have / k;
                    match batch {
                        Some((m, by)) if m != n => {
                            return Err(wrong(format!("{} with N = {m} as {by:?} has", v.ty)));
                        }
                        _ => batch = Some((n, &v.name)),
                    }
                }
                _ => return Err(wrong(v.ty.to_string())),
            }
        }
    }
    Ok(batch.map_or(1, |(n, _)| n))
}

/// Checks inputs against a concrete graph.
fn check_inputs(graph: &crate::graph::Graph, inputs: &[Tensor]) -> Result<(), ExecError> {
    if inputs.len() != graph.inputs.len() {
        return Err(ExecError::InputCount { expected: graph.inputs.len(), got: inputs.len() });
    }
    for (id, t) in graph.inputs.iter().zip(inputs) {
        let v = graph.value(*id);
        if t.ty() != v.ty {
            let (expected, got) = (v.ty.to_string(), t.ty().to_string());
            return Err(ExecError::Input { name: v.name.clone(), expected, got });
        }
    }
    Ok(())
}
