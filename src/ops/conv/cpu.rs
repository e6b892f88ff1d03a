//! Convolution on the CPU: matrix products over the gathered inputs of a run of output pixels; direct sums where
//! every group has one input channel.

use super::window::{Axis, Window, three};
use crate::graph::{CodeParams, Scratch};
use crate::ops::gemm_cpu::{Mat, Tiling, par_blocks};
use crate::ops::integer::sums::{Finish, Sum, floats, integers, is_exact_in_f32};
use crate::ops::integer::{bytes, dense};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// Floats of gathered inputs that a thread keeps: they should stay in its second-level cache.
pub(super) const GATHERED: usize = 160 * 1024;

/// Most pixels of one product: the width of a panel of the product.
const PIXELS: usize = 1024;

pub(super) fn conv(
    cx: &Scratch,
    window: &Window,
    groups: usize,
    inputs: &[Tensor],
    out: &[usize],
) -> Vec<f32> {
    let (x, w) = (&inputs[0], &inputs[1]);
    let mut y = cx.take(out.iter().product());
    let shape = Shape { input: three(x.shape()), output: three(out), axes: window.three() };
    let bias = inputs.get(2).map(Tensor::f32s);
    if w.shape()[1] == 1 && groups > 1 {
        depthwise(&shape, x.f32s(), w.f32s(), bias, out[1] / groups, out[1], &mut y);
        return y;
    }
    let o = out[1] / groups;
    let c = w.shape()[1];
    let k = c * shape.taps();
    let (pixels, in_pixels) = (shape.output.iter().product::<usize>(), shape.input.iter().product::<usize>());
    if y.is_empty() {
        return y;
    }
    let direct = window.is_point();
    let most = if direct { PIXELS } else { (GATHERED / k / 16 * 16).clamp(48, PIXELS) };
    let tiling = Tiling::new(out[0] * groups, o, pixels, most);
    par_blocks(&mut y, tiling, |m, o0, p0, block| {
        let image = &x.f32s()[m * c * in_pixels..][..c * in_pixels];
        let first = m % groups * o + o0;
        let weights = Mat::rows(&w.f32s()[first * k..], k);
        if direct {
            block.product(k, weights, Mat::rows(image, pixels).at(0, p0));
        } else {
            let n = tiling.col_block.min(pixels - p0);
            let mut gathered = cx.take(k * n);
            shape.gather(image, p0, n, &mut gathered);
            block.product(k, weights, Mat::rows(&gathered, n));
            cx.give(gathered);
        }
        if let Some(bias) = bias {
            for i in 0..block.rows() {
                let b = bias[first + i];
                block.row(i).iter_mut().for_each(|v| *v += b);
            }
        }
    });
    y
}

pub(super) struct Shape {
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub axes: [Axis; 3],
}

/// What a product takes beside its inputs.
struct Packed {
    weights: Vec<dense::Weights>,
    offsets: Vec<u32>,
}

impl Shape {
    /// All of it, to tell it from others.
    pub fn key(&self) -> Vec<usize> {
        let axes = self.axes.iter().flat_map(|a| [a.kernel, a.stride, a.dilation, a.pad]);
        self.input.into_iter().chain(self.output).chain(axes).collect()
    }

    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.kernel).product()
    }

    /// Where the channels of each tap of each output pixel begin, where a pixel of the input takes `padded` bytes; behind
    /// the last pixel for the padding.
    fn offsets(&self, padded: usize) -> Vec<u32> {
        let [id, ih, iw] = self.input;
        let [od, oh, ow] = self.output;
        let [ad, ah, aw] = self.axes;
        let outside = id * ih * iw;
        let mut out = Vec::with_capacity(od * oh * ow * self.taps());
        for p in 0..od * oh * ow {
            for kd in 0..ad.kernel {
                let d = ad.source(p / (oh * ow), kd, id);
                for kh in 0..ah.kernel {
                    let h = ah.source(p / ow % oh, kh, ih);
                    for kw in 0..aw.kernel {
                        let at = match (d, h, aw.source(p % ow, kw, iw)) {
                            (Some(d), Some(h), Some(w)) => (d * ih + h) * iw + w,
                            _ => outside,
                        };
                        out.push(u32::try_from(at * padded).unwrap_or(u32::MAX));
                    }
                }
            }
        }
        out
    }

    /// Writes row (c, kd, kh, kw) = the inputs that meet this weight in output pixels `p0..p0 + n`.
    pub fn gather<T: Copy + Default>(&self, image: &[T], p0: usize, n: usize, rows: &mut [T]) {
        let [id, ih, iw] = self.input;
        let [ad, ah, aw] = self.axes;
        let mut rows = rows.chunks_exact_mut(n);
        for plane in image.chunks_exact(id * ih * iw) {
            for kd in 0..ad.kernel {
                for kh in 0..ah.kernel {
                    for kw in 0..aw.kernel {
                        let Some(row) = rows.next() else { return };
                        self.gather_row(plane, [kd, kh, kw], p0, row);
                    }
                }
            }
        }
    }

    fn gather_row<T: Copy + Default>(&self, plane: &[T], k: [usize; 3], p0: usize, row: &mut [T]) {
        let [_, oh, ow] = self.output;
        let [ad, ah, aw] = self.axes;
        let reach = aw.reach(k[2], self.input[2], ow);
        let (mut p, mut row) = (p0, row);
        while !row.is_empty() {
            let (line, w0) = (p / ow, p % ow);
            let len = row.len().min(ow - w0);
            let (part, rest) = row.split_at_mut(len);
            let d = ad.source(line / oh, k[0], self.input[0]);
            let h = ah.source(line % oh, k[1], self.input[1]);
            match (d, h) {
                (Some(d), Some(h)) => {
                    let x = &plane[(d * self.input[1] + h) * self.input[2]..][..self.input[2]];
                    aw.gather_line(x, k[2], &reach, w0, part);
                }
                _ => part.fill(T::default()),
            }
            row = rest;
            p += len;
        }
    }
}

impl Axis {
    /// Position in the input under tap `k` at output `o`.
    fn source(&self, o: usize, k: usize, len: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.pad).filter(|i| *i < len)
    }

    /// Outputs whose tap `k` lies inside the input.
    pub(in crate::ops) fn reach(&self, k: usize, len: usize, out: usize) -> std::ops::Range<usize> {
        let shift = k * self.dilation;
        let first = self.pad.saturating_sub(shift).div_ceil(self.stride);
        let end = (len + self.pad).saturating_sub(shift).div_ceil(self.stride);
        let end = end.min(out);
        first.min(end)..end
    }

    /// `out[i]` = the input under tap `k` at output `o0 + i`.
    fn gather_line<T: Copy + Default>(
        &self,
        x: &[T],
        k: usize,
        reach: &std::ops::Range<usize>,
        o0: usize,
        out: &mut [T],
    ) {
        let start = reach.start.clamp(o0, o0 + out.len());
        let end = reach.end.clamp(start, o0 + out.len());
        out[..start - o0].fill(T::default());
        out[end - o0..].fill(T::default());
        if start == end {
            return;
        }
        let first = start * self.stride + k * self.dilation - self.pad;
        let middle = &mut out[start - o0..end - o0];
        if self.stride == 1 {
            middle.copy_from_slice(&x[first..first + middle.len()]);
        } else {
            for (v, x) in middle.iter_mut().zip(x[first..].iter().step_by(self.stride)) {
                *v = *x;
            }
        }
    }
}

/// Exact sums of products by the products of numbers, as f32 holds all integers below 2^24; `None` for larger sums.
pub(super) fn float_sums(
    cx: &Scratch,
    window: &Window,
    groups: usize,
    params: &CodeParams,
    (x_shape, x): (&[usize], &[i32]),
    (w_shape, w): (&[usize], &[i32]),
    out: &[usize],
) -> Option<Vec<i32>> {
    if !is_exact_in_f32(params) {
        return None;
    }
    let inputs = [Tensor::from_f32(x_shape, floats(x)), Tensor::from_f32(w_shape, floats(w))];
    Some(integers(conv(cx, window, groups, &inputs, out)))
}

/// The integer form of 8-bit codes; `None` for other types, and where groups are too small for it.
pub(super) fn of_bytes(
    cx: &Scratch,
    window: &Window,
    groups: usize,
    params: &CodeParams,
    inputs: &[Tensor],
    out: &[usize],
    finish: &Finish,
) -> Option<Tensor> {
    let (x_shape, w_shape) = (inputs[0].shape(), inputs[1].shape());
    let x = bytes::Input::new(params.inputs[0].as_ref(), &inputs[0])?;
    let w = bytes::symmetric(params, &inputs[1])?;
    let (o, c) = (out[1] / groups, w_shape[1]);
    if !bytes::suits(params) || (groups > 1 && (c < 4 || o < 8)) || out.contains(&0) || c == 0 {
        return None;
    }
    let shape = Shape { input: three(x_shape), output: three(out), axes: window.three() };
    let (taps, in_pixels) = (shape.taps(), shape.input.iter().product::<usize>());
    let padded = dense::quads(c) * 4;
    let stride = (in_pixels + 1) * padded;
    let mats = out[0] * groups;
    u32::try_from(stride).ok()?;
    let mut pixels = cx.take_bytes(mats * stride);
    pixels.par_chunks_mut(stride).zip(x.bytes.par_chunks(c * in_pixels)).for_each(|(y, x_planes)| {
        let (inside, outside) = y.split_at_mut(in_pixels * padded);
        dense::interleave(x_planes, c, x.flip, padded, inside);
        outside.fill(x.zero);
    });
    let blocks = bytes::blocks(o, mats);
    let key = [&shape.key()[..], &[groups, blocks]].concat();
    let packed = cx.prepared(&inputs[1], key, || {
        let of_group = |g: usize| {
            let w = &w[g * o * c * taps..(g + 1) * o * c * taps];
            dense::Weights::pack(o, taps, c, blocks, |o, t, i| w[(o * c + i) * taps + t])
        };
        let weights = (0..groups).into_par_iter().map(of_group).collect();
        Packed { weights, offsets: shape.offsets(padded) }
    });
    let product = bytes::Bytes {
        x: &pixels,
        stride,
        zero: x.zero,
        weights: &packed.weights,
        offsets: &packed.offsets,
        taps,
        order: bytes::Order::Planes,
    };
    let y = finish.output(cx, params, out, &product);
    cx.give_bytes(pixels);
    Some(y)
}

/// Exact sums of products of operands `x` and `w` of these shapes, with zeros in the padding.
pub(super) fn sums<S: Sum>(
    window: &Window,
    groups: usize,
    (x_shape, x): (&[usize], &[i32]),
    (w_shape, w): (&[usize], &[i32]),
    out: &[usize],
) -> Vec<S> {
    let shape = Shape { input: three(x_shape), output: three(out), axes: window.three() };
    let (o, c) = (out[1] / groups, w_shape[1]);
    let k = c * shape.taps();
    let (pixels, in_pixels) = (shape.output.iter().product::<usize>(), shape.input.iter().product::<usize>());
    let mut y = vec![S::default(); out.iter().product()];
    if y.is_empty() || k == 0 {
        return y;
    }
    let x: Vec<S::Operand> = x.par_iter().map(|v| S::operand(*v)).collect();
    let n = (GATHERED / k).clamp(48, pixels.max(48));
    let mut rows = vec![S::Operand::default(); k * n.min(pixels)];
    for (m, y) in y.chunks_exact_mut(o * pixels).enumerate() {
        let image = &x[m * c * in_pixels..][..c * in_pixels];
        for p0 in (0..pixels).step_by(n) {
            let n = n.min(pixels - p0);
            let rows = &mut rows[..k * n];
            shape.gather(image, p0, n, rows);
            y.par_chunks_exact_mut(pixels).enumerate().for_each(|(i, y)| {
                let w = &w[(m % groups * o + i) * k..][..k];
                for (w, row) in w.iter().zip(rows.chunks_exact(n)).filter(|(w, _)| **w != 0) {
                    S::add_products(&mut y[p0..p0 + n], S::operand(*w), row);
                }
            });
        }
    }
    y
}

/// One input channel per group: an output plane is a sum of shifted input planes.
fn depthwise(
    s: &Shape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    per_group: usize,
    o: usize,
    y: &mut [f32],
) {
    let [id, ih, iw] = s.input;
    let [_, oh, ow] = s.output;
    let [ad, ah, aw] = s.axes;
    let (plane, taps) = (s.output.iter().product::<usize>(), s.taps());
    if y.is_empty() {
        return;
    }
    y.par_chunks_mut(plane).enumerate().for_each(|(m, y)| {
        let image = &x[m / per_group * id * ih * iw..][..id * ih * iw];
        let (w, b) = (&w[m % o * taps..][..taps], bias.map_or(0.0, |b| b[m % o]));
        for (line, y) in y.chunks_exact_mut(ow).enumerate() {
            y.fill(0.0);
            for (t, w) in w.iter().enumerate() {
                let (kd, kh, kw) = (t / (ah.kernel * aw.kernel), t / aw.kernel % ah.kernel, t % aw.kernel);
                let (Some(d), Some(h)) = (ad.source(line / oh, kd, id), ah.source(line % oh, kh, ih)) else {
                    continue;
                };
                let reach = aw.reach(kw, iw, ow);
                if reach.is_empty() {
                    continue;
                }
                let first = reach.start * aw.stride + kw * aw.dilation - aw.pad;
                let x = &image[(d * ih + h) * iw + first..][..iw - first];
                let y = &mut y[reach];
                if aw.stride == 1 {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
                } else {
                    y.iter_mut().zip(x.iter().step_by(aw.stride)).for_each(|(y, x)| *y += w * x);
                }
            }
            y.iter_mut().for_each(|v| *v += b);
        }
    });
}
