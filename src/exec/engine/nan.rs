//! NaN that quantizers are given: among constants, and in which frame.

use super::Engine;
use crate::exec::{ExecError, NanCount, batch_of, eval};
use crate::graph::{Graph, Scratch};
use crate::tensor::Tensor;

impl Engine {
    /// For each of these quantizers, the first frame in which it is given a NaN, found by running frames one by one.
    /// `None` where no frame alone gives it one, or frames cannot be computed apart.
    ///
    /// # Errors
    /// As for [`Engine::run`].
    pub fn first_nan(
        &mut self,
        inputs: &[Tensor],
        quantizers: &[String],
    ) -> Result<Vec<Option<usize>>, ExecError> {
        let mut first = vec![None; quantizers.len()];
        let frames = batch_of(&self.graph, inputs)?;
        if frames > 1 && !(self.separable && self.graph.is_batched()) {
            return Ok(first);
        }
        for frame in 0..frames {
            if first.iter().all(Option::is_some) {
                break;
            }
            let part = self.slice(inputs, frame, 1);
            let nans = self.run_at_once(1, &part, &[])?.nans;
            for (first, quantizer) in first.iter_mut().zip(quantizers) {
                if first.is_none() && nans.iter().any(|n| n.quantizer == *quantizer) {
                    *first = Some(frame);
                }
            }
        }
        Ok(first)
    }
}

/// Quantizes weights and other constants once instead of in every run. The NaN among them.
pub(super) fn quantize_constants(graph: &mut Graph) -> Vec<NanCount> {
    let (scratch, mut nans) = (Scratch::new(), Vec::new());
    let mut i = 0;
    while i < graph.nodes().len() {
        let node = &graph.nodes()[i];
        let input = node.inputs.first().and_then(|v| graph.value(*v).constant.clone());
        let quantized = input.filter(|_| node.quantizer().is_some());
        match quantized.map(|x| eval(node, &scratch, &[x])) {
            Some(Ok((outputs, count))) => {
                nans.extend(NanCount::all(graph, [(i, count)]));
                graph.fold_node(i, outputs);
            }
            _ => i += 1,
        }
    }
    nans
}
