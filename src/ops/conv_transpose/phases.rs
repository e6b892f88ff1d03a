//! Sums of 8-bit codes by the phases of the stride: the output pixels of a phase meet the same taps, so that their sums are
//! those of a convolution.

use super::ConvTranspose;
use crate::graph::{CodeParams, Scratch};
use crate::ops::conv::window::{Axis, three};
use crate::ops::integer::bytes::{self, PIXELS, Place, finished, transpose};
use crate::ops::integer::dense::{self, LANES};
use crate::ops::integer::isa::Isa;
use crate::ops::integer::sums::{Element, Fill, Finish};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// The output pixels of one remainder by the stride along each axis.
struct Phase {
    /// These pixels, and how many of them are a row.
    pixels: Vec<u32>,
    row: usize,
    /// How many taps they meet.
    taps: usize,
    /// Where the inputs of each tap of each pixel begin.
    offsets: Vec<u32>,
    /// One for each group.
    weights: Vec<dense::Weights>,
}

/// What an output is filled from.
struct Spread<'a> {
    phases: &'a [Phase],
    /// Inputs pixel by pixel, channels padded, of each image and group; bytes of one, and the code of zero.
    x: &'a [u8],
    stride: usize,
    zero: u8,
    groups: usize,
    /// Output channels of a group, and their pixels.
    channels: usize,
    plane: usize,
    /// From one pixel of a row to the next.
    step: usize,
}

impl ConvTranspose {
    /// The output of 8-bit codes; `None` for other types, and where groups are too small for it.
    pub(super) fn of_bytes(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
        out: &[usize],
        finish: &Finish,
    ) -> Option<Tensor> {
        let x = bytes::Input::new(params.inputs[0].as_ref(), &inputs[0])?;
        let w = bytes::symmetric(params, &inputs[1])?;
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
        let pack = |taps: &[usize], all: usize, g: usize| {
            dense::Weights::pack(og, taps.len(), cg, blocks, |o, t, i| {
                w[((g * cg + i) * og + o) * all + taps[t]]
            })
        };
        let phases = cx.prepared(&inputs[1], key, || phases(&axes, input, output, padded, self.groups, pack));
        let spread = Spread {
            phases: &phases,
            x: &pixels,
            stride,
            zero: x.zero,
            groups: self.groups,
            channels: og,
            plane,
            step: axes[2].stride,
        };
        let y = finish.output(cx, params, out, &spread);
        cx.give_bytes(pixels);
        Some(y)
    }
}

/// The phases of a window; `pack` packs the weights of these taps, of so many, of a group.
fn phases(
    axes: &[Axis; 3],
    input: [usize; 3],
    output: [usize; 3],
    padded: usize,
    groups: usize,
    pack: impl Fn(&[usize], usize, usize) -> dense::Weights,
) -> Vec<Phase> {
    let all: usize = axes.iter().map(|a| a.kernel).product();
    let outside = input.iter().product::<usize>();
    let along = |a: usize| phases_of(&axes[a], input[a], output[a]);
    let [depth, height, width] = [along(0), along(1), along(2)];
    let mut phases = Vec::new();
    for (d, h) in depth.iter().flat_map(|d| height.iter().map(move |h| (d, h))) {
        for w in &width {
            let mut taps = Vec::new();
            for (kd, kh) in d.taps.iter().flat_map(|kd| h.taps.iter().map(move |kh| (kd, kh))) {
                taps.extend(w.taps.iter().map(|kw| (kd * axes[1].kernel + kh) * axes[2].kernel + kw));
            }
            let (mut pixels, mut offsets) = (Vec::new(), Vec::new());
            for ((od, sd), (oh, sh)) in d.outputs.iter().flat_map(|d| h.outputs.iter().map(move |h| (d, h))) {
                for (ow, sw) in &w.outputs {
                    pixels.push(index((od * output[1] + oh) * output[2] + ow));
                    for (id, ih) in sd.iter().flat_map(|id| sh.iter().map(move |ih| (id, ih))) {
                        offsets.extend(sw.iter().map(|iw| {
                            let at = match (id, ih, iw) {
                                (Some(d), Some(h), Some(w)) => (d * input[1] + h) * input[2] + w,
                                _ => outside,
                            };
                            index(at * padded)
                        }));
                    }
                }
            }
            let weights = (0..groups).map(|g| pack(&taps, all, g)).collect();
            phases.push(Phase { pixels, row: w.outputs.len(), taps: taps.len(), offsets, weights });
        }
    }
    phases
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

impl Fill for Spread<'_> {
    fn run<T: Element>(&self, cx: &Scratch, finish: &Finish) -> Vec<T> {
        let mats = self.x.len() / self.stride;
        let mut out = T::take(cx, mats * self.channels * self.plane);
        out.par_chunks_mut(self.channels * self.plane).enumerate().for_each(|(mat, out)| {
            let width = self.phases[0].weights[0].width();
            out.par_chunks_mut(width * self.plane).enumerate().for_each(|(tile, out)| {
                for phase in self.phases {
                    self.tile(finish, phase, mat, tile, out);
                }
            });
        });
        out
    }
}

impl Spread<'_> {
    /// A tile of channels at the pixels of a phase: `out[channel][pixel]`.
    fn tile<T: Element>(&self, finish: &Finish, phase: &Phase, mat: usize, tile: usize, out: &mut [T]) {
        let group = mat % self.groups;
        let weights = &phase.weights[group];
        let (width, some) = (weights.width(), out.len() / self.plane);
        let x = &self.x[mat * self.stride..(mat + 1) * self.stride];
        let mut first = vec![0i32; width];
        for (f, s) in first.iter_mut().zip(&weights.sums[tile * width..tile * width + some]) {
            *f = -i32::from(self.zero) * s;
        }
        let mut sums = vec![0i32; PIXELS * width];
        let mut columns = [[0i32; PIXELS]; LANES];
        let mut codes = [T::default(); PIXELS];
        let mut p = 0;
        while p < phase.pixels.len() {
            // What is added lies evenly within a row.
            let room = if finish.adds() { phase.row - p % phase.row } else { phase.pixels.len() - p };
            let n = room.min(PIXELS);
            let pixels = &phase.pixels[p..p + n];
            let sums = &mut sums[..n * width];
            if phase.taps > 0 {
                let offsets = &phase.offsets[p * phase.taps..(p + n) * phase.taps];
                weights.sums_of(Isa::best(), tile, x, phase.taps, offsets, &first, sums);
            } else {
                sums.fill(0);
            }
            for block in (0..some).step_by(LANES) {
                transpose(&sums[block..], width, n, &mut columns);
                for (lane, column) in (block..some).zip(&columns) {
                    let c = tile * width + lane;
                    let at = (mat * self.channels + c) * self.plane + pixels[0] as usize;
                    let place = Place { channel: group * self.channels + c, at, step: self.step };
                    finished(finish, place, &column[..n], &mut codes[..n]);
                    let plane = &mut out[lane * self.plane..(lane + 1) * self.plane];
                    for (pixel, code) in pixels.iter().zip(&codes) {
                        plane[*pixel as usize] = *code;
                    }
                }
            }
            p += n;
        }
    }
}
