//! Sums, differences and products of codes.

use crate::graph::codes::codes_of;
use crate::graph::{CodeParams, OpError};
use crate::ops::broadcast::{Walk, concrete};
use crate::ops::integer::sums::not_a_power;
use crate::ops::unary::CHUNK;
use crate::quant::{Addition, Factor, Requantize, Step};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// `f` of each pair of codes.
pub(super) fn pairs(
    params: &CodeParams,
    inputs: &[Tensor],
    f: impl Fn(i32, i32) -> i32 + Sync,
) -> Result<Tensor, OpError> {
    let (a, b) = (codes_of(inputs, 0)?, codes_of(inputs, 1)?);
    let shapes = [inputs[0].shape(), inputs[1].shape()];
    let shape = concrete(&shapes);
    let mut out = vec![0; shape.iter().product()];
    let walk = Walk::new(&shape, shapes);
    let [in_a, in_b] = [0, 1].map(|k| usize::from(!walk.is_splat(k)));
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
        walk.rows(i * CHUNK..i * CHUNK + out.len(), |piece, [i, j]| {
            for (k, o) in out[piece].iter_mut().enumerate() {
                *o = f(a[i + k * in_a], b[j + k * in_b]);
            }
        });
    });
    Ok(params.store(&shape, &out))
}

/// The sum, or with `negative` the difference.
pub(super) fn sum(params: &CodeParams, inputs: &[Tensor], negative: bool) -> Result<Tensor, OpError> {
    let (a, b, y) = (params.input(0)?, params.input(1)?, params.output()?);
    let mode = params.arithmetic.requantize;
    let [a_shape, b_shape] = [0, 1].map(|i| inputs[i].shape());
    let walk = Walk::new(&concrete(&[a_shape, b_shape]), [a_shape, b_shape]);
    if !negative && mode == Requantize::Float && walk.is_splat(0) && !walk.is_splat(1) {
        // ONNX Runtime takes an operand that stands still within rows as the second one.
        let addition = Addition::new(mode, b, a, y).ok_or_else(not_a_power)?;
        return pairs(params, inputs, |a, b| addition.apply(b, a));
    }
    let addition = Addition::new(mode, a, b, y).ok_or_else(not_a_power)?;
    if !negative {
        return pairs(params, inputs, |a, b| addition.apply(a, b));
    }
    // -(q - z) = (2z - q) - z.
    let twice = 2 * b.zero_point();
    pairs(params, inputs, |a, b| addition.apply(a, twice - b))
}

/// The exact product, requantized once; in f32 the zero point is added before the rounding, as ONNX Runtime does.
pub(super) fn product(params: &CodeParams, inputs: &[Tensor]) -> Result<Tensor, OpError> {
    let (a, b, y) = (params.input(0)?, params.input(1)?, params.output()?);
    let arithmetic = params.arithmetic;
    let scales = [a.scale(), b.scale()];
    let factor = Factor::new(arithmetic.requantize, arithmetic.rounding, scales, y.scale());
    let factor = factor.ok_or_else(not_a_power)?;
    if let Factor::Float(m) = factor {
        #[allow(clippy::cast_precision_loss, reason = "rounds to the nearest f32, as it is defined")]
        return pairs(params, inputs, |p, q| {
            let product = (a.steps(p) * b.steps(q)) as f32;
            y.place_code(product * m + y.zero_point() as f32)
        });
    }
    let of = |s: &Step, c: i32| s.steps(c);
    pairs(params, inputs, |p, q| y.place(factor.apply(of(&a, p) * of(&b, q))))
}
