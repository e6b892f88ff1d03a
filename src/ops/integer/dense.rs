//! Exact sums of products of 8-bit codes, four products of u8 and i8 at once in each lane of a vector.
//!
//! Inputs lie pixel by pixel, channels padded to four; weights in blocks of 16 output channels, four inputs side by side.
//! A tile is a few pixels by a few blocks, kept in registers over all taps. Every sum is exact, so nothing depends on
//! tiles, threads or the processor.
#![allow(unsafe_code, reason = "vectors at the pointers that the assertions vouch for")]

use super::isa::{Isa, Kind, Work};
#[cfg(target_arch = "aarch64")]
use super::lanes::Neon;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Vnni};
use super::lanes::{Lanes, Scalar};
use std::marker::PhantomData;

/// Output channels of a block.
pub(in crate::ops) const LANES: usize = 16;

/// Blocks of a tile, at most.
pub(in crate::ops) const BLOCKS: usize = 4;

/// Weights in the order in which tiles take them: tiles of blocks, then taps, inputs by four, blocks.
#[derive(Debug)]
pub(in crate::ops) struct Weights {
    data: Vec<i8>,
    /// Output channels.
    pub channels: usize,
    /// Blocks of a tile.
    blocks: usize,
    /// Taps times inputs by four.
    steps: usize,
    /// Sums over all inputs, of each output channel.
    pub sums: Vec<i32>,
}

/// Inputs by four.
pub(in crate::ops) fn quads(inputs: usize) -> usize {
    inputs.div_ceil(4)
}

impl Weights {
    /// Packs weights of which `at(channel, tap, input)` is one.
    pub fn pack(
        channels: usize,
        taps: usize,
        inputs: usize,
        blocks: usize,
        at: impl Fn(usize, usize, usize) -> i8,
    ) -> Weights {
        let blocks = blocks.clamp(1, BLOCKS);
        let (quads, width) = (quads(inputs), blocks * LANES);
        let steps = taps * quads;
        let mut data = vec![0i8; channels.div_ceil(width) * steps * width * 4];
        let mut sums = vec![0i32; channels];
        for (o, sum) in sums.iter_mut().enumerate() {
            let (tile, lane) = (o / width, o % width);
            for tap in 0..taps {
                for i in 0..inputs {
                    let w = at(o, tap, i);
                    *sum += i32::from(w);
                    let step = tap * quads + i / 4;
                    data[((tile * steps + step) * width + lane) * 4 + i % 4] = w;
                }
            }
        }
        Weights { data, channels, blocks, steps, sums }
    }

    /// Output channels of a tile.
    pub fn width(&self) -> usize {
        self.blocks * LANES
    }

    /// The sums of tile `tile` of output channels at pixels, each given by where the inputs of its taps begin in `x`:
    /// `out[pixel][lane]`, from `first[lane]` on.
    ///
    /// # Panics
    /// Slices whose lengths do not belong together.
    #[allow(clippy::too_many_arguments, reason = "what a product is made of")]
    pub fn sums_of(
        &self,
        isa: Isa,
        tile: usize,
        x: &[u8],
        taps: usize,
        offsets: &[u32],
        first: &[i32],
        out: &mut [i32],
    ) {
        let (width, pixels) = (self.width(), offsets.len() / taps);
        assert_eq!(out.len(), pixels * width);
        assert_eq!(first.len(), width);
        assert!(self.steps.is_multiple_of(taps));
        let run = self.steps / taps * 4;
        let last = offsets.iter().max().map_or(0, |o| *o as usize + run);
        assert!(last <= x.len());
        let of_tile = self.steps * width * 4;
        let w = &self.data[tile * of_tile..(tile + 1) * of_tile];
        let all = All { x, taps, offsets, run, w, width, first, out };
        // As many sums as the registers hold beside their operands.
        match isa.kind() {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => match self.blocks {
                1 => isa.run(Tiles::<Vnni, 12, 1>::of(all)),
                2 => isa.run(Tiles::<Vnni, 12, 2>::of(all)),
                3 => isa.run(Tiles::<Vnni, 8, 3>::of(all)),
                _ => isa.run(Tiles::<Vnni, 6, 4>::of(all)),
            },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => isa.run(Tiles::<Avx2, 4, 2>::of(all)),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => isa.run(Tiles::<Neon, 4, 4>::of(all)),
            Kind::Scalar => isa.run(Tiles::<Scalar, 1, 4>::of(all)),
        }
    }
}

/// What [`Weights::sums_of`] has checked.
struct All<'a> {
    x: &'a [u8],
    taps: usize,
    offsets: &'a [u32],
    /// Bytes of a tap.
    run: usize,
    w: &'a [i8],
    width: usize,
    first: &'a [i32],
    out: &'a mut [i32],
}

/// All pixels, `P` at a time by `V` vectors of lanes; what is left over is computed with the last pixel repeated.
struct Tiles<'a, L, const P: usize, const V: usize>(All<'a>, PhantomData<L>);

impl<'a, L: Lanes, const P: usize, const V: usize> Tiles<'a, L, P, V> {
    fn of(all: All<'a>) -> Self {
        Tiles(all, PhantomData)
    }
}

impl<L: Lanes, const P: usize, const V: usize> Work for Tiles<'_, L, P, V> {
    #[inline(always)]
    fn run(self) {
        let All { taps, offsets, width, out, .. } = self.0;
        let pixels = offsets.len() / taps;
        let lanes = V * L::LANES;
        assert!(width.is_multiple_of(lanes));
        for p0 in (0..pixels).step_by(P) {
            let rows: [&[u32]; P] = std::array::from_fn(|i| {
                let p = (p0 + i).min(pixels - 1);
                &offsets[p * taps..(p + 1) * taps]
            });
            for lane in (0..width).step_by(lanes) {
                let all = All { out: &mut [], ..self.0 };
                // SAFETY: the lengths belong together, and the lanes are within the width.
                let sums = unsafe { tile::<L, P, V>(&all, rows, lane) };
                for (i, sums) in sums.iter().enumerate().take(pixels - p0) {
                    let out = &mut out[(p0 + i) * width + lane..][..lanes];
                    for (v, sum) in sums.iter().enumerate() {
                        // SAFETY: a vector of `out`, which is inside by the slicing above.
                        unsafe { L::store(*sum, out.as_mut_ptr().add(v * L::LANES)) };
                    }
                }
            }
        }
    }
}

/// The sums of `P` pixels in `V` vectors from `lane` on.
///
/// # Safety
/// `first` and every step of `w` have these lanes; offsets begin runs inside `x`; the processor has the instructions.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "one tap of all rows")]
unsafe fn tile<L: Lanes, const P: usize, const V: usize>(
    all: &All,
    rows: [&[u32]; P],
    lane: usize,
) -> [[L::Sums; V]; P] {
    // SAFETY: by the caller.
    unsafe {
        let start: [L::Sums; V] =
            std::array::from_fn(|v| L::load(all.first.as_ptr().add(lane + v * L::LANES)));
        let mut sums = [start; P];
        let mut w = all.w.as_ptr().add(lane * 4);
        for tap in 0..all.taps {
            let at: [*const u8; P] = std::array::from_fn(|p| all.x.as_ptr().add(rows[p][tap] as usize));
            for k in (0..all.run).step_by(4) {
                let weights: [L::Weights; V] =
                    std::array::from_fn(|v| L::weights(w.wrapping_add(v * L::LANES * 4)));
                // Behind the last step it points behind the weights, and is not read.
                w = w.wrapping_add(all.width * 4);
                for p in 0..P {
                    let four = L::inputs(at[p].add(k));
                    for v in 0..V {
                        sums[p][v] = L::add(sums[p][v], four, weights[v]);
                    }
                }
            }
        }
        sums
    }
}

/// Planes of `c` channels as pixels of channels, each byte with `flip`: `out[pixel * padded + channel]`.
pub(in crate::ops) fn interleave(planes: &[u8], c: usize, flip: u8, padded: usize, out: &mut [u8]) {
    Isa::best().run(Interleave { planes, c, flip, padded, out });
}

struct Interleave<'a> {
    planes: &'a [u8],
    c: usize,
    flip: u8,
    padded: usize,
    out: &'a mut [u8],
}

impl Work for Interleave<'_> {
    /// Runs of pixels, whose lines stay in the cache; four channels at once, as numbers of 32 bits.
    #[inline(always)]
    fn run(self) {
        const RUN: usize = 128;
        const LANES: usize = 16;
        let Interleave { planes, c, padded, out, .. } = self;
        let flip = u32::from_ne_bytes([self.flip; 4]);
        let four = |v: [u8; 4]| u32::from_le_bytes(v) ^ flip;
        let pixels = planes.len().checked_div(c).unwrap_or(0);
        for p0 in (0..pixels).step_by(RUN) {
            let n = RUN.min(pixels - p0);
            let out = &mut out[p0 * padded..(p0 + n) * padded];
            for first in (0..c).step_by(4) {
                let plane = |i: usize| &planes[(first + i).min(c - 1) * pixels + p0..][..n];
                let all = [plane(0), plane(1), plane(2), plane(3)];
                let whole = n / LANES * LANES;
                for p in (0..whole).step_by(LANES) {
                    let [a, b, d, e] = all.map(|plane| &plane[p..p + LANES]);
                    let mut lanes = [0u32; LANES];
                    for (i, lane) in lanes.iter_mut().enumerate() {
                        *lane = four([a[i], b[i], d[i], e[i]]);
                    }
                    let out = out[p * padded..(p + LANES) * padded].chunks_exact_mut(padded);
                    for (out, lane) in out.zip(lanes) {
                        out[first..first + 4].copy_from_slice(&lane.to_le_bytes());
                    }
                }
                for p in whole..n {
                    let lane = four(all.map(|plane| plane[p]));
                    out[p * padded + first..][..4].copy_from_slice(&lane.to_le_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    #[test]
    fn sums_are_those_of_the_products_with_any_instructions() {
        let mut rng = Rng::new(9);
        for (channels, taps, inputs, blocks, pixels) in [
            (1, 1, 1, 1, 1),
            (16, 9, 3, 1, 13),
            (40, 4, 17, 3, 25),
            (64, 1, 64, 4, 6),
            (130, 9, 30, 4, 41),
            (33, 2, 8, 2, 30),
        ] {
            let padded = quads(inputs) * 4;
            let places = pixels * taps + 3;
            // Half of the codes are extreme, whose products saturate where they are added in 16 bits.
            let code = |rng: &mut Rng, low: i32, high: i32| {
                let any = rng.code(low, high);
                rng.pick(&[low, high, any, any])
            };
            let x: Vec<u8> =
                (0..places * padded).map(|_| code(&mut rng, 0, 255).try_into().unwrap()).collect();
            let w: Vec<i8> = (0..channels * taps * inputs)
                .map(|_| code(&mut rng, -128, 127).try_into().unwrap())
                .collect();
            let at = |o: usize, t: usize, i: usize| w[(o * taps + t) * inputs + i];
            let packed = Weights::pack(channels, taps, inputs, blocks, at);
            let offsets: Vec<u32> =
                (0..pixels * taps).map(|_| u32::try_from(rng.int(0, places - 1) * padded).unwrap()).collect();
            let width = packed.width();
            for tile in 0..channels.div_ceil(width) {
                let first: Vec<i32> = (0..width).map(|_| rng.code(-1000, 1000)).collect();
                let sums = |isa: Isa| {
                    let mut out = vec![0; pixels * width];
                    packed.sums_of(isa, tile, &x, taps, &offsets, &first, &mut out);
                    out
                };
                let out = sums(Isa::all()[0]);
                for p in 0..pixels {
                    for lane in 0..width.min(channels - tile * width) {
                        let o = tile * width + lane;
                        let mut sum = first[lane];
                        for t in 0..taps {
                            for i in 0..inputs {
                                let x = x[offsets[p * taps + t] as usize + i];
                                sum += i32::from(x) * i32::from(at(o, t, i));
                            }
                        }
                        assert_eq!(out[p * width + lane], sum, "{channels} {taps} {inputs}: {p} {o}");
                    }
                }
                for isa in Isa::all() {
                    assert_eq!(sums(isa), out, "{channels} {taps} {inputs} {isa:?}");
                }
            }
        }
    }

    #[test]
    fn planes_become_pixels() {
        for (c, pixels) in [(1, 5), (3, 200), (4, 129), (9, 1)] {
            let planes: Vec<u8> = (0..c * pixels).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let padded = quads(c) * 4;
            let mut out = vec![0; pixels * padded];
            interleave(&planes, c, 0x80, padded, &mut out);
            for p in 0..pixels {
                for i in 0..c {
                    assert_eq!(out[p * padded + i], planes[i * pixels + p] ^ 0x80);
                }
            }
        }
    }
}
