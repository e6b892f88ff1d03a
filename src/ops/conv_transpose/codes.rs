//! Transposed convolution of codes.

use super::{ConvTranspose, add_tap};
use crate::graph::{CodeParams, Op, OpError, Scratch};
use crate::ops::conv::window::three;
use crate::ops::integer::pairs::saturate;
use crate::ops::integer::sums::{Finish, Sum, floats, is_exact_in_f32, is_narrow, steps_of};
use crate::ops::integer::whole::{WholeNumbers, float_steps};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;

/// Codes of 16 bits in bytes: the high one with the sign, the low one.
const BYTE: f32 = 256.0;

impl ConvTranspose {
    /// With a scale for each output channel: weights have those of the channels of one group, which all groups share.
    pub(super) fn per_channel(&self, params: &CodeParams) -> Result<CodeParams, OpError> {
        let mut out = params.clone();
        if let Some(Some(w)) = out.inputs.get_mut(1)
            && w.scales().len() > 1
            && self.groups > 1
        {
            let wrong = |_| OpError::Parameters { what: "input", index: 1 };
            let (scales, zeros) = (w.scales().repeat(self.groups), w.zero_points().repeat(self.groups));
            *w = QParams::new(w.dtype(), w.narrow(), scales, zeros, w.axis()).map_err(wrong)?;
        }
        Ok(out)
    }

    /// Exact sums of products, ended as those of a convolution.
    pub(super) fn of_codes(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Tensor, OpError> {
        if saturate(params) {
            let message =
                "the target sums products in pairs, which a transposed convolution has no order for".into();
            return Err(OpError::Arithmetic { message });
        }
        let [x, w] = [0, 1].map(|i| inputs[i].shape());
        let types = [x, w].map(|s| TensorType::new(DType::F32, s.to_vec()));
        let out = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let finish = Finish::new(&self.per_channel(params)?, inputs, &out, 1)?;
        if let Some(y) = self.of_bytes(cx, params, inputs, &out, &finish) {
            return Ok(y);
        }
        if let Some(sums) = self.float_sums(cx, params, inputs, &out) {
            let y = finish.output(cx, params, &out, &WholeNumbers(&sums));
            cx.give(sums);
            return Ok(y);
        }
        let steps = [steps_of(params, inputs, 0)?, steps_of(params, inputs, 1)?];
        if let Some(sums) = self.sums_by_bytes(cx, params, [x, w], &steps, &out) {
            return Ok(finish.apply(cx, params, &out, &sums));
        }
        Ok(if is_narrow(params) {
            finish.apply(cx, params, &out, &self.integer_sums::<i32>([x, w], &steps, &out))
        } else {
            finish.apply(cx, params, &out, &self.integer_sums::<i64>([x, w], &steps, &out))
        })
    }

    /// The sums in f32, where that holds all of them.
    fn float_sums(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
        out: &[usize],
    ) -> Option<Vec<f32>> {
        if !is_exact_in_f32(params) {
            return None;
        }
        let x = float_steps(cx, params.inputs[0].as_ref()?, &inputs[0])?;
        let w = float_steps(cx, params.inputs[1].as_ref()?, &inputs[1])?;
        let numbers = [Tensor::from_f32(inputs[0].shape(), x), Tensor::from_f32(inputs[1].shape(), w)];
        let sums = self.sums(cx, &numbers, out);
        numbers.into_iter().for_each(|t| cx.give_tensor(t));
        Some(sums)
    }

    /// The sums of each byte of the input, where f32 holds these.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "whole numbers below 2^24"
    )]
    fn sums_by_bytes(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        shapes: [&[usize]; 2],
        steps: &[Vec<i32>; 2],
        out: &[usize],
    ) -> Option<Vec<i64>> {
        let (low, high) = params.inputs[0].as_ref()?.codes();
        let zero = params.inputs[0].as_ref()?.zero_points().first()?;
        let farthest = u64::from(low.abs_diff(*zero).max(high.abs_diff(*zero)));
        // As much as |w| sums to, and the bias besides.
        let weights = params.bound.div_ceil(farthest.max(1));
        if weights.saturating_mul(BYTE as u64) >= 1 << 24 {
            return None;
        }
        let w = Tensor::from_f32(shapes[1], floats(&steps[1]));
        let part = |of: fn(i32) -> i32| {
            let x: Vec<f32> = steps[0].par_iter().map(|q| of(*q) as f32).collect();
            self.sums(cx, &[Tensor::from_f32(shapes[0], x), w.clone()], out)
        };
        let (high, low) = (part(|q| q >> 8), part(|q| q & 255));
        let whole = |(h, l): (&f32, &f32)| (i64::from(*h as i32) << 8) + i64::from(*l as i32);
        let sums = high.par_iter().zip(&low).map(whole).collect();
        cx.give(high);
        cx.give(low);
        Some(sums)
    }

    /// For each output channel and tap the sums over the input channels at each input pixel, added where they meet.
    fn integer_sums<S: Sum>(&self, shapes: [&[usize]; 2], steps: &[Vec<i32>; 2], out: &[usize]) -> Vec<S> {
        let [x_shape, w_shape] = shapes;
        let (input, output, axes) = (three(x_shape), three(out), self.window.three());
        let (pixels, plane) = (input.iter().product::<usize>(), output.iter().product::<usize>());
        let (c, og) = (x_shape[1], w_shape[1]);
        let cg = c / self.groups;
        let taps: usize = axes.iter().map(|a| a.kernel).product();
        let x: Vec<S::Operand> = steps[0].par_iter().map(|v| S::operand(*v)).collect();
        let mut y = vec![S::default(); out.iter().product()];
        if y.is_empty() {
            return y;
        }
        y.par_chunks_mut(plane).enumerate().for_each(|(m, y)| {
            let (image, o) = (m / out[1], m % out[1]);
            let first = o / og * cg;
            let mut products = vec![S::default(); pixels];
            for t in 0..taps {
                products.fill(S::default());
                for i in first..first + cg {
                    let w = steps[1][(i * og + o % og) * taps + t];
                    if w != 0 {
                        let x = &x[(image * c + i) * pixels..][..pixels];
                        S::add_products(&mut products, S::operand(w), x);
                    }
                }
                add_tap(&axes, input, output, t, &products, y);
            }
        });
        y
    }
}
