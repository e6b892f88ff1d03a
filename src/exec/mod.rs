//! Running graphs: one [`Engine`] over the CPU executor or a GPU.

mod cpu;
pub mod relayout;

pub use cpu::CpuExecutor;

use crate::graph::lower::Kernel;
use crate::graph::{GraphError, OpError, ValueId};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Kernels of the executor itself.
pub static KERNELS: &[&Kernel] = &[&relayout::COPY];

/// What a run produced: graph outputs and tapped values, in logical layout.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Tensors by value.
    pub values: BTreeMap<ValueId, Tensor>,
    /// Device dispatches made; 0 on the CPU.
    pub dispatches: u64,
    /// Labels of the nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
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
    /// A wrong number of inputs.
    #[error("the graph has {expected} inputs, got {got}")]
    InputCount {
        /// How many the graph has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
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
