//! What sums of products may come to, by their weights and biases. Executors choose the width of their sums by it.

use crate::graph::{AttrValue, CodeOutput, CodeParams, Op, OpError, QuantRule, Value};
use crate::quant::QParams;
use crate::tensor::{Tensor, TensorType};

/// Sums that may come to as much are refused.
const LIMIT: u64 = 1 << 47;

/// A bias as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a> {
    /// There is none.
    None,
    /// In units of the sums: one, or one for each channel.
    Known(&'a [i32]),
    /// It is computed.
    Computed,
}

/// How many groups of output channels there are for each channel of the weights: a transposed convolution has those of one
/// group in its weights, which all groups share.
pub fn sharing_groups(op: &dyn Op) -> usize {
    let attrs = op.attrs();
    let group = attrs.0.iter().find(|(name, _)| name == "group" && op.def().name == "ConvTranspose");
    match group {
        Some((_, AttrValue::Int(groups))) => usize::try_from(*groups).unwrap_or(1).max(1),
        _ => 1,
    }
}

/// What no sum exceeds in magnitude: of |w| times the largest |x|, the bias, and what saturation may add to it. `codes` are
/// those of the weights where they are constant. 0 where there are no codes to multiply.
///
/// # Errors
/// Sums beyond what any accumulator holds.
pub fn bound(
    op: &dyn Op,
    params: &CodeParams,
    weights: &TensorType,
    codes: Option<&[i32]>,
    bias: Bias,
) -> Result<u64, OpError> {
    let [Some(x), Some(w), ..] = params.inputs.as_slice() else { return Ok(0) };
    let accumulator = params.arithmetic.accumulator;
    let bias = |c: usize| match bias {
        Bias::None => 0,
        Bias::Known(b) => b.get(if b.len() == 1 { 0 } else { c }).map_or(0, |v| v.unsigned_abs().into()),
        Bias::Computed => 1u64 << 31,
    };
    let axis = op.quant_rule().channel_axis(weights.rank());
    let groups = sharing_groups(op);
    let shared = axis.and_then(|a| weights.shape[a].fixed()).unwrap_or(w.scales().len()).max(1);
    let channels = groups * shared;
    let products = (farthest(x), (0..channels).map(bias).max().unwrap_or(0));
    let (sums, taken_away) = match codes {
        None => {
            let k = products_of(op, weights);
            let most = k.saturating_mul(products.0).saturating_mul(farthest(w)).saturating_add(products.1);
            (most, k.saturating_mul(accumulator.takes_away(i8::MIN.into())))
        }
        Some(codes) => {
            let inner: usize = axis
                .map_or(1, |a| {
                    weights.shape[a + 1..].iter().map(|d| d.fixed().unwrap_or(1)).product::<usize>()
                })
                .max(1);
            let (mut sums, mut away) = (vec![0u64; channels], vec![0u64; channels]);
            // Each group has its own of the indices before those of the channels.
            let of_group = (codes.len() / groups).max(1);
            for (i, code) in codes.iter().enumerate() {
                let c = if axis.is_some() { i / inner % shared } else { 0 };
                let zero = w.zero_points()[c % w.zero_points().len()];
                let channel = i / of_group * shared + c;
                sums[channel] += u64::from(code.abs_diff(zero));
                away[channel] += accumulator.takes_away(*code);
            }
            let each =
                sums.iter().enumerate().map(|(c, s)| s.saturating_mul(products.0).saturating_add(bias(c)));
            (each.max().unwrap_or(0), away.into_iter().max().unwrap_or(0))
        }
    };
    let bound = sums.saturating_add(taken_away);
    if bound >= LIMIT {
        let message = format!(
            "sums may come to {bound}, which is beyond 2^47: fewer bits of the weights or activations keep them below"
        );
        return Err(OpError::Arithmetic { message });
    }
    Ok(bound)
}

/// [`bound`] of a node by the values that it takes; 0 for one that sums no products.
///
/// # Errors
/// As [`bound`].
pub fn bound_of(op: &dyn Op, params: &CodeParams, inputs: &[&Value]) -> Result<u64, OpError> {
    let (QuantRule::Gemm { .. }, Some(w)) = (op.quant_rule(), inputs.get(1)) else { return Ok(0) };
    let codes = w.constant.as_ref().and_then(Tensor::codes);
    let known = inputs.get(2).and_then(|b| b.constant.as_ref()).and_then(Tensor::codes);
    let bias = match (params.inputs.len(), &known) {
        (..=2, _) => Bias::None,
        (_, Some(b)) => Bias::Known(b),
        (_, None) => Bias::Computed,
    };
    bound(op, params, &w.ty, codes.as_deref(), bias)
}

/// Whether what an operator from a file says of its sums holds: one that is too small would let them wrap.
pub(super) fn check(op: &dyn Op, params: &CodeParams, inputs: &[&Value]) -> Result<(), OpError> {
    let needed = bound_of(op, params, inputs)?;
    if params.bound < needed {
        let message = format!(
            "bound = {}, but its sums may come to {needed} by its weights and bias: convert the model again",
            params.bound
        );
        return Err(OpError::Arithmetic { message });
    }
    if params.output == CodeOutput::Sums {
        in_32_bits(needed)?;
    }
    Ok(())
}

/// Whether sums fit the 32 bits in which other runtimes keep them, and in which sums are given as a tensor.
pub(super) fn in_32_bits(bound: u64) -> Result<(), OpError> {
    if bound <= i32::MAX.unsigned_abs().into() {
        return Ok(());
    }
    let message = format!(
        "sums may come to {bound}, which is beyond the 32 bits that they are kept in: fewer products in a sum, or \
         weights of smaller codes, keep them below"
    );
    Err(OpError::Arithmetic { message })
}

fn farthest(p: &QParams) -> u64 {
    let (low, high) = p.codes();
    p.zero_points().iter().map(|z| low.abs_diff(*z).max(high.abs_diff(*z))).max().unwrap_or(0).into()
}

/// How many products a sum has: as many as the axes of the weights that are summed over have elements.
fn products_of(op: &dyn Op, weights: &TensorType) -> u64 {
    let rank = weights.rank();
    let channel = op.quant_rule().channel_axis(rank);
    let summed = |a: &usize| match op.def().name {
        "MatMul" => *a == rank.max(2) - 2,
        _ => Some(*a) != channel,
    };
    let size = |a: usize| weights.shape[a].fixed().unwrap_or(1) as u64;
    (0..rank).filter(summed).fold(1u64, |k, a| k.saturating_mul(size(a)))
}
