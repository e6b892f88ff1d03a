//! Transposed convolution of codes.

use super::{ConvTranspose, add_tap};
use crate::graph::{CodeParams, Op, OpError, Scratch};
use crate::ops::conv::window::{Axis, three};
use crate::ops::integer::isa::Isa;
use crate::ops::integer::pairs::saturate;
use crate::ops::integer::sums::{Finish, Sum, floats, integers, is_exact_in_f32, is_narrow, steps_of};
use crate::ops::integer::{bytes, dense};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;

/// Pixels whose sums are kept before they are spread.
const PIXELS: usize = 96;

/// The output pixels that meet the same taps: those of one remainder by the stride along each axis.
struct Phase {
    /// These pixels.
    pixels: Vec<u32>,
    /// Their taps.
    taps: Vec<usize>,
    /// Where the inputs of each tap of each pixel begin.
    offsets: Vec<u32>,
    /// One for each group.
    weights: Vec<dense::Weights>,
}

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
        if let Some(sums) = self.byte_sums(cx, params, inputs, &out) {
            return Ok(finish.apply(cx, params, &out, &sums));
        }
        let steps = [steps_of(params, inputs, 0)?, steps_of(params, inputs, 1)?];
        if is_exact_in_f32(params) {
            let numbers = [Tensor::from_f32(x, floats(&steps[0])), Tensor::from_f32(w, floats(&steps[1]))];
            let sums = integers(self.sums(cx, &numbers, &out));
            return Ok(finish.apply(cx, params, &out, &sums));
        }
        Ok(if is_narrow(params) {
            finish.apply(cx, params, &out, &self.integer_sums::<i32>([x, w], &steps, &out))
        } else {
            finish.apply(cx, params, &out, &self.integer_sums::<i64>([x, w], &steps, &out))
        })
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

    /// The sums of 8-bit codes; `None` for other types, and where groups are too small for it.
    fn byte_sums(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
        out: &[usize],
    ) -> Option<Vec<i32>> {
        let x = bytes::Input::new(params.inputs[0].as_ref(), &inputs[0])?;
        bytes::symmetric(params, &inputs[1])?;
        let (x_shape, og) = (inputs[0].shape(), inputs[1].shape()[1]);
        let cg = x_shape[1] / self.groups;
        if !bytes::suits(params) || cg < 4 || og < 8 || out.contains(&0) {
            return None;
        }
        let (input, output) = (three(x_shape), three(out));
        let (in_pixels, plane) = (input.iter().product::<usize>(), output.iter().product::<usize>());
        let padded = dense::quads(cg) * 4;
        let stride = (in_pixels + 1) * padded;
        u32::try_from(stride.max(plane)).ok()?;
        let mats = out[0] * self.groups;
        let mut pixels = cx.take_bytes(mats * stride);
        pixels.par_chunks_mut(stride).zip(x.bytes.par_chunks(cg * in_pixels)).for_each(|(y, planes)| {
            let (inside, outside) = y.split_at_mut(in_pixels * padded);
            dense::interleave(planes, cg, x.flip, padded, inside);
            outside.fill(x.zero);
        });
        let blocks = bytes::blocks(og, mats);
        let axes = self.window.three();
        let of_axes = axes.iter().flat_map(|a| [a.kernel, a.stride, a.dilation, a.pad]);
        let key = of_axes.chain(input).chain(output).chain([self.groups, blocks]).collect();
        let phases = cx.prepared(&inputs[1], key, || self.phases(params, inputs, out, blocks));
        let mut sums = vec![0; out.iter().product()];
        sums.par_chunks_mut(og * plane).enumerate().for_each(|(m, sums)| {
            let x_pixels = &pixels[m * stride..(m + 1) * stride];
            let width = phases[0].weights[m % self.groups].width();
            sums.par_chunks_mut(width * plane).enumerate().for_each(|(tile, sums)| {
                for phase in phases.iter() {
                    phase.spread(m % self.groups, tile, x_pixels, x.zero, plane, sums);
                }
            });
        });
        cx.give_bytes(pixels);
        Some(sums)
    }

    /// The phases of a stride, and the weights of each, packed.
    fn phases(&self, params: &CodeParams, inputs: &[Tensor], out: &[usize], blocks: usize) -> Vec<Phase> {
        let w = bytes::symmetric(params, &inputs[1]).unwrap_or_default();
        let (x_shape, og) = (inputs[0].shape(), inputs[1].shape()[1]);
        let cg = x_shape[1] / self.groups;
        let (input, output, axes) = (three(x_shape), three(out), self.window.three());
        let padded = dense::quads(cg) * 4;
        let all: usize = axes.iter().map(|a| a.kernel).product();
        let along = |a: usize| phases_of(&axes[a], input[a], output[a]);
        let [depth, height, width] = [along(0), along(1), along(2)];
        let outside = input.iter().product::<usize>();
        let mut phases = Vec::new();
        for d in &depth {
            for h in &height {
                for v in &width {
                    let mut taps = Vec::new();
                    for kd in &d.taps {
                        for kh in &h.taps {
                            taps.extend(
                                v.taps.iter().map(|kw| (kd * axes[1].kernel + kh) * axes[2].kernel + kw),
                            );
                        }
                    }
                    let (mut places, mut offsets) = (Vec::new(), Vec::new());
                    for (od, sd) in &d.outputs {
                        for (oh, sh) in &h.outputs {
                            for (ow, sw) in &v.outputs {
                                places.push(index((od * output[1] + oh) * output[2] + ow));
                                for id in sd {
                                    for ih in sh {
                                        for iw in sw {
                                            let at = match (id, ih, iw) {
                                                (Some(d), Some(h), Some(w)) => {
                                                    (d * input[1] + h) * input[2] + w
                                                }
                                                _ => outside,
                                            };
                                            offsets.push(index(at * padded));
                                        }
                                    }
                                }
                            }
                        }
                    }
                    let weights = (0..self.groups).map(|g| {
                        dense::Weights::pack(og, taps.len(), cg, blocks, |o, t, i| {
                            w[((g * cg + i) * og + o) * all + taps[t]]
                        })
                    });
                    let weights = weights.collect();
                    phases.push(Phase { pixels: places, taps, offsets, weights });
                }
            }
        }
        phases
    }
}

/// An index that was checked to have 32 bits.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The phase of one axis.
struct Along {
    /// Taps that outputs of this phase meet.
    taps: Vec<usize>,
    /// Outputs, and the inputs under their taps.
    outputs: Vec<(usize, Vec<Option<usize>>)>,
}

/// The phases along an axis that have outputs.
fn phases_of(axis: &Axis, len: usize, out: usize) -> Vec<Along> {
    let phase = |r: usize| {
        // Output o meets tap k where o + pad - k * dilation is a multiple of the stride.
        let meets = |k: &usize| (r + axis.pad) % axis.stride == k * axis.dilation % axis.stride;
        let taps: Vec<usize> = (0..axis.kernel).filter(meets).collect();
        let source = |o: usize, k: usize| {
            (o + axis.pad)
                .checked_sub(k * axis.dilation)
                .map(|ahead| ahead / axis.stride)
                .filter(|i| *i < len)
        };
        let outputs = (r..out).step_by(axis.stride);
        let outputs = outputs.map(|o| (o, taps.iter().map(|k| source(o, *k)).collect())).collect();
        Along { taps, outputs }
    };
    (0..axis.stride.min(out)).map(phase).collect()
}

impl Phase {
    /// The sums of its pixels in a tile of output channels, where they belong: `sums[channel][pixel]`.
    fn spread(&self, group: usize, tile: usize, x: &[u8], zero: u8, plane: usize, sums: &mut [i32]) {
        let taps = self.taps.len();
        if taps == 0 {
            return;
        }
        let weights = &self.weights[group];
        let (width, some) = (weights.width(), sums.len() / plane);
        let mut first = vec![0i32; width];
        for (f, s) in first.iter_mut().zip(&weights.sums[tile * width..tile * width + some]) {
            *f = -i32::from(zero) * s;
        }
        let mut found = vec![0i32; PIXELS.min(self.pixels.len()) * width];
        for (pixels, offsets) in self.pixels.chunks(PIXELS).zip(self.offsets.chunks(PIXELS * taps)) {
            let found = &mut found[..pixels.len() * width];
            weights.sums_of(Isa::best(), tile, x, taps, offsets, &first, found);
            for (lane, sums) in sums.chunks_exact_mut(plane).enumerate() {
                for (p, found) in pixels.iter().zip(found.chunks_exact(width)) {
                    sums[*p as usize] = found[lane];
                }
            }
        }
    }
}
