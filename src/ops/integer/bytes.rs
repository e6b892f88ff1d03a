//! Convolutions and matrix products of 8-bit codes: the inputs brought side by side, sums by [`super::dense`], what becomes of them by [`Finish`].
#![allow(
    unsafe_code,
    reason = "one function compiled for vectors, behind a test that the processor has them"
)]

use super::dense::{LANES, Weights};
use super::isa::{Isa, Work};
use super::sums::{Element, Fill, Finish, Sum};
use crate::graph::{CodeParams, Scratch};
use crate::quant::QParams;
use crate::tensor::{Data, Tensor};
use rayon::prelude::*;

/// Pixels whose sums are kept before they are finished.
pub(in crate::ops) const PIXELS: usize = 96; // a multiple of LANES

/// A tensor of 8-bit codes as bytes, the code of zero, and what makes them unsigned by exclusive or.
pub(in crate::ops) struct Input<'a> {
    /// The codes.
    pub bytes: &'a [u8],
    /// What changes i8 to u8 of 128 more.
    pub flip: u8,
    /// The zero point of the unsigned codes.
    pub zero: u8,
}

impl<'a> Input<'a> {
    /// `None` for codes of other types.
    pub fn new(params: Option<&QParams>, x: &'a Tensor) -> Option<Input<'a>> {
        let flip = match x.data() {
            Data::I8(_) | Data::I4(_) => 0x80,
            Data::U8(_) | Data::U4(_) => 0,
            _ => return None,
        };
        let [zero] = params?.zero_points() else { return None };
        Some(Input { bytes: x.bytes(), flip, zero: zero.to_le_bytes()[0] ^ flip })
    }
}

/// Weights of i8 without zero points.
pub(in crate::ops) fn symmetric<'a>(params: &CodeParams, w: &'a Tensor) -> Option<&'a [i8]> {
    let p = params.inputs.get(1)?.as_ref()?;
    match w.data() {
        Data::I8(v) | Data::I4(v) if p.zero_points().iter().all(|z| *z == 0) => Some(v),
        _ => None,
    }
}

/// Whether 32 bits hold the sums.
pub(in crate::ops) fn suits(params: &CodeParams) -> bool {
    params.bound <= i32::MAX.unsigned_abs().into()
}

/// How many blocks of channels a tile should have, so that there is work for all threads.
pub(in crate::ops) fn blocks(channels: usize, others: usize) -> usize {
    let all = channels.div_ceil(LANES);
    let wanted = rayon::current_num_threads().div_ceil(others.max(1));
    all.div_ceil(wanted).clamp(1, super::dense::BLOCKS)
}

/// Which of an output's axes changes fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Order {
    /// `[channel, pixel]`.
    Planes,
    /// `[pixel, channel]`.
    Rows,
}

/// Several products of one size.
pub(in crate::ops) struct Bytes<'a> {
    /// Inputs pixel by pixel, channels padded, of each product.
    pub x: &'a [u8],
    /// Bytes of `x` of each product.
    pub stride: usize,
    /// The code of zero.
    pub zero: u8,
    /// Weights of product i: those at i modulo their number.
    pub weights: &'a [Weights],
    /// Where the inputs of each tap of each pixel begin within those of a product.
    pub offsets: &'a [u32],
    /// Taps of a pixel.
    pub taps: usize,
    /// How an output lies.
    pub order: Order,
}

impl Fill for Bytes<'_> {
    fn run<T: Element>(&self, cx: &Scratch, finish: &Finish) -> Vec<T> {
        let pixels = self.offsets.len() / self.taps;
        let channels = self.weights[0].channels;
        let mats = self.x.len() / self.stride;
        let mut out = T::take(cx, mats * pixels * channels);
        if out.is_empty() {
            return out;
        }
        let each = out.par_chunks_mut(pixels * channels).enumerate();
        each.for_each(|(mat, out)| match self.order {
            Order::Planes => {
                let tile = self.weights[mat % self.weights.len()].width();
                let tiles = out.par_chunks_mut(tile * pixels).enumerate();
                tiles.for_each(|(t, out)| self.tile(finish, mat, t, 0, pixels, out));
            }
            Order::Rows => {
                let rows = out.par_chunks_mut(PIXELS * channels).enumerate();
                rows.for_each(|(r, out)| {
                    let (first, n) = (r * PIXELS, out.len() / channels);
                    let width = self.weights[mat % self.weights.len()].width();
                    let mut columns = vec![T::default(); width * n];
                    for t in 0..channels.div_ceil(width) {
                        let some = width.min(channels - t * width);
                        self.tile(finish, mat, t, first, n, &mut columns[..some * n]);
                        for (i, row) in out.chunks_exact_mut(channels).enumerate() {
                            for (c, o) in row[t * width..t * width + some].iter_mut().enumerate() {
                                *o = columns[c * n + i];
                            }
                        }
                    }
                });
            }
        });
        out
    }
}

impl Bytes<'_> {
    /// Tile `t` of the channels of product `mat` at `n` pixels from `p0` on: `out[channel][pixel]`.
    fn tile<T: Element>(&self, finish: &Finish, mat: usize, t: usize, p0: usize, n: usize, out: &mut [T]) {
        let weights = &self.weights[mat % self.weights.len()];
        let (width, channels, pixels) = (weights.width(), weights.channels, self.offsets.len() / self.taps);
        let x = &self.x[mat * self.stride..(mat + 1) * self.stride];
        let some = width.min(channels - t * width);
        let isa = Isa::best();
        let mut first = vec![0i32; width];
        for (f, s) in first.iter_mut().zip(&weights.sums[t * width..t * width + some]) {
            *f = -i32::from(self.zero) * s;
        }
        let mut sums = vec![0i32; PIXELS.min(n) * width];
        for p in (0..n).step_by(PIXELS) {
            let run = PIXELS.min(n - p);
            let offsets = &self.offsets[(p0 + p) * self.taps..(p0 + p + run) * self.taps];
            let sums = &mut sums[..run * width];
            weights.sums_of(isa, t, x, self.taps, offsets, &first, sums);
            for block in (0..some).step_by(LANES) {
                let mut columns = [[0i32; PIXELS]; LANES];
                transpose(&sums[block..], width, run, &mut columns);
                for (lane, column) in columns.iter().enumerate().take(some - block) {
                    let lane = block + lane;
                    let c = t * width + lane;
                    let (at, step) = match self.order {
                        Order::Planes => ((mat * channels + c) * pixels + p0 + p, 1),
                        Order::Rows => ((mat * pixels + p0 + p) * channels + c, channels),
                    };
                    let channel = match self.order {
                        Order::Planes => mat % self.weights.len() * channels + c,
                        Order::Rows => c,
                    };
                    let place = Place { channel, at, step };
                    finished(finish, place, &column[..run], &mut out[lane * n + p..lane * n + p + run]);
                }
            }
        }
    }
}

/// Which elements of an output a run of sums becomes.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Place {
    /// Their channel.
    pub channel: usize,
    /// Index of the first of them.
    pub at: usize,
    /// How far apart they are.
    pub step: usize,
}

/// Sums of `run` pixels by the lanes of a block as lanes of pixels.
pub(in crate::ops) fn transpose(
    sums: &[i32],
    width: usize,
    run: usize,
    columns: &mut [[i32; PIXELS]; LANES],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the instructions.
        unsafe { avx512::transpose(sums, width, run, columns) };
        return;
    }
    for (p, row) in sums.chunks(width).enumerate().take(run) {
        for (column, s) in columns.iter_mut().zip(row) {
            column[p] = *s;
        }
    }
}

/// [`Element::row`], compiled for the processor.
pub(in crate::ops) fn finished<S: Sum, T: Element>(finish: &Finish, place: Place, sums: &[S], out: &mut [T]) {
    Isa::best().run(Row { finish, place, sums, out });
}

struct Row<'a, S, T> {
    finish: &'a Finish,
    place: Place,
    sums: &'a [S],
    out: &'a mut [T],
}

impl<S: Sum, T: Element> Work for Row<'_, S, T> {
    #[inline(always)]
    fn run(self) {
        T::row(self.finish, self.place, self.sums, self.out);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{LANES, PIXELS};
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32,
        _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };

    /// Blocks of 16 pixels; the rows behind the last pixel are those of the last one.
    #[target_feature(enable = "avx512f")]
    pub(super) fn transpose(sums: &[i32], width: usize, run: usize, columns: &mut [[i32; PIXELS]; LANES]) {
        for p0 in (0..run).step_by(LANES) {
            let row = |i: usize| {
                let at = &sums[(p0 + i).min(run - 1) * width..][..LANES];
                // SAFETY: 16 numbers, by the slicing.
                unsafe { _mm512_loadu_si512(at.as_ptr().cast()) }
            };
            let done = square(std::array::from_fn(row));
            for (column, v) in columns.iter_mut().zip(done) {
                let to = &mut column[p0..p0 + LANES];
                // SAFETY: 16 numbers, by the slicing.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) };
            }
        }
    }

    /// Rows as columns: pairs, then fours within quarters of vectors, then the quarters.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn square(r: [__m512i; LANES]) -> [__m512i; LANES] {
        let mut a = r;
        for i in (0..LANES).step_by(2) {
            a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
            a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        }
        let mut b = a;
        for i in (0..LANES).step_by(4) {
            b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        // b[4 * g + j] has, in quarter q, column 4 * q + j of rows 4 * g to 4 * g + 3.
        let mut out = b;
        for j in 0..4 {
            let [e, f, g, h] = [b[j], b[4 + j], b[8 + j], b[12 + j]];
            let (low, high) = (_mm512_shuffle_i32x4::<0x88>(e, f), _mm512_shuffle_i32x4::<0xdd>(e, f));
            let (low2, high2) = (_mm512_shuffle_i32x4::<0x88>(g, h), _mm512_shuffle_i32x4::<0xdd>(g, h));
            out[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
            out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
            out[4 + j] = _mm512_shuffle_i32x4::<0x88>(high, high2);
            out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::CodeOutput;
    use crate::graph::sample::Rng;
    use crate::quant::{Adder, Arithmetic, Requantize, Requantizer, Rounding};
    use crate::tensor::DType;

    const CHANNELS: usize = 3;
    const PIXELS: usize = 77;

    fn params(requantize: Requantize, rounding: Rounding, added: bool, output: QParams) -> CodeParams {
        let x = QParams::per_tensor(DType::U8, 0.03, 128).unwrap();
        // Shifts that are small, usual, and beyond 32 bits.
        let w = QParams::new(DType::I8, false, vec![0.9, 1e-4, 1e-11], vec![0; CHANNELS], Some(0)).unwrap();
        CodeParams {
            inputs: vec![Some(x), Some(w), None],
            output: CodeOutput::codes(output),
            internals: Vec::new(),
            addend: added.then(|| QParams::per_tensor(DType::I8, 0.7, -128).unwrap()),
            bound: 1 << 30,
            arithmetic: Arithmetic { requantize, rounding, ..Arithmetic::default() },
        }
    }

    /// Against the rules of [`crate::quant`], element by element.
    #[test]
    fn sums_become_the_same_codes_with_any_instructions() {
        let mut rng = Rng::new(12);
        let draw = |rng: &mut Rng, most: i32| {
            let any = rng.code(-most, most);
            rng.pick(&[-most, most, any % 1000, any])
        };
        for (requantize, added) in [
            (Requantize::Fixed, false),
            (Requantize::Fixed, true),
            (Requantize::DoublingAway, false),
            (Requantize::DoublingUp, false),
            (Requantize::Float, false),
        ] {
            for rounding in Rounding::ALL {
                for (dtype, zero) in [(DType::I8, 5), (DType::I8, -128), (DType::I8, 127)] {
                    let p =
                        params(requantize, rounding, added, QParams::per_tensor(dtype, 0.5, zero).unwrap());
                    let bias: Vec<i32> = (0..CHANNELS).map(|_| draw(&mut rng, 1 << 20)).collect();
                    let addend: Vec<i8> =
                        (0..CHANNELS * PIXELS).map(|_| i8::try_from(draw(&mut rng, 127)).unwrap()).collect();
                    let sums: Vec<i32> = (0..CHANNELS * PIXELS).map(|_| draw(&mut rng, 1 << 30)).collect();
                    let shape = [1, CHANNELS, PIXELS];
                    let mut inputs = vec![Tensor::zeros(DType::U8, [1]), Tensor::zeros(DType::I8, [1])];
                    inputs.push(Tensor::from_i32([CHANNELS], bias.clone()));
                    if added {
                        inputs.push(Tensor::from_i8(shape, addend.clone()));
                    }
                    let finish = Finish::new(&p, &inputs, &shape, 1).unwrap();
                    let (x, y) = (p.input(0).unwrap(), p.output().unwrap());
                    let scales = p.inputs[1].as_ref().unwrap().scales();
                    let one = |channel: usize, at: usize| {
                        let sum = i64::from(sums[at]) + i64::from(bias[channel]);
                        match &p.addend {
                            Some(a) => {
                                let a = a.step(0);
                                let adder = Adder::new(rounding, x.scale(), scales, p.bound, &a, y);
                                adder.apply(channel, sum, a.steps(addend[at].into()))
                            }
                            None => {
                                let r = Requantizer::new(requantize, rounding, x.scale(), scales, y);
                                r.unwrap().apply(channel, sum)
                            }
                        }
                    };
                    for channel in 0..CHANNELS {
                        let at = channel * PIXELS;
                        let want: Vec<i32> = (at..at + PIXELS).map(|i| one(channel, i)).collect();
                        for isa in Isa::all() {
                            let mut out = [0i8; PIXELS];
                            let place = Place { channel, at, step: 1 };
                            let sums = &sums[at..at + PIXELS];
                            isa.run(Row { finish: &finish, place, sums, out: &mut out });
                            let got = out.map(i32::from);
                            assert_eq!(
                                got[..],
                                want,
                                "{requantize} {rounding} {added} {zero} {channel} {isa:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
