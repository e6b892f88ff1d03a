//! Convolutions of codes on the CPU where pairs of products saturate.

use super::cpu::{self, GATHERED, Shape};
use super::window::{Window, three};
use crate::graph::{CodeParams, OpError};
use crate::ops::integer::pairs;
use crate::ops::integer::sums::steps_of;
use crate::tensor::Tensor;
use rayon::prelude::*;

/// The sums: exact ones, and what pairs of neighbours in the order of taps, then channels, lose. Padding has the code of
/// zero.
pub(super) fn sums(
    window: &Window,
    groups: usize,
    params: &CodeParams,
    inputs: &[Tensor],
    out: &[usize],
) -> Result<Vec<i64>, OpError> {
    let (x_shape, w_shape) = (inputs[0].shape(), inputs[1].shape());
    let (x, w) = (steps_of(params, inputs, 0)?, steps_of(params, inputs, 1)?);
    let mut y: Vec<i64> = cpu::sums(window, groups, (x_shape, &x), (w_shape, &w), out);
    let shape = Shape { input: three(x_shape), output: three(out), axes: window.three() };
    let (o, c, taps) = (out[1] / groups, w_shape[1], shape.taps());
    let k = c * taps;
    let (pixels, in_pixels) = (shape.output.iter().product::<usize>(), shape.input.iter().product::<usize>());
    if y.is_empty() || k < 2 {
        return Ok(y);
    }
    let [x, w] = pairs::codes(params, inputs)?;
    let zero = pairs::zero(params)?;
    // What lies outside the input is gathered as 0.
    let x: Vec<i16> = x.into_iter().map(|code| code - zero).collect();
    // Rows of weights and of what is gathered lie channel by channel.
    let order: Vec<usize> = (0..taps).flat_map(|t| (0..c).map(move |i| i * taps + t)).collect();
    let n = (GATHERED / k).clamp(48, pixels.max(48)).min(pixels);
    y.par_chunks_exact_mut(o * pixels).enumerate().for_each(|(m, y)| {
        let image = &x[m * c * in_pixels..][..c * in_pixels];
        let mut rows = vec![0i16; k * n];
        for p0 in (0..pixels).step_by(n) {
            let n = n.min(pixels - p0);
            let rows = &mut rows[..k * n];
            shape.gather(image, p0, n, rows);
            rows.iter_mut().for_each(|v| *v += zero);
            let row = |at: usize| &rows[at * n..(at + 1) * n];
            y.par_chunks_exact_mut(pixels).enumerate().for_each(|(i, y)| {
                let w = &w[(m % groups * o + i) * k..][..k];
                for pair in order.chunks_exact(2) {
                    let (a, b) = (pair[0], pair[1]);
                    pairs::lose(&mut y[p0..p0 + n], [w[a], w[b]], [row(a), row(b)]);
                }
            });
        }
    });
    Ok(y)
}
