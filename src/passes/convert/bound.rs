//! The bias in units of the sums, and what sums may come to.

use super::group::Chain;
use super::{AccumulatorBound, Conversion, PassError, refused};
use crate::graph::{CodeParams, Node, Op, OpError, ValueId};
use crate::passes::fuse::{channel_axis, channel_axis_of, sharing_groups};
use crate::quant::{Accumulator, QParams, Step};
use crate::tensor::{Tensor, TensorType};

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
        let taken_away =
            taken_away(params.arithmetic.accumulator, node.op.as_ref(), weights, self.weights(node));
        params.bound = self.bound(node, &x, &w, codes.as_deref()).saturating_add(taken_away);
        let bits = if params.bound <= i32::MAX.unsigned_abs().into() { 32 } else { 64 };
        if params.bound >= 1 << 47 {
            let message = format!(
                "sums may come to {}, which is beyond 2^47: fewer bits of the weights or activations keep them below",
                params.bound
            );
            return Err(refused(node, OpError::Arithmetic { message }));
        }
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

    /// The largest sum of |w| times the largest |x|, and the bias.
    fn bound(&self, node: &Node, x: &QParams, w: &QParams, bias: Option<&[i32]>) -> u64 {
        let farthest = |s: &Step| {
            let (low, high) = s.codes();
            s.steps(low).unsigned_abs().max(s.steps(high).unsigned_abs())
        };
        let most_x = farthest(&x.step(0));
        let ty = &self.from.value(node.inputs[1]).ty;
        let channels = self.channels(node, w);
        let bias = |c: usize| {
            bias.map_or(0, |b| {
                u64::from(b.get(if b.len() == 1 { 0 } else { c }).map_or(0, |v| v.unsigned_abs()))
            })
        };
        let most_bias = (0..channels).map(bias).max().unwrap_or(0);
        let Some(codes) = self.weights(node).and_then(Tensor::codes) else {
            // Both are computed.
            let k = products(node.op.as_ref(), ty);
            return k.saturating_mul(most_x).saturating_mul(farthest(&w.step(0))).saturating_add(most_bias);
        };
        let shape = ty.dims().unwrap_or_default();
        let axis = channel_axis(node, shape.len());
        let inner: usize = axis.map_or(1, |a| shape[a + 1..].iter().product());
        // Groups that share channels have their own of the indices before these.
        let groups = sharing_groups(node.op.as_ref());
        let (shared, of_group) = ((channels / groups).max(1), (codes.len() / groups).max(1));
        let mut sums = vec![0u64; channels.max(1)];
        for (i, code) in codes.iter().enumerate() {
            let c = if axis.is_some() { i / inner.max(1) % shared } else { 0 };
            let zero = w.zero_points()[c % w.zero_points().len()];
            sums[i / of_group * shared + c] += u64::from(code.abs_diff(zero));
        }
        let each = sums.iter().enumerate().map(|(c, s)| s.saturating_mul(most_x).saturating_add(bias(c)));
        each.max().unwrap_or(0)
    }
}

/// How many products a sum has: as many as the axes of the weights that are summed over have elements.
fn products(op: &dyn Op, weights: &TensorType) -> u64 {
    let rank = weights.rank();
    let channel = channel_axis_of(op, rank);
    let summed = |a: &usize| match op.def().name {
        "MatMul" => *a == rank.max(2) - 2,
        _ => Some(*a) != channel,
    };
    let size = |a: usize| weights.shape[a].fixed().unwrap_or(1) as u64;
    (0..rank).filter(summed).fold(1u64, |k, a| k.saturating_mul(size(a)))
}

/// How far an accumulator takes a sum from the exact one, at most: of all channels, from the codes of constant weights.
pub(super) fn taken_away(
    accumulator: Accumulator,
    op: &dyn Op,
    ty: &TensorType,
    weights: Option<&Tensor>,
) -> u64 {
    let Some(codes) = weights.and_then(Tensor::codes) else {
        return products(op, ty).saturating_mul(accumulator.takes_away(i8::MIN.into()));
    };
    let shape = ty.dims().unwrap_or_default();
    let axis = channel_axis_of(op, shape.len());
    let (channels, inner) = axis.map_or((1, 1), |a| (shape[a], shape[a + 1..].iter().product()));
    let mut sums = vec![0u64; channels.max(1)];
    for (i, code) in codes.iter().enumerate() {
        sums[i / inner.max(1) % channels.max(1)] += accumulator.takes_away(*code);
    }
    sums.into_iter().max().unwrap_or(0)
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
