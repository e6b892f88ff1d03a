//! What consecutive elements of a frame show: the part of observing that takes time.

use super::frame::{DROPPED, HISTOGRAM, LEAST, MOST, RUN, SIDE, UNBOUNDED};

const INFINITY: u32 = 0x7f80_0000;

/// Counters of the elements of some pieces.
pub(super) type Counts = [u32; HISTOGRAM];

/// Elements that are looked at before their bins are counted.
const BLOCK: usize = 1024;

/// Elements that are looked at side by side, and runs that are added so: an addition waits for the one before it.
const WIDTH: usize = 8;

/// Consecutive elements of a frame, cut into planes from their start.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub frame: usize,
    pub start: usize,
    pub len: usize,
    pub plane: usize,
}

/// What the elements of a piece give.
#[derive(Debug)]
pub(super) struct Part {
    pub frame: usize,
    pub elements: u64,
    pub zeros: u64,
    pub nans: u64,
    pub infinities: u64,
    pub min: f32,
    pub max: f32,
    /// Sum and sum of squares of each run, in order.
    pub runs: Vec<[f32; 2]>,
}

/// What a piece shows, whose elements are `x`; they are counted into `counts`.
pub(super) fn part(piece: Piece, x: &[f32], counts: &mut Counts) -> Part {
    let mut out = Part {
        frame: piece.frame,
        elements: x.len() as u64,
        zeros: 0,
        nans: 0,
        infinities: 0,
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
        runs: Vec::new(),
    };
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt") {
        observe(piece, x, counts, &mut out, avx2::look, avx2::add);
        return out;
    }
    observe(piece, x, counts, &mut out, look, add);
    out
}

/// Bins of the elements of a block that are neither zero nor special, with room for a vector that is written past them.
type Bins = [u32; BLOCK + WIDTH];

/// What a block shows.
struct Seen {
    /// How many bins there are.
    bins: usize,
    /// Whether it has a NaN or an infinity; the other fields are then of no use.
    special: bool,
    min: f32,
    max: f32,
}

/// Eight runs of one length.
type Runs<'a> = [&'a [f32]; WIDTH];

fn observe(
    piece: Piece,
    x: &[f32],
    counts: &mut Counts,
    out: &mut Part,
    look: fn(&[f32], &mut Bins) -> Seen,
    add: fn(&Runs<'_>) -> [[f32; WIDTH]; 2],
) {
    let mut bins = [0; BLOCK + WIDTH];
    for block in x.chunks(BLOCK) {
        let seen = look(block, &mut bins);
        if seen.special {
            count_special(block, out, counts);
            continue;
        }
        for bin in &bins[..seen.bins] {
            counts[*bin as usize] += 1;
        }
        out.zeros += (block.len() - seen.bins) as u64;
        (out.min, out.max) = (out.min.min(seen.min), out.max.max(seen.max));
    }
    // A zero has one sign.
    (out.min, out.max) = (out.min + 0.0, out.max + 0.0);
    run_sums(x, piece.plane, &mut out.runs, add);
}

#[inline]
fn magnitude(x: f32) -> u32 {
    x.to_bits() & i32::MAX.cast_unsigned()
}

/// The bin of a number other than zero.
#[inline]
fn bin(x: f32) -> u32 {
    const BELOW: u32 = LEAST - (1 << DROPPED);
    let side = if x.is_sign_negative() { SIDE as u32 } else { 0 };
    ((magnitude(x).clamp(BELOW, MOST) - BELOW) >> DROPPED) + side
}

/// Looks at a block, without branches on its elements: half of the numbers behind a relu are zero.
fn look(block: &[f32], bins: &mut Bins) -> Seen {
    let mut seen = Seen { bins: 0, special: false, min: f32::INFINITY, max: f32::NEG_INFINITY };
    for x in block {
        bins[seen.bins] = bin(*x);
        seen.bins += usize::from(*x != 0.0);
        seen.special |= magnitude(*x) >= INFINITY;
        (seen.min, seen.max) = (seen.min.min(*x), seen.max.max(*x));
    }
    seen
}

/// Counts a block that has NaNs or infinities.
fn count_special(block: &[f32], out: &mut Part, counts: &mut Counts) {
    for x in block {
        if !x.is_finite() {
            out.nans += u64::from(x.is_nan());
            out.infinities += u64::from(x.is_infinite());
            continue;
        }
        (out.min, out.max) = (out.min.min(*x), out.max.max(*x));
        if *x == 0.0 {
            out.zeros += 1;
        } else {
            counts[bin(*x) as usize] += 1;
        }
    }
}

/// Appends the sums of a piece's runs in order.
fn run_sums(x: &[f32], plane: usize, out: &mut Vec<[f32; 2]>, add: fn(&Runs<'_>) -> [[f32; WIDTH]; 2]) {
    let (full, rest) = (plane / RUN, plane % RUN);
    let per_plane = plane.div_ceil(RUN);
    let planes = x.len() / plane.max(1);
    out.resize(planes * per_plane, [0.0; 2]);
    let mut add_all = |first: usize, len: usize, each: usize| {
        // Runs of one length: `each` of every plane, from run `first` of it on.
        let total = planes * each;
        for at in (0..total).step_by(WIDTH) {
            // Past the end the last run is added once more.
            let place = |i: usize| {
                let i = (at + i).min(total - 1);
                (i / each, first + i % each)
            };
            let runs: Runs<'_> = std::array::from_fn(|i| {
                let (p, r) = place(i);
                &x[p * plane + r * RUN..][..len]
            });
            let [sums, squares] = add(&runs);
            for i in 0..WIDTH {
                let (p, r) = place(i);
                out[p * per_plane + r] = [sums[i], squares[i]];
            }
        }
    };
    if full > 0 {
        add_all(0, RUN, full);
    }
    if rest > 0 {
        add_all(full, rest, 1);
    }
}

/// Sums of eight runs and of their squares, each added from left to right.
fn add(runs: &Runs<'_>) -> [[f32; WIDTH]; 2] {
    let mut sums = [[0.0; WIDTH]; 2];
    add_rest(runs, 0, &mut sums);
    sums
}

/// Goes on with the elements from `from`.
#[inline]
#[allow(clippy::needless_range_loop, reason = "the same places of several lists")]
fn add_rest(runs: &Runs<'_>, from: usize, [sums, squares]: &mut [[f32; WIDTH]; 2]) {
    for j in from..runs[0].len() {
        for i in 0..WIDTH {
            let v = counted(runs[i][j]);
            sums[i] += v;
            squares[i] += v * v;
        }
    }
}

/// The number as moments see it: 0 unless its magnitude is from 2^-40 to below 2^48. By masks, since half of the numbers
/// behind a relu are zero, and a branch on them is mispredicted.
#[inline]
fn counted(x: f32) -> f32 {
    let a = magnitude(x).cast_signed();
    let counts = !((a - LEAST.cast_signed()) >> 31) & ((a - UNBOUNDED.cast_signed()) >> 31);
    f32::from_bits(x.to_bits() & counts.cast_unsigned())
}

/// The same in vectors of eight.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use std::arch::x86_64::*;

    /// As [`super::look`], on a processor with AVX2.
    pub(super) fn look(block: &[f32], bins: &mut Bins) -> Seen {
        #[allow(unsafe_code, reason = "instructions that not every processor of this kind has")]
        // SAFETY: the caller found that this processor has them.
        unsafe {
            look_wide(block, bins)
        }
    }

    /// As [`super::add`], on a processor with AVX2.
    pub(super) fn add(runs: &Runs<'_>) -> [[f32; WIDTH]; 2] {
        #[allow(unsafe_code, reason = "instructions that not every processor of this kind has")]
        // SAFETY: the caller found that this processor has them.
        unsafe {
            add_wide(runs)
        }
    }

    /// For each set of lanes, their numbers in order, one in a byte.
    const LANES_OF: [u64; 256] = {
        let mut out = [0; 256];
        let mut set = 0;
        while set < 256 {
            let (mut lane, mut n) = (0, 0);
            while lane < 8 {
                if set >> lane & 1 == 1 {
                    out[set] |= lane << (8 * n);
                    n += 1;
                }
                lane += 1;
            }
            set += 1;
        }
        out
    };

    #[target_feature(enable = "avx2,popcnt")]
    fn look_wide(block: &[f32], bins: &mut Bins) -> Seen {
        let all = |v: u32| _mm256_set1_epi32(v.cast_signed());
        let (below, most) = (all(LEAST - (1 << DROPPED)), all(MOST));
        let (unsigned, side) = (all(i32::MAX.cast_unsigned()), all(SIDE as u32));
        let mut largest = _mm256_setzero_si256();
        let mut min = _mm256_set1_ps(f32::INFINITY);
        let mut max = _mm256_set1_ps(f32::NEG_INFINITY);
        let mut n = 0;
        let (wide, rest) = block.as_chunks::<WIDTH>();
        for chunk in wide {
            let x: __m256 = bytemuck::cast(*chunk);
            let bits = _mm256_castps_si256(x);
            let a = _mm256_and_si256(bits, unsigned);
            largest = _mm256_max_epi32(largest, a);
            (min, max) = (_mm256_min_ps(x, min), _mm256_max_ps(x, max));
            let clamped = _mm256_min_epi32(_mm256_max_epi32(a, below), most);
            let bin = _mm256_srli_epi32::<{ DROPPED.cast_signed() }>(_mm256_sub_epi32(clamped, below));
            let bin = _mm256_add_epi32(bin, _mm256_and_si256(_mm256_srai_epi32::<31>(bits), side));
            let zero = _mm256_cmpeq_epi32(a, _mm256_setzero_si256());
            // Those that are not zero come first.
            let set = 255 - _mm256_movemask_ps(_mm256_castsi256_ps(zero)).cast_unsigned();
            let lanes = _mm_cvtsi64_si128(LANES_OF[set as usize % 256].cast_signed());
            let packed = _mm256_permutevar8x32_epi32(bin, _mm256_cvtepu8_epi32(lanes));
            bins[n..n + WIDTH].copy_from_slice(&bytemuck::cast::<_, [u32; WIDTH]>(packed));
            n += set.count_ones() as usize;
        }
        let largest = bytemuck::cast::<_, [u32; WIDTH]>(largest).into_iter().max().unwrap_or(0);
        let min = bytemuck::cast::<_, [f32; WIDTH]>(min).into_iter().fold(f32::INFINITY, f32::min);
        let max = bytemuck::cast::<_, [f32; WIDTH]>(max).into_iter().fold(f32::NEG_INFINITY, f32::max);
        let mut seen = Seen { bins: n, special: largest >= INFINITY, min, max };
        for x in rest {
            bins[seen.bins] = bin(*x);
            seen.bins += usize::from(*x != 0.0);
            seen.special |= magnitude(*x) >= INFINITY;
            (seen.min, seen.max) = (seen.min.min(*x), seen.max.max(*x));
        }
        seen
    }

    #[target_feature(enable = "avx2,popcnt")]
    #[allow(clippy::needless_range_loop, reason = "the same places of several lists")]
    fn add_wide(runs: &Runs<'_>) -> [[f32; WIDTH]; 2] {
        let (mut s, mut q) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        // Magnitudes that count, moved to where signed integers begin.
        let least = _mm256_set1_epi32(i32::MIN.wrapping_sub(LEAST.cast_signed()));
        let end = _mm256_set1_epi32(i32::MIN.wrapping_add((UNBOUNDED - LEAST).cast_signed()));
        let unsigned = _mm256_set1_epi32(i32::MAX);
        let len = runs[0].len();
        let chunks: [&[[f32; WIDTH]]; WIDTH] = std::array::from_fn(|i| runs[i][..len].as_chunks().0);
        for j in 0..len / WIDTH {
            let row = |i: usize| {
                let x: __m256 = bytemuck::cast(chunks[i][j]);
                let bits = _mm256_castps_si256(x);
                let moved = _mm256_add_epi32(_mm256_and_si256(bits, unsigned), least);
                _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_cmpgt_epi32(end, moved)))
            };
            let pair = |i: usize| {
                let (a, b) = (row(i), row(i + 1));
                (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
            };
            let four = |i: usize| {
                let ((a, b), (c, d)) = (pair(i), pair(i + 2));
                [
                    _mm256_shuffle_ps::<0x44>(a, c),
                    _mm256_shuffle_ps::<0xee>(a, c),
                    _mm256_shuffle_ps::<0x44>(b, d),
                    _mm256_shuffle_ps::<0xee>(b, d),
                ]
            };
            let (low, high) = (four(0), four(4));
            let mut add = |v: __m256| {
                s = _mm256_add_ps(s, v);
                q = _mm256_add_ps(q, _mm256_mul_ps(v, v));
            };
            for k in 0..4 {
                add(_mm256_permute2f128_ps::<0x20>(low[k], high[k]));
            }
            for k in 0..4 {
                add(_mm256_permute2f128_ps::<0x31>(low[k], high[k]));
            }
        }
        let mut sums = [bytemuck::cast(s), bytemuck::cast(q)];
        add_rest(runs, len / WIDTH * WIDTH, &mut sums);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    #[test]
    fn vectors_show_what_plain_code_shows() {
        let mut rng = Rng::new(6);
        for round in 0..60 {
            let plane = [1, 7, 9, 64, 196, 1100, 5000][round % 7];
            let len = plane * (1 + round % 4);
            let mut x: Vec<f32> =
                (0..len).map(|_| rng.float(-1.0, 1.0) * rng.float(-45.0, 50.0).exp2()).collect();
            x.iter_mut().step_by(1 + round % 5).for_each(|v| *v = v.max(0.0) * -0.0);
            if round % 3 == 0 {
                x[len / 2] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][round / 3 % 3];
            }
            let piece = Piece { frame: 0, start: 0, len, plane };
            let (mut counts, mut plain_counts) = ([0; HISTOGRAM], [0; HISTOGRAM]);
            let got = part(piece, &x, &mut counts);
            let mut want = Part {
                zeros: 0,
                nans: 0,
                infinities: 0,
                runs: Vec::new(),
                ..part(piece, &[], &mut [0; HISTOGRAM])
            };
            observe(piece, &x, &mut plain_counts, &mut want, look, add);
            assert!(counts == plain_counts, "round {round}");
            assert_eq!((got.zeros, got.nans, got.infinities), (want.zeros, want.nans, want.infinities));
            assert_eq!([got.min, got.max].map(f32::to_bits), [want.min, want.max].map(f32::to_bits));
            let bits = |p: &Part| p.runs.iter().map(|r| r.map(f32::to_bits)).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(&want), "round {round}");
        }
    }
}
