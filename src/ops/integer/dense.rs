//! Exact sums of products of 8-bit codes by `vpdpbusd`, which adds four products of u8 and i8 to an i32.
//!
//! Inputs lie pixel by pixel, channels padded to four; weights in blocks of 16 output channels, four inputs side by side.
//! A tile is a few pixels by a few blocks, kept in registers over all taps. Every sum is exact, so nothing depends on
//! tiles or threads.
#![allow(unsafe_code, reason = "vector instructions, behind a test that the processor has them")]

/// Output channels of a block: the lanes of a vector.
pub(in crate::ops) const LANES: usize = 16;

/// Blocks of a tile, at most.
pub(in crate::ops) const BLOCKS: usize = 4;

/// Whether the processor has what this takes.
pub(in crate::ops) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512f") && has!("avx512bw") && has!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

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
    pub fn sums_of(
        &self,
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
        assert!(available());
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the instructions; `offsets` point to runs inside `x`, and `w`, `first` and `out` have
        // the lengths that the tiles walk over, all by the assertions above.
        unsafe {
            match self.blocks {
                1 => vnni::all::<12, 1>(x, taps, offsets, run, w, first, out),
                2 => vnni::all::<12, 2>(x, taps, offsets, run, w, first, out),
                3 => vnni::all::<8, 3>(x, taps, offsets, run, w, first, out),
                _ => vnni::all::<6, 4>(x, taps, offsets, run, w, first, out),
            }
        }
    }
}

/// Planes of `c` channels as pixels of channels, each byte with `flip`: `out[pixel * padded + channel]`.
pub(in crate::ops) fn interleave(planes: &[u8], c: usize, flip: u8, padded: usize, out: &mut [u8]) {
    const RUN: usize = 128;
    let pixels = planes.len().checked_div(c).unwrap_or(0);
    for p0 in (0..pixels).step_by(RUN) {
        let n = RUN.min(pixels - p0);
        let out = &mut out[p0 * padded..(p0 + n) * padded];
        for first in (0..c).step_by(4) {
            let plane = |i: usize| &planes[(first + i).min(c - 1) * pixels + p0..][..n];
            let (a, b, d, e) = (plane(0), plane(1), plane(2), plane(3));
            for (p, out) in out.chunks_exact_mut(padded).enumerate() {
                let four = [a[p] ^ flip, b[p] ^ flip, d[p] ^ flip, e[p] ^ flip];
                out[first..first + 4].copy_from_slice(&four);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::LANES;
    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512,
    };

    /// All pixels, `P` at a time; what is left over is computed with the last pixel repeated.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn all<const P: usize, const B: usize>(
        x: &[u8],
        taps: usize,
        offsets: &[u32],
        run: usize,
        w: &[i8],
        first: &[i32],
        out: &mut [i32],
    ) {
        let pixels = offsets.len() / taps;
        for p0 in (0..pixels).step_by(P) {
            let rows: [&[u32]; P] = std::array::from_fn(|i| {
                let p = (p0 + i).min(pixels - 1);
                &offsets[p * taps..(p + 1) * taps]
            });
            // SAFETY: as for this function.
            let sums = unsafe { tile::<P, B>(x, taps, rows, run, w, first) };
            for (i, sums) in sums.iter().enumerate().take(pixels - p0) {
                let out = &mut out[(p0 + i) * B * LANES..][..B * LANES];
                for (b, sum) in sums.iter().enumerate() {
                    // SAFETY: a block of `out`, which is inside by the slicing above.
                    unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(b * LANES).cast(), *sum) };
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "one tap of all rows")]
    unsafe fn tile<const P: usize, const B: usize>(
        x: &[u8],
        taps: usize,
        rows: [&[u32]; P],
        run: usize,
        w: &[i8],
        first: &[i32],
    ) -> [[__m512i; B]; P] {
        // SAFETY: `first` has B blocks; a row's offsets begin runs inside `x`; `w` has B blocks of four bytes a lane for
        // each step of each tap.
        unsafe {
            let start: [__m512i; B] =
                std::array::from_fn(|b| _mm512_loadu_si512(first.as_ptr().add(b * LANES).cast()));
            let mut sums = [start; P];
            let mut w = w.as_ptr();
            for tap in 0..taps {
                let at: [*const u8; P] = std::array::from_fn(|p| x.as_ptr().add(rows[p][tap] as usize));
                for k in (0..run).step_by(4) {
                    let weights: [__m512i; B] =
                        std::array::from_fn(|b| _mm512_loadu_si512(w.add(b * LANES * 4).cast()));
                    w = w.add(B * LANES * 4);
                    for p in 0..P {
                        let four = _mm512_set1_epi32(at[p].add(k).cast::<i32>().read_unaligned());
                        for b in 0..B {
                            sums[p][b] = _mm512_dpbusd_epi32(sums[p][b], four, weights[b]);
                        }
                    }
                }
            }
            sums
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    #[test]
    fn sums_are_those_of_the_products() {
        if !available() {
            return;
        }
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
            let x: Vec<u8> = (0..places * padded).map(|_| rng.code(0, 255).try_into().unwrap()).collect();
            let w: Vec<i8> =
                (0..channels * taps * inputs).map(|_| rng.code(-128, 127).try_into().unwrap()).collect();
            let at = |o: usize, t: usize, i: usize| w[(o * taps + t) * inputs + i];
            let packed = Weights::pack(channels, taps, inputs, blocks, at);
            let offsets: Vec<u32> =
                (0..pixels * taps).map(|_| u32::try_from(rng.int(0, places - 1) * padded).unwrap()).collect();
            let width = packed.width();
            for tile in 0..channels.div_ceil(width) {
                let first: Vec<i32> = (0..width).map(|_| rng.code(-1000, 1000)).collect();
                let mut out = vec![0; pixels * width];
                packed.sums_of(tile, &x, taps, &offsets, &first, &mut out);
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
