//! The bias in units of the sums, and what sums may come to.

use super::group::Chain;
use super::{AccumulatorBound, Conversion, PassError, refused};
use crate::graph::{CodeParams, Node, OpError, ValueId};
use crate::ops::{Bias, bound, sharing_groups};
use crate::passes::fuse::channel_axis;
use crate::quant::QParams;
use crate::tensor::Tensor;

impl Conversion<'_> {
    /// Adds the bias to a product's inputs, and finds the bound of its sums.
    pub(super) fn bias(
        &mut self,
        node: &Node,
        chain: &Chain,
        params: &mut CodeParams,
        inputs: &mut Vec<ValueId>,
    ) -> Result<(), PassError> {
        let bias = chain.bias.or_else(|| node.inputs.get(2).copied());
        let (x, w) = (params.inputs[0].clone(), params.inputs[1].clone());
        let (Some(x), Some(w)) = (x, w) else { return Ok(()) };
        let mut codes = None;
        let mut saturated = 0;
        if let Some(b) = bias {
            let tensor = self.from.value(b).constant.clone();
            let tensor = tensor.and_then(|t| t.as_f32().map(<[f32]>::to_vec));
            let numbers = tensor.ok_or_else(|| refused(node, OpError::MissingInput { input: 2 }))?;
            let channels = self.channels(node, &w);
            let (in_sums, cut) = in_sums(&numbers, &x, &w, channels);
            saturated = cut;
            let name = self.to.fresh_value(&format!("{}/i32", self.from.value(b).name));
            let made = self.to.add_constant(name, Tensor::from_i32([in_sums.len()], in_sums.clone()));
            inputs.push(made);
            params.inputs.push(None);
            codes = Some(in_sums);
        }
        let weights = &self.from.value(node.inputs[1]).ty;
        let of_weights = self.weights(node).and_then(Tensor::codes);
        let bias = codes.as_deref().map_or(Bias::None, Bias::Known);
        params.bound = bound(node.op.as_ref(), params, weights, of_weights.as_deref(), bias)
            .map_err(|error| refused(node, error))?;
        let bits = if params.bound <= i32::MAX.unsigned_abs().into() { 32 } else { 64 };
        let used = 64 - params.bound.leading_zeros();
        self.accumulators.push(AccumulatorBound {
            node: node.name.clone(),
            bound: params.bound,
            bits,
            headroom_bits: (bits - 1).saturating_sub(used),
            saturated_bias: saturated,
        });
        Ok(())
    }

    /// The codes of weights that are constant.
    fn weights(&self, node: &Node) -> Option<&Tensor> {
        self.codes.get(&node.inputs[1]).and_then(|(v, _)| self.to.value(*v).constant.as_ref())
    }

    /// Of the output.
    fn channels(&self, node: &Node, w: &QParams) -> usize {
        let ty = &self.from.value(node.inputs[1]).ty;
        let axis = channel_axis(node, ty.rank()).and_then(|a| ty.shape[a].fixed());
        axis.unwrap_or(w.scales().len()) * sharing_groups(node.op.as_ref())
    }
}

/// A bias in units of the sums, halves to even, one for each channel where scales differ, and how many did not fit.
fn in_sums(bias: &[f32], x: &QParams, w: &QParams, channels: usize) -> (Vec<i32>, usize) {
    let (s_x, n) = (f64::from(x.scales()[0]), w.scales().len());
    let count = if n > 1 { channels.max(bias.len()) } else { bias.len() };
    let mut saturated = 0;
    let one = |c: usize| {
        let b = f64::from(bias[if bias.len() == 1 { 0 } else { c }]);
        let unit = s_x * f64::from(w.scales()[c % n]);
        let exact = (b / unit).round_ties_even();
        let kept = exact.clamp(f64::from(i32::MIN), f64::from(i32::MAX));
        saturated += usize::from(kept.to_bits() != exact.to_bits() && !exact.is_nan());
        #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
        let code = kept as i32;
        code
    };
    let codes = (0..count).map(one).collect();
    (codes, saturated)
}
