//! What consecutive elements of a frame show: the part of observing that takes time, in loops that become vector code.

use super::frame::{DROPPED, HISTOGRAM, LEAST, MOST, RUN, SIDE, UNBOUNDED};

const INFINITY: u32 = 0x7f80_0000;

/// Counters for what has no bin (zeros, NaN, infinities). Several, since an addition must wait for the one before it
/// on the same counter.
const ASIDE: usize = WIDTH;
/// A power of two, so that an index needs no check.
pub(super) const COUNTERS: usize = 1 << 14;
const _: () = assert!(HISTOGRAM + ASIDE <= COUNTERS);

/// Elements whose indices are computed at once.
const BLOCK: usize = 1024;

/// Consecutive elements of a frame, cut into planes from their start.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub frame: usize,
    pub start: usize,
    pub len: usize,
    pub plane: usize,
}

/// What the elements of a piece give.
pub(super) struct Part {
    pub frame: usize,
    pub zeros: u64,
    pub nans: u64,
    pub infinities: u64,
    pub min: f32,
    pub max: f32,
    /// Sum and sum of squares of each run, in order.
    pub runs: Vec<[f32; 2]>,
}

/// What a piece shows, whose elements are `x`; they are counted into [`COUNTERS`] counters.
pub(super) fn part(piece: Piece, x: &[f32], counts: &mut [u32]) -> Part {
    let mut out = Part {
        frame: piece.frame,
        zeros: 0,
        nans: 0,
        infinities: 0,
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
        runs: Vec::new(),
    };
    x.chunks(BLOCK).for_each(|block| count(block, &mut out, counts));
    // A zero has one sign.
    (out.min, out.max) = (out.min + 0.0, out.max + 0.0);
    run_sums(x, piece.plane, &mut out.runs);
    out
}

#[inline]
fn magnitude(x: f32) -> u32 {
    x.to_bits() & i32::MAX.cast_unsigned()
}

/// Elements that are looked at side by side, so that the compiler uses vector instructions.
const WIDTH: usize = 8;

/// What a block shows, a part of it in each lane.
struct Lanes {
    zeros: [i32; WIDTH],
    special: [i32; WIDTH],
    /// Bits of numbers, as integers ordered as they are.
    min: [i32; WIDTH],
    max: [i32; WIDTH],
}

impl Lanes {
    /// Looks at an element; gives the index of its counter. No branches, and masks that no compiler turns into them.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a loop over a call is not vectorised")]
    fn look(&mut self, lane: usize, x: f32) -> u32 {
        const BELOW: i32 = (LEAST - (1 << DROPPED)).cast_signed();
        const SIGN: i32 = SIDE as i32;
        const NONE: i32 = HISTOGRAM as i32;
        let bits = x.to_bits().cast_signed();
        let (a, sign) = (bits & i32::MAX, bits >> 31);
        let clamped = if a > BELOW { a } else { BELOW };
        let clamped = if clamped < MOST.cast_signed() { clamped } else { MOST.cast_signed() };
        let bin = ((clamped - BELOW) >> DROPPED) + (sign & SIGN);
        let (zero, special) = (i32::from(a == 0), i32::from(a >= INFINITY.cast_signed()));
        self.zeros[lane] += zero;
        self.special[lane] += special;
        let key = bits ^ (sign & i32::MAX);
        self.min[lane] = if key < self.min[lane] { key } else { self.min[lane] };
        self.max[lane] = if key > self.max[lane] { key } else { self.max[lane] };
        let aside = -(zero | special);
        ((bin & !aside) | ((NONE + lane as i32) & aside)).cast_unsigned()
    }
}

/// Counts a block.
fn count(block: &[f32], out: &mut Part, counts: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(block: &[f32], out: &mut Part, counts: &mut [u32]) {
            count_with(block, out, counts);
        }
        #[allow(unsafe_code, reason = "vectors of eight, which not every processor of this kind has")]
        // SAFETY: this processor has AVX2, and the function asks for nothing else.
        return unsafe { wide(block, out, counts) };
    }
    count_with(block, out, counts);
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled once for each kind of processor")]
fn count_with(block: &[f32], out: &mut Part, counts: &mut [u32]) {
    let mut index = [0u32; BLOCK];
    let mut lanes =
        Lanes { zeros: [0; WIDTH], special: [0; WIDTH], min: [i32::MAX; WIDTH], max: [i32::MIN; WIDTH] };
    let (wide, rest) = block.as_chunks::<WIDTH>();
    let (places, last) = index.as_chunks_mut::<WIDTH>();
    for (xs, at) in wide.iter().zip(&mut *places) {
        for lane in 0..WIDTH {
            at[lane] = lanes.look(lane, xs[lane]);
        }
    }
    debug_assert!(last.is_empty(), "a block is a multiple of the width");
    for (lane, x) in rest.iter().enumerate() {
        places[wide.len()][lane] = lanes.look(lane, *x);
    }
    for at in &index[..block.len()] {
        counts[*at as usize % COUNTERS] += 1;
    }
    let sum = |all: [i32; WIDTH]| u64::from(all.iter().sum::<i32>().cast_unsigned());
    out.zeros += sum(lanes.zeros);
    if sum(lanes.special) == 0 {
        let number = |key: i32| f32::from_bits((key ^ ((key >> 31) & i32::MAX)).cast_unsigned());
        out.min = lanes.min.iter().fold(out.min, |m, key| m.min(number(*key)));
        out.max = lanes.max.iter().fold(out.max, |m, key| m.max(number(*key)));
        return;
    }
    for x in block {
        if x.is_finite() {
            (out.min, out.max) = (out.min.min(*x), out.max.max(*x));
        } else {
            out.nans += u64::from(x.is_nan());
            out.infinities += u64::from(x.is_infinite());
        }
    }
}

/// Appends the sums of a piece's runs in order.
#[allow(clippy::needless_range_loop, reason = "the same places of several lists")]
fn run_sums(x: &[f32], plane: usize, out: &mut Vec<[f32; 2]>) {
    /// Runs that are added side by side, because an addition waits for the one before it.
    const SIDE_BY_SIDE: usize = 8;
    let (full, rest) = (plane / RUN, plane % RUN);
    let per_plane = plane.div_ceil(RUN);
    let planes = x.len() / plane.max(1);
    out.resize(planes * per_plane, [0.0; 2]);
    let mut add = |first: usize, len: usize, each: usize| {
        // Runs of one length: `each` of every plane, from run `first` of it on.
        let total = planes * each;
        for at in (0..total).step_by(SIDE_BY_SIDE) {
            // Past the end the last run is added once more.
            let place = |i: usize| {
                let i = (at + i).min(total - 1);
                (i / each, first + i % each)
            };
            let runs: [&[f32]; SIDE_BY_SIDE] = std::array::from_fn(|i| {
                let (p, r) = place(i);
                &x[p * plane + r * RUN..][..len]
            });
            let (mut s, mut q) = ([0.0f32; SIDE_BY_SIDE], [0.0f32; SIDE_BY_SIDE]);
            for j in 0..len {
                for i in 0..SIDE_BY_SIDE {
                    let v = counted(runs[i][j]);
                    s[i] += v;
                    q[i] += v * v;
                }
            }
            for i in 0..SIDE_BY_SIDE {
                let (p, r) = place(i);
                out[p * per_plane + r] = [s[i], q[i]];
            }
        }
    };
    if full > 0 {
        add(0, RUN, full);
    }
    if rest > 0 {
        add(full, rest, 1);
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
