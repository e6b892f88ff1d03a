//! What one frame of a tensor adds to its summary, computed on the CPU as `shaders/observe*.wgsl` compute it.

use super::piece::{Counts, Part, Piece, part};
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Bits of 2^-40, the least magnitude with a bin of its own, and the least that counts in moments: no sum of such
/// numbers or of their squares is denormal.
pub(super) const LEAST: u32 = (127 - 40) << 23;
/// Bits of 2^24, the least magnitude beyond the bins.
pub(super) const MOST: u32 = (127 + 24) << 23;
/// Bits of 2^48, the least magnitude that makes moments infinite: 2^31 squares of smaller ones stay finite.
pub(super) const UNBOUNDED: u32 = (127 + 48) << 23;

/// Low bits of an f32 that a bin ignores: 6 bits of its mantissa are left.
pub(super) const DROPPED: u32 = 17;
/// Counts of one sign: underflow, 64 bins for each of 64 exponents, overflow.
pub(super) const SIDE: usize = 1 + 64 * 64 + 1;
/// Counts of a histogram: the positive numbers', then the negative ones'. The index of a number of magnitude bits `a`:
/// 0 below 2^-40, 4097 from 2^24 on, else 1 + (a - bits(2^-40)) >> 17; plus 4098 where it is negative.
pub const HISTOGRAM: usize = 2 * SIDE;

/// Elements that are added one after the other.
pub const RUN: usize = 64;
/// Partial sums of a frame, which a tree adds up.
pub const LANES: usize = 64;

/// Elements that one task takes at a time.
const PIECE: usize = 1 << 14;
/// Statistics of one frame of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameStats {
    /// Elements.
    pub elements: u64,
    /// Zeros of either sign.
    pub zeros: u64,
    /// NaNs.
    pub nans: u64,
    /// Infinities of either sign.
    pub infinities: u64,
    /// Least finite number; infinity where there is none.
    pub min: f32,
    /// Greatest finite number; minus infinity where there is none.
    pub max: f32,
    /// Sum of the numbers of magnitudes from 2^-40 to below 2^48, in the order that the shader `observe.wgsl` has, too.
    pub sum: f32,
    /// Sum of their squares, each rounded to f32.
    pub squares: f32,
}

impl FrameStats {
    /// Whether a magnitude is 2^48 or more, so that the moments are not what the sums say.
    pub fn is_unbounded(&self) -> bool {
        let bits = |x: f32| if x.is_finite() { x.to_bits() & i32::MAX.cast_unsigned() } else { 0 };
        bits(self.min).max(bits(self.max)) >= UNBOUNDED
    }

    /// From the words that `shaders/observe_frame.wgsl` writes: keys of max and of the negated min (0 for none), zeros,
    /// NaNs, infinities, sum, squares.
    pub fn from_words(elements: u64, w: &[u32]) -> FrameStats {
        // Keys are ordered as the numbers are: negative numbers complemented, others with the highest bit set.
        let number =
            |key: u32| f32::from_bits(if key >> 31 == 1 { key & i32::MAX.cast_unsigned() } else { !key });
        FrameStats {
            elements,
            zeros: w[2].into(),
            nans: w[3].into(),
            infinities: w[4].into(),
            min: if w[1] == 0 { f32::INFINITY } else { number(!w[1]) },
            max: if w[0] == 0 { f32::NEG_INFINITY } else { number(w[0]) },
            sum: f32::from_bits(w[5]),
            squares: f32::from_bits(w[6]),
        }
    }
}

/// Words of [`FrameStats::from_words`], with one to spare.
pub const FRAME_WORDS: usize = 8;

/// Length of the innermost plane of a frame of this shape, batch axis included with the frame's share: the axes after
/// axis 1 where there are three axes or more, else everything.
pub fn plane(frame: &[usize]) -> usize {
    if frame.len() >= 3 { frame[2..].iter().product() } else { frame.iter().product() }
}

/// What the pieces of a tensor's frames show: enough for the statistics of its frames, and for those of a tensor whose
/// frames are made of them.
#[derive(Debug, Default)]
pub struct Shown {
    frames: Vec<Vec<Part>>,
}

impl Shown {
    /// Statistics of the frames.
    pub fn stats(&self) -> Vec<FrameStats> {
        Shown::joined(&[self])
    }

    /// Statistics of frames that consist of the frames of these tensors, one behind the other. All have planes of one
    /// size: the runs of the whole are then theirs, in order, and the sums have the bits of looking at it.
    pub fn joined(all: &[&Shown]) -> Vec<FrameStats> {
        let frames = all.first().map_or(0, |s| s.frames.len());
        (0..frames).map(|f| finish(all.iter().flat_map(|s| &s.frames[f]))).collect()
    }

    /// Goes on with further frames.
    pub(crate) fn extend(&mut self, more: Shown) {
        self.frames.extend(more.frames);
    }
}

/// Counts elements into `histogram` and shows each frame. `x` is `frames` frames of `frame` elements, one behind the
/// other; each is `plane`s in logical order.
///
/// Sums are rounded in one fixed order, whatever computes them. A plane is cut into runs of [`RUN`] consecutive
/// elements, the last perhaps shorter; a run is added from left to right. Of a frame's runs in order, lane t adds those
/// of number t, t + 64, ..; then lane t adds lane t + 32, then t + 16, .. t + 1.
pub(super) fn observe(x: &[f32], frames: usize, frame: usize, plane: usize, histogram: &mut [u64]) -> Shown {
    thread_local! {
        /// Zeros between calls: memory that is asked for at each tensor costs page faults.
        static COUNTS: RefCell<Box<Counts>> = RefCell::new(Box::new([0; HISTOGRAM]));
    }
    let pieces = pieces(frames, frame, plane.max(1));
    let each = pieces.len().div_ceil(2 * rayon::current_num_threads()).max(2);
    let histogram = Mutex::new(histogram);
    let chunks: Vec<Vec<Part>> = pieces
        .par_chunks(each)
        .map(|chunk| {
            COUNTS.with_borrow_mut(|counts| {
                let parts = chunk.iter().map(|p| part(*p, &x[p.start..p.start + p.len], counts)).collect();
                let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
                for (all, c) in histogram.iter_mut().zip(counts.iter_mut()) {
                    *all += u64::from(std::mem::take(c));
                }
                parts
            })
        })
        .collect();
    let mut of_frame: Vec<Vec<Part>> = (0..frames).map(|_| Vec::new()).collect();
    chunks.into_iter().flatten().for_each(|p| of_frame[p.frame].push(p));
    Shown { frames: of_frame }
}

fn pieces(frames: usize, frame: usize, plane: usize) -> Vec<Piece> {
    let mut out = Vec::new();
    for f in 0..frames {
        let end = (f + 1) * frame;
        let mut start = f * frame;
        while start < end {
            // Whole planes, or of a large plane whole runs.
            let inside = (start - f * frame) % plane;
            let len = if plane <= PIECE { PIECE / plane * plane } else { PIECE.min(plane - inside) };
            let len = len.min(end - start);
            out.push(Piece { frame: f, start, len, plane: plane.min(len) });
            start += len;
        }
    }
    out
}

/// Statistics of the frame that consists of these pieces.
fn finish<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> FrameStats {
    let mut lanes = [[0f32; 2]; LANES];
    let runs = parts.clone().flat_map(|p| &p.runs);
    runs.enumerate().for_each(|(i, run)| {
        let lane = &mut lanes[i % LANES];
        lane[0] += run[0];
        lane[1] += run[1];
    });
    let mut half = LANES / 2;
    while half > 0 {
        for t in 0..half {
            lanes[t][0] += lanes[t + half][0];
            lanes[t][1] += lanes[t + half][1];
        }
        half /= 2;
    }
    let [sum, squares] = lanes[0];
    FrameStats {
        elements: parts.clone().map(|p| p.elements).sum(),
        zeros: parts.clone().map(|p| p.zeros).sum(),
        nans: parts.clone().map(|p| p.nans).sum(),
        infinities: parts.clone().map(|p| p.infinities).sum(),
        min: parts.clone().fold(f32::INFINITY, |m, p| m.min(p.min)),
        max: parts.fold(f32::NEG_INFINITY, |m, p| m.max(p.max)),
        sum,
        squares,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    fn stats(x: &[f32], plane: usize) -> (FrameStats, Vec<u64>) {
        let mut histogram = vec![0; HISTOGRAM];
        (observe(x, 1, x.len(), plane, &mut histogram).stats()[0], histogram)
    }

    /// The definition, word by word.
    fn plain_sums(x: &[f32], plane: usize) -> [f32; 2] {
        let mut lanes = [[0f32; 2]; 64];
        let runs = x.chunks(plane).flat_map(|p| p.chunks(64));
        for (i, run) in runs.enumerate() {
            let (mut s, mut q) = (0f32, 0f32);
            for v in run {
                let counts = (2f32.powi(-40)..2f32.powi(48)).contains(&v.abs());
                let v = if counts { *v } else { 0.0 };
                s += v;
                q += v * v;
            }
            lanes[i % 64][0] += s;
            lanes[i % 64][1] += q;
        }
        for half in [32, 16, 8, 4, 2, 1] {
            for t in 0..half {
                lanes[t][0] += lanes[t + half][0];
                lanes[t][1] += lanes[t + half][1];
            }
        }
        lanes[0]
    }

    #[test]
    fn sums_have_the_order_that_is_written_down() {
        let mut rng = Rng::new(1);
        for (planes, plane) in
            [(1, 1), (3, 64), (7, 65), (5, 169), (1, 100_003), (129, 3), (2, 40_000), (40_000, 1)]
        {
            let x: Vec<f32> = (0..planes * plane).map(|_| rng.float(-1.0, 2.0)).collect();
            let (got, _) = stats(&x, plane);
            assert_eq!([got.sum, got.squares], plain_sums(&x, plane), "{planes} planes of {plane}");
        }
    }

    #[test]
    fn bins_are_numbered_as_the_file_format_says() {
        let two = |e: i32| 2f32.powi(e);
        for (x, at) in [
            (two(-40).next_down(), 0),
            (1e-45, 0),
            (two(-40), 1),
            (two(-40) * (1.0 + 1.0 / 64.0), 2),
            (1.0, 1 + 40 * 64),
            (1.0f32.next_down(), 40 * 64),
            (two(24).next_down(), 4096),
            (two(24), 4097),
            (f32::MAX, 4097),
        ] {
            for (x, at) in [(x, at), (-x, at + 4098)] {
                let (_, histogram) = stats(&[x], 1);
                let found: Vec<usize> = (0..HISTOGRAM).filter(|i| histogram[*i] > 0).collect();
                assert_eq!(found, [at], "{x:e}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_counted_apart() {
        let x = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 3.0, -1.0, 1e30, 1e-30];
        let (s, histogram) = stats(&x, 10);
        assert_eq!((s.elements, s.zeros, s.nans, s.infinities), (10, 2, 2, 2));
        assert_eq!((s.min, s.max, s.sum, s.squares), (-1.0, 1e30, 2.0, 10.0));
        assert_eq!(histogram.iter().sum::<u64>(), 4);
        assert!(s.is_unbounded());
        let (s, _) = stats(&[f32::NAN, f32::INFINITY], 2);
        assert_eq!((s.min, s.max, s.is_unbounded()), (f32::INFINITY, f32::NEG_INFINITY, false));
        let (s, _) = stats(&[-0.0, -0.0], 2);
        assert_eq!((s.min.to_bits(), s.max.to_bits()), (0, 0));
    }

    #[test]
    fn the_largest_frame_of_the_largest_counted_numbers_has_finite_moments() {
        let most = f64::from(f32::from_bits(UNBOUNDED).next_down());
        assert!(most * most * crate::tensor::MAX_ELEMENTS as f64 <= f64::from(f32::MAX));
    }
}
