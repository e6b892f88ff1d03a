//! The CPU executor: nodes in order, each as its operator defines it.

use super::{ExecError, Trace};
use crate::graph::{Graph, Scratch, ValueId};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// Runs a concrete graph (see [`Graph::at_batch`]) on the CPU.
#[derive(Debug)]
pub struct CpuExecutor {
    graph: Graph,
    /// For each node, the values that nobody needs after it.
    dead_after: Vec<Vec<ValueId>>,
    scratch: Scratch,
}

impl CpuExecutor {
    /// Prepares a graph whose types are all concrete.
    pub fn new(graph: Graph) -> Self {
        let mut last_use: HashMap<ValueId, usize> = HashMap::new();
        for (i, node) in graph.nodes().iter().enumerate() {
            for v in node.inputs.iter().chain(&node.outputs) {
                last_use.insert(*v, i);
            }
        }
        let mut dead_after = vec![Vec::new(); graph.nodes().len()];
        for (v, i) in last_use {
            dead_after[i].push(v);
        }
        CpuExecutor { graph, dead_after, scratch: Scratch::new() }
    }

    /// Runs once. Inputs in the graph's order; `taps` are values wanted beside the outputs.
    ///
    /// # Errors
    /// Inputs that do not fit, and what an operator finds in its data (an index outside its axis).
    pub fn run(&self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        super::check_inputs(&self.graph, inputs)?;
        let mut live: HashMap<ValueId, Tensor> = HashMap::new();
        for (id, t) in self.graph.inputs.iter().zip(inputs) {
            live.insert(*id, t.clone());
        }
        let wanted = |v: &ValueId| taps.contains(v) || self.graph.outputs.contains(v);
        let get = |live: &HashMap<ValueId, Tensor>, v: &ValueId| match &self.graph.value(*v).constant {
            Some(t) => t.clone(),
            None => live[v].clone(),
        };
        for (node, dead) in self.graph.nodes().iter().zip(&self.dead_after) {
            let args: Vec<Tensor> = node.inputs.iter().map(|v| get(&live, v)).collect();
            let outputs = super::eval(node, &self.scratch, &args)?;
            drop(args);
            live.extend(node.outputs.iter().copied().zip(outputs));
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
}
