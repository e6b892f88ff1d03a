//! Convolutions of codes where every group has one input channel.
//!
//! A plane is copied with its padding, pixels a stride apart side by side, so that each tap of all outputs is one run of
//! it: the outputs of a plane are sums of shifted runs, edges included.

use super::cpu::Shape;
use super::window::{Axis, Window, three};
use crate::graph::{CodeParams, Scratch};
use crate::ops::integer::bytes::{Place, finished};
use crate::ops::integer::isa::{Isa, Work};
use crate::ops::integer::sums::{Element, Fill, Finish, steps_of};
use crate::tensor::{Data, Tensor};
use rayon::prelude::*;

/// Sums that are formed together, in registers: of four vectors, as compilers see them.
const RUN: usize = 4 * LANES;
const LANES: usize = 16;

/// Sums below which a task is not worth its start.
const TASK: usize = 8 * 1024;

/// Elements of a padded plane, at most.
const MOST_PADDED: usize = 1 << 22;

/// A code of an input.
trait Code: Copy + Send + Sync + Into<i32> + TryFrom<i32> {}

impl<T: Copy + Send + Sync + Into<i32> + TryFrom<i32>> Code for T {}

/// The integer form; `None` for other convolutions, and where 32 bits do not hold the sums.
pub(super) fn of_codes(
    cx: &Scratch,
    window: &Window,
    groups: usize,
    params: &CodeParams,
    inputs: &[Tensor],
    out: &[usize],
    finish: &Finish,
) -> Option<Tensor> {
    let fits = params.bound <= i32::MAX.unsigned_abs().into();
    if !fits || groups == 1 || inputs[1].shape()[1] != 1 || out.contains(&0) {
        return None;
    }
    let shape = Shape { input: three(inputs[0].shape()), output: three(out), axes: window.three() };
    let zero = params.input(0).ok()?.zero_point();
    let zeros = params.inputs[1].as_ref()?.zero_points().iter().map(|z| z.cast_unsigned() as usize);
    let key = shape.key().into_iter().chain(zeros).collect();
    let prepared =
        cx.prepared(&inputs[1], key, || Some((Planes::new(&shape)?, steps_of(params, inputs, 1).ok()?)));
    let (planes, weights) = prepared.as_ref().as_ref()?;
    match inputs[0].data() {
        Data::I8(x) | Data::I4(x) => depthwise(cx, x, zero, weights, planes, params, out, groups, finish),
        Data::U8(x) | Data::U4(x) => depthwise(cx, x, zero, weights, planes, params, out, groups, finish),
        Data::I16(x) => depthwise(cx, x, zero, weights, planes, params, out, groups, finish),
        Data::U16(x) => depthwise(cx, x, zero, weights, planes, params, out, groups, finish),
        Data::F32(_) | Data::I32(_) | Data::Bool(_) => None,
    }
}

#[allow(clippy::too_many_arguments, reason = "what a convolution is made of")]
fn depthwise<T: Code>(
    cx: &Scratch,
    x: &[T],
    zero: i32,
    weights: &[i32],
    planes: &Planes,
    params: &CodeParams,
    out: &[usize],
    groups: usize,
    finish: &Finish,
) -> Option<Tensor> {
    let zero_code = T::try_from(zero).ok()?;
    let (channels, per_group) = (out[1], out[1] / groups);
    Some(finish.output(
        cx,
        params,
        out,
        &Depthwise { x, zero, zero_code, weights, planes, channels, per_group },
    ))
}

struct Depthwise<'a, T> {
    x: &'a [T],
    zero: i32,
    zero_code: T,
    /// Steps, all taps of a channel side by side.
    weights: &'a [i32],
    planes: &'a Planes,
    channels: usize,
    /// Output channels of each input channel.
    per_group: usize,
}

impl<T: Code> Fill for Depthwise<'_, T> {
    fn run<E: Element>(&self, cx: &Scratch, finish: &Finish) -> Vec<E> {
        let planes = self.planes;
        let (inside, pixels) = (planes.inputs(), planes.outputs());
        let count = self.x.len() / inside * self.per_group;
        let mut out = E::take(cx, count * pixels);
        let isa = Isa::best();
        let some = TASK.div_ceil(planes.sums());
        out.par_chunks_mut(pixels).enumerate().with_min_len(some).for_each_init(
            || (vec![self.zero_code; planes.padded()], vec![0; planes.sums()]),
            |(padded, sums), (m, out)| {
                let channel = m % self.channels;
                let taps = planes.offsets.len();
                let weights = &self.weights[channel * taps..][..taps];
                isa.run(Pad { planes, x: &self.x[m / self.per_group * inside..][..inside], padded });
                let of_zero = weights.iter().fold(0i32, |sum, w| sum.wrapping_add(w.wrapping_mul(self.zero)));
                let first = of_zero.wrapping_neg();
                isa.run(Runs { x: padded, offsets: &planes.offsets, weights, first, out: sums });
                planes.compact(sums);
                finished(finish, Place { channel, at: m * pixels, step: 1 }, &sums[..pixels], out);
            },
        );
        out
    }
}

/// How planes lie with their padding: a block for each phase of the strides, of the pixels that are a stride apart.
#[derive(Default)]
struct Planes {
    input: [usize; 3],
    output: [usize; 3],
    axes: [Axis; 3],
    /// Lengths of a block.
    block: [usize; 3],
    /// Where the run of each tap begins.
    offsets: Vec<usize>,
    /// Where each line of a plane goes, if a tap reads it.
    lines: Vec<Option<usize>>,
    /// Of each phase of the columns: the first one, where it goes in a line, how many there are.
    columns: Vec<(usize, usize, usize)>,
}

/// Copies a line, which is too short for a call.
#[inline(always)]
fn copy<T: Copy>(x: &[T], to: &mut [T]) {
    const W: usize = 16;
    let n = x.len();
    if n < W {
        to.iter_mut().zip(x).for_each(|(to, x)| *to = *x);
        return;
    }
    for at in (0..n - W).step_by(W).chain([n - W]) {
        to[at..at + W].copy_from_slice(&x[at..at + W]);
    }
}

impl Planes {
    /// `None` where strides or dilations are so large that most of a block would be empty.
    fn new(shape: &Shape) -> Option<Planes> {
        let Shape { input, output, axes } = *shape;
        // Every tap reads as many pixels of a block as there are outputs, from its own place in it.
        let block = std::array::from_fn(|i| {
            let a = axes[i];
            output[i] + (a.kernel - 1) * a.dilation / a.stride
        });
        let phases = axes.iter().map(|a| a.stride);
        let padded = block.iter().copied().chain(phases).try_fold(1, usize::checked_mul)?;
        if padded > MOST_PADDED {
            return None;
        }
        let mut planes = Planes { input, output, axes, block, ..Planes::default() };
        let [ad, ah, aw] = axes;
        for d in 0..ad.kernel {
            for h in 0..ah.kernel {
                for w in 0..aw.kernel {
                    let at = planes.place([d * ad.dilation, h * ah.dilation, w * aw.dilation]);
                    planes.offsets.push(at);
                }
            }
        }
        planes.lay();
        Some(planes)
    }

    fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    fn outputs(&self) -> usize {
        self.output.iter().product()
    }

    /// Where a position lies, counted from the first of the padding.
    fn place(&self, at: [usize; 3]) -> usize {
        let [d, h, w] = [0, 1, 2].map(|i| (at[i] % self.axes[i].stride, at[i] / self.axes[i].stride));
        let block = (d.0 * self.axes[1].stride + h.0) * self.axes[2].stride + w.0;
        let [bd, bh, bw] = self.block;
        block * bd * bh * bw + (d.1 * bh + h.1) * bw + w.1
    }

    /// Sums that are formed: lines are as long as those of a block, and the last run is a whole one.
    fn sums(&self) -> usize {
        let ([od, oh, ow], [_, bh, bw]) = (self.output, self.block);
        (((od - 1) * bh + oh - 1) * bw + ow).next_multiple_of(RUN)
    }

    /// Elements of a padded plane. Runs of the last block go a little beyond it.
    fn padded(&self) -> usize {
        let phases: usize = self.axes.iter().map(|a| a.stride).product();
        phases * self.block.iter().product::<usize>() + RUN
    }

    /// Finds where lines and columns of a plane go.
    fn lay(&mut self) {
        let ([id, ih, iw], [ad, ah, aw]) = (self.input, self.axes);
        let beyond = |axis: usize, at: usize| at / self.axes[axis].stride >= self.block[axis];
        let lines = (0..id * ih).map(|line| {
            let (d, h) = (line / ih + ad.pad, line % ih + ah.pad);
            (!beyond(0, d) && !beyond(1, h)).then(|| self.place([d, h, 0]))
        });
        let columns = (0..aw.stride.min(iw)).filter(|first| !beyond(2, first + aw.pad)).map(|first| {
            let w = first + aw.pad;
            let left = self.block[2] - w / aw.stride;
            (first, self.place([0, 0, w]), (iw - first).div_ceil(aw.stride).min(left))
        });
        (self.lines, self.columns) = (lines.collect(), columns.collect());
    }

    /// Writes a plane into a padded one.
    #[inline(always)]
    fn pad<T: Copy>(&self, x: &[T], padded: &mut [T]) {
        let stride = self.axes[2].stride;
        for (x, line) in x.chunks_exact(self.input[2]).zip(&self.lines) {
            let Some(line) = *line else { continue };
            for &(first, at, n) in &self.columns {
                let (x, to) = (&x[first..], &mut padded[line + at..][..n]);
                match stride {
                    1 => copy(&x[..n], to),
                    // Pairs are what compilers make vectors of.
                    2 => {
                        let pairs = x.chunks_exact(2);
                        let last = pairs.remainder().first();
                        for (to, pair) in to.iter_mut().zip(pairs) {
                            *to = pair[0];
                        }
                        if let (Some(x), Some(to)) = (last, to.get_mut(x.len() / 2)) {
                            *to = *x;
                        }
                    }
                    _ => to.iter_mut().zip(x.iter().step_by(stride)).for_each(|(to, x)| *to = *x),
                }
            }
        }
    }

    /// Moves the sums of the outputs to the front, one line behind the other.
    fn compact(&self, sums: &mut [i32]) {
        let ([od, oh, ow], [_, bh, bw]) = (self.output, self.block);
        if bw == ow && (bh == oh || od == 1) {
            return;
        }
        for line in 1..od * oh {
            let from = (line / oh * bh + line % oh) * bw;
            sums.copy_within(from..from + ow, line * ow);
        }
    }
}

/// [`Planes::pad`].
struct Pad<'a, T> {
    planes: &'a Planes,
    x: &'a [T],
    padded: &'a mut [T],
}

impl<T: Code> Work for Pad<'_, T> {
    #[inline(always)]
    fn run(self) {
        self.planes.pad(self.x, self.padded);
    }
}

/// Sums of shifted runs of `x` times weights, from `first` on.
struct Runs<'a, T> {
    x: &'a [T],
    offsets: &'a [usize],
    weights: &'a [i32],
    first: i32,
    out: &'a mut [i32],
}

impl<T: Code> Work for Runs<'_, T> {
    #[inline(always)]
    fn run(self) {
        for (i, out) in self.out.chunks_exact_mut(RUN).enumerate() {
            let mut sums = [[self.first; LANES]; RUN / LANES];
            for (offset, w) in self.offsets.iter().zip(self.weights) {
                let x = &self.x[offset + i * RUN..][..RUN];
                // Sums of codes may wrap; those of steps, which they become, fit.
                // Counted, not zipped: compilers keep these sums in registers, and those of zipped slices in memory.
                for (v, sums) in sums.iter_mut().enumerate() {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.wrapping_add(w.wrapping_mul(x[v * LANES + lane].into()));
                    }
                }
            }
            out.copy_from_slice(sums.as_flattened());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    fn axis(rng: &mut Rng, input: usize) -> (Axis, usize) {
        let axis = Axis {
            kernel: rng.int(1, 4),
            stride: rng.int(1, 3),
            dilation: rng.int(1, 3),
            pad: rng.int(0, 3),
        };
        let end = rng.int(0, 3);
        let extent = (axis.kernel - 1) * axis.dilation + 1;
        let output = (input + axis.pad + end).checked_sub(extent).map_or(0, |n| n / axis.stride + 1);
        (axis, output)
    }

    #[test]
    fn windows_beyond_memory_are_left_to_others() {
        let far = Axis { kernel: 1, stride: 1 << 24, dilation: 1, pad: 0 };
        assert!(Planes::new(&Shape { input: [1; 3], output: [1; 3], axes: [far; 3] }).is_none());
        let wide = Axis { kernel: 2, stride: 1, dilation: 1 << 24, pad: 1 << 24 };
        assert!(Planes::new(&Shape { input: [1; 3], output: [1 << 20; 3], axes: [wide; 3] }).is_none());
    }

    /// Every instruction set against the definition, over windows of all kinds and extreme codes.
    #[test]
    fn sums_are_those_of_the_definition() {
        let mut rng = Rng::new(11);
        let mut tried = 0;
        while tried < 300 {
            let input = [rng.int(1, 3), rng.int(1, 12), rng.int(1, 40)];
            let [d, h, w] = input.map(|n| axis(&mut rng, n));
            let output = [d.1, h.1, w.1];
            if output.contains(&0) {
                continue;
            }
            tried += 1;
            let axes = [d.0, h.0, w.0];
            let planes = Planes::new(&Shape { input, output, axes }).unwrap();
            let zero = rng.pick(&[-128, 127, 0, 5]);
            let draw = |rng: &mut Rng| {
                let any = rng.code(-128, 127);
                rng.pick(&[-128, 127, any])
            };
            let x: Vec<i8> = (0..planes.inputs()).map(|_| draw(&mut rng).try_into().unwrap()).collect();
            let weights: Vec<i32> = planes.offsets.iter().map(|_| draw(&mut rng)).collect();
            let mut padded = vec![i8::try_from(zero).unwrap(); planes.padded()];
            planes.pad(&x, &mut padded);
            let first = -zero * weights.iter().sum::<i32>();
            let mut want = Vec::new();
            for o in 0..planes.outputs() {
                let at = [o / (output[1] * output[2]), o / output[2] % output[1], o % output[2]];
                let mut sum = 0;
                for (t, w) in weights.iter().enumerate() {
                    let k = [
                        t / (axes[1].kernel * axes[2].kernel),
                        t / axes[2].kernel % axes[1].kernel,
                        t % axes[2].kernel,
                    ];
                    let from: Option<Vec<usize>> = (0..3)
                        .map(|i| {
                            let at = at[i] * axes[i].stride + k[i] * axes[i].dilation;
                            at.checked_sub(axes[i].pad).filter(|p| *p < input[i])
                        })
                        .collect();
                    if let Some(p) = from {
                        let x = x[(p[0] * input[1] + p[1]) * input[2] + p[2]];
                        sum += w * (i32::from(x) - zero);
                    }
                }
                want.push(sum);
            }
            for isa in Isa::all() {
                let mut sums = vec![0; planes.sums()];
                isa.run(Runs {
                    x: &padded[..],
                    offsets: &planes.offsets,
                    weights: &weights,
                    first,
                    out: &mut sums,
                });
                planes.compact(&mut sums);
                assert_eq!(sums[..want.len()], want, "{input:?} {axes:?} {isa:?}");
            }
        }
    }
}
