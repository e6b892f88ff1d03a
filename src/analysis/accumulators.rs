//! What sums of products come to on data, beside the bound that none exceeds.

use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{CodeOutput, CodeParams, Graph, QuantRule, ValueId};
use crate::ops::integer;
use crate::passes::PassError;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Runs a graph on codes for the sums of its products, biases included.
#[derive(Debug)]
pub struct Accumulators {
    engine: Engine,
    sums: Vec<ValueId>,
    /// Names of the products, and the largest magnitude of a sum of each so far.
    found: Vec<(String, u64)>,
}

impl Accumulators {
    /// A graph on codes beside whose products their sums come, in 32 bits: sums beyond count as the largest of these.
    ///
    /// # Errors
    /// A graph that breaks a rule with these added.
    pub fn new(mut graph: Graph, device: &Device) -> Result<Accumulators, Error> {
        let fail = |name: &str, error: PassError| Error::Pass { path: name.into(), source: Box::new(error) };
        let (mut found, mut names) = (Vec::new(), Vec::new());
        for node in graph.nodes().to_vec() {
            let Some((op, params)) = node.op.integer_of() else { continue };
            if !matches!(op.quant_rule(), QuantRule::Gemm { .. }) {
                continue;
            }
            let count = node.inputs.len() - usize::from(params.addend.is_some());
            let params = CodeParams { output: CodeOutput::Sums, addend: None, ..params.clone() };
            let output = graph.fresh_value(&format!("{}/sums", node.name));
            let twin = graph.fresh_node(&format!("{}/sums", node.name));
            let op = integer(Arc::clone(op), params);
            let made = graph.add_node(twin, None, op, &node.inputs[..count], std::slice::from_ref(&output));
            made.map_err(|error| fail(&graph.name, PassError::Op { node: node.label(), error }))?;
            found.push((node.name.clone(), 0));
            names.push(output);
        }
        graph.outputs = names.iter().filter_map(|n| graph.find_value(n)).collect();
        let name = graph.name.clone();
        let graph = graph.tidied().map_err(|e| fail(&name, e.into()))?;
        let sums = graph.outputs.clone();
        Ok(Accumulators { engine: Engine::new(graph, device), sums, found })
    }

    /// Frames that it can run at once.
    ///
    /// # Errors
    /// A graph of which not even one frame fits the device.
    pub fn batch(&mut self) -> Result<usize, Error> {
        Ok(self.engine.batch(&[])?)
    }

    /// Runs some frames.
    ///
    /// # Errors
    /// A run that fails.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<(), Error> {
        let trace = self.engine.run(inputs, &[])?;
        for (v, (_, largest)) in self.sums.iter().zip(&mut self.found) {
            let most = trace.values[v].codes().into_iter().flatten().map(i32::unsigned_abs).max();
            *largest = (*largest).max(most.unwrap_or(0).into());
        }
        Ok(())
    }

    /// Names of the products, and the largest magnitude of a sum of each.
    pub fn finish(self) -> Vec<(String, u64)> {
        self.found
    }
}
