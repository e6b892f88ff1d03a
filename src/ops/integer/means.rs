//! What becomes of sums of codes that are means: codes, or numbers where no quantizer follows.

use super::device::Finisher;
use super::sums::not_a_power;
use crate::graph::{CodeOutput, CodeParams, OpError};
use crate::quant::{Factor, Mean, Step};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// Means of one of several numbers of codes.
pub(in crate::ops) enum Means {
    /// Codes, by the factor of each number.
    Codes(Vec<Factor>, Step),
    /// Numbers: f32 of the sum, times the scale of a sum of so many.
    Numbers(Vec<f32>),
}

impl Means {
    /// Means of so many codes each.
    ///
    /// # Errors
    /// Parameters that the target's arithmetic cannot compute with.
    #[allow(clippy::cast_precision_loss, reason = "windows have fewer than 2^53 elements")]
    #[allow(clippy::cast_possible_truncation, reason = "rounded once, to the nearest f32")]
    pub(in crate::ops) fn new(
        params: &CodeParams,
        counts: impl Iterator<Item = usize>,
    ) -> Result<Means, OpError> {
        let x = params.input(0)?;
        if params.output == CodeOutput::Real {
            let scale = |n: usize| (f64::from(x.scale()) / n.max(1) as f64) as f32;
            return Ok(Means::Numbers(counts.map(scale).collect()));
        }
        let mean = Mean::new(params.arithmetic.requantize, x.scale(), params.output()?);
        let factors: Option<Vec<Factor>> = counts.map(|n| mean.factor(n)).collect();
        Ok(Means::Codes(factors.ok_or_else(not_a_power)?, *mean.output()))
    }

    /// The output, from the sum of each element and which of the numbers of codes it is of.
    #[allow(clippy::cast_precision_loss, reason = "to the nearest f32, as it is defined")]
    pub(in crate::ops) fn output(
        &self,
        params: &CodeParams,
        shape: &[usize],
        sum: impl Fn(usize) -> (i64, usize) + Sync + Send,
    ) -> Tensor {
        let elements = (0..shape.iter().product::<usize>()).into_par_iter().map(sum);
        match self {
            Means::Codes(factors, y) => {
                let codes: Vec<i32> = elements.map(|(sum, of)| y.place(factors[of].apply(sum))).collect();
                params.store(shape, &codes)
            }
            Means::Numbers(scales) => {
                Tensor::from_f32(shape, elements.map(|(sum, of)| sum as f32 * scales[of]).collect())
            }
        }
    }

    /// The same for kernels.
    ///
    /// # Errors
    /// Parameters that are missing.
    pub(in crate::ops) fn finisher(&self, params: &CodeParams) -> Result<Finisher, OpError> {
        match self {
            Means::Codes(factors, _) => Finisher::of_factors(params, factors),
            Means::Numbers(scales) => Finisher::of_scales(params, scales),
        }
    }
}
