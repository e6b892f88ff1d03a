//! Sums of a convolution whose pairs of products saturate.

use super::cpu::Shape;
use super::window::{Window, three};
use crate::ops::integer::pairs::{Pairs, add_pair};
use rayon::prelude::*;

/// The sums of every output, in order. Along k channels are next to each other, within each tap.
pub(super) fn sums(
    window: &Window,
    groups: usize,
    pairs: &Pairs,
    (x_shape, w_shape): (&[usize], &[usize]),
    out: &[usize],
) -> Vec<i64> {
    let shape = Shape { input: three(x_shape), output: three(out), axes: window.three() };
    let (o, c, taps) = (out[1] / groups, w_shape[1], shape.taps());
    let k = c * taps;
    let (pixels, in_pixels) = (shape.output.iter().product::<usize>(), shape.input.iter().product::<usize>());
    let mut y = vec![0; out.iter().product()];
    if y.is_empty() || k == 0 {
        return y;
    }
    let order: Vec<usize> = (0..k).map(|i| i % c * taps + i / c).collect();
    let mut rows = vec![0; k * pixels];
    for (m, y) in y.chunks_exact_mut(o * pixels).enumerate() {
        shape.gather(&pairs.x[m * c * in_pixels..][..c * in_pixels], 0, pixels, &mut rows);
        let mut steps = vec![0; pixels];
        for row in rows.chunks_exact(pixels) {
            steps.iter_mut().zip(row).for_each(|(s, x)| *s += i64::from(*x));
        }
        // Of padding, too.
        rows.iter_mut().for_each(|x| *x += pairs.zero);
        y.par_chunks_exact_mut(pixels).enumerate().for_each(|(i, y)| {
            let channel = m % groups * o + i;
            let w = &pairs.w[channel * k..][..k];
            let row = |at: &usize| &rows[at * pixels..][..pixels];
            for pair in order.chunks(2) {
                let (a, b): (Vec<i32>, Vec<&[i32]>) = pair.iter().map(|at| (w[*at], row(at))).unzip();
                add_pair(y, &a, &b);
            }
            let weights = w.iter().map(|w| i64::from(*w)).sum();
            y.iter_mut().zip(&steps).for_each(|(y, s)| *y = pairs.corrected(*y, channel, weights, *s));
        });
    }
    y
}
