//! The summary of a tensor over any number of frames, from which every observer finds its range.

use super::exact_sum::ExactSum;
use super::frame::{self, DROPPED, FrameStats, HISTOGRAM, LEAST, MOST, SIDE, Shown};
use crate::quant::Range;

/// Largest count of a summary that is read: sums of many of them stay within 64 bits.
const MOST_COUNTED: u64 = 1 << 48;

/// What is known of a tensor's numbers: counts, exact ends, exact sums of the frames' moments, and a histogram whose bins
/// do not depend on the numbers. Everything is added exactly, so that equal frames give equal summaries whatever their
/// order, batch, shards or device.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    frames: u64,
    elements: u64,
    zeros: u64,
    nans: u64,
    infinities: u64,
    /// Frames with a number too large for moments.
    unbounded: u64,
    min: f32,
    max: f32,
    sum: ExactSum,
    squares: ExactSum,
    histogram: Vec<u64>,
}

/// A summary as plain arrays, as files hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Frames, elements, zeros, NaNs, infinities, and frames with a magnitude of 2^48 or more.
    pub counts: [u64; 6],
    /// Least and greatest finite number; infinity and minus infinity where there is none.
    pub range: [f32; 2],
    /// Sum, then sum of squares, in units of 2^-149 as 384-bit integers in two's complement, the lowest word first.
    pub moments: [u64; 2 * ExactSum::WORDS],
    /// Counts of finite numbers other than zero, numbered as [`HISTOGRAM`] says.
    pub histogram: Vec<u64>,
}

/// Arrays that are no summary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SummaryError {
    /// A histogram of another form.
    #[error("the histogram has {got} counts, this version has {HISTOGRAM}")]
    Length {
        /// Its counts.
        got: usize,
    },
    /// Counts that contradict each other.
    #[error("the counts contradict each other: {0}")]
    Counts(&'static str),
}

/// Numbers that lie evenly in a range, or at its one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many.
    pub count: f64,
}

impl Default for Summary {
    fn default() -> Self {
        Summary::new()
    }
}

impl Summary {
    /// The summary of nothing.
    pub fn new() -> Summary {
        Summary {
            frames: 0,
            elements: 0,
            zeros: 0,
            nans: 0,
            infinities: 0,
            unbounded: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            sum: ExactSum::default(),
            squares: ExactSum::default(),
            histogram: vec![0; HISTOGRAM],
        }
    }

    /// Adds one frame of this shape, in logical order.
    pub fn observe(&mut self, x: &[f32], shape: &[usize]) -> FrameStats {
        self.observe_frames(x, 1, frame::plane(shape)).remove(0)
    }

    /// Adds `frames` frames of equal length, one behind the other, each cut into planes (see [`frame::plane`]).
    pub fn observe_frames(&mut self, x: &[f32], frames: usize, plane: usize) -> Vec<FrameStats> {
        let stats = self.count(x, frames, plane).stats();
        stats.iter().for_each(|s| self.add_frame(s));
        stats
    }

    /// Adds the histogram of such frames, which themselves are to follow (see [`Summary::add_frame`]).
    pub fn count(&mut self, x: &[f32], frames: usize, plane: usize) -> Shown {
        frame::observe(x, frames, x.len() / frames.max(1), plane, &mut self.histogram)
    }

    /// Adds a frame, its histogram apart (see [`Summary::add_histogram`]).
    pub fn add_frame(&mut self, s: &FrameStats) {
        self.frames += 1;
        self.elements += s.elements;
        self.zeros += s.zeros;
        self.nans += s.nans;
        self.infinities += s.infinities;
        self.min = self.min.min(s.min);
        self.max = self.max.max(s.max);
        if s.is_unbounded() {
            self.unbounded += 1;
        } else {
            self.sum.add(s.sum);
            self.squares.add(s.squares);
        }
    }

    /// Adds the histogram of frames that were added without it.
    pub fn add_histogram(&mut self, counts: &[u32]) {
        self.histogram.iter_mut().zip(counts).for_each(|(all, c)| *all += u64::from(*c));
    }

    /// Takes the histogram of a tensor whose frames consist of those that these summaries have seen.
    pub fn join_histograms<'a>(&mut self, parts: impl IntoIterator<Item = &'a Summary>) {
        self.histogram.fill(0);
        for part in parts {
            self.histogram.iter_mut().zip(&part.histogram).for_each(|(all, c)| *all += c);
        }
    }

    /// Adds the summary of other frames.
    pub fn merge(&mut self, other: &Summary) {
        self.frames += other.frames;
        self.elements += other.elements;
        self.zeros += other.zeros;
        self.nans += other.nans;
        self.infinities += other.infinities;
        self.unbounded += other.unbounded;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum.merge(other.sum);
        self.squares.merge(other.squares);
        self.histogram.iter_mut().zip(&other.histogram).for_each(|(a, b)| *a += b);
    }

    /// The summary as plain arrays.
    pub fn parts(&self) -> Parts {
        let mut moments = [0; 2 * ExactSum::WORDS];
        moments[..ExactSum::WORDS].copy_from_slice(&self.sum.words());
        moments[ExactSum::WORDS..].copy_from_slice(&self.squares.words());
        Parts {
            counts: [self.frames, self.elements, self.zeros, self.nans, self.infinities, self.unbounded],
            range: [self.min, self.max],
            moments,
            histogram: self.histogram.clone(),
        }
    }

    /// The summary that these arrays say.
    ///
    /// # Errors
    /// Arrays that no summary gives.
    pub fn from_parts(parts: Parts) -> Result<Summary, SummaryError> {
        let Parts { counts, range: [min, max], moments, histogram } = parts;
        if histogram.len() != HISTOGRAM {
            return Err(SummaryError::Length { got: histogram.len() });
        }
        let [frames, elements, zeros, nans, infinities, unbounded] = counts;
        if counts.iter().any(|c| *c > MOST_COUNTED) {
            return Err(SummaryError::Counts("one is above 2^48"));
        }
        let sum = |all: &[u64]| all.iter().map(|c| u128::from(*c)).sum::<u128>();
        if sum(&histogram) + sum(&[zeros, nans, infinities]) != u128::from(elements) {
            return Err(SummaryError::Counts(
                "bins, zeros, NaNs and infinities do not add up to the elements",
            ));
        }
        if unbounded > frames {
            return Err(SummaryError::Counts("more frames are unbounded than there are"));
        }
        let some = elements > nans + infinities;
        let none = (min, max) == (f32::INFINITY, f32::NEG_INFINITY);
        if if some { Range::new(min, max).is_err() } else { !none } {
            return Err(SummaryError::Counts("the least and greatest number do not fit them"));
        }
        let words = |from: usize| std::array::from_fn(|i| moments[from + i]);
        Ok(Summary {
            frames,
            elements,
            zeros,
            nans,
            infinities,
            unbounded,
            min,
            max,
            sum: ExactSum::from_words(words(0)),
            squares: ExactSum::from_words(words(ExactSum::WORDS)),
            histogram,
        })
    }

    /// Frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Elements, whatever they are.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Elements that are zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Elements that are NaN.
    pub fn nans(&self) -> u64 {
        self.nans
    }

    /// Elements that are infinite.
    pub fn infinities(&self) -> u64 {
        self.infinities
    }

    /// Elements that are finite numbers.
    pub fn numbers(&self) -> u64 {
        self.elements - self.nans - self.infinities
    }

    /// Least and greatest finite number; `None` where there is none.
    pub fn range(&self) -> Option<Range> {
        Range::new(self.min, self.max).ok()
    }

    /// Mean of the finite numbers; infinite where a magnitude is 2^48 or more, NaN where there are none.
    pub fn mean(&self) -> f64 {
        self.moment(self.sum)
    }

    /// Mean of the squares of the finite numbers; infinite and NaN as [`Summary::mean`].
    pub fn mean_square(&self) -> f64 {
        self.moment(self.squares)
    }

    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    fn moment(&self, sum: ExactSum) -> f64 {
        if self.unbounded > 0 { f64::INFINITY } else { sum.value() / self.numbers() as f64 }
    }

    /// Standard deviation of the finite numbers, all of them being the population.
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        if mean.is_infinite() { mean } else { (self.mean_square() - mean * mean).max(0.0).sqrt() }
    }

    /// Where the finite numbers lie, in ascending order, within the exact ends. Bins that hold none are left out.
    pub fn bins(&self) -> Vec<Bin> {
        let (positive, negative) = self.histogram.split_at(SIDE);
        let (min, max) = (f64::from(self.min), f64::from(self.max));
        let bin = |low: f64, high: f64, count: u64| {
            #[allow(clippy::cast_precision_loss, reason = "a weight")]
            let count = count as f64;
            Bin { low: low.clamp(min, max), high: high.clamp(min, max), count }
        };
        let some = |side: &[u64]| -> Vec<(usize, u64)> {
            side.iter().copied().enumerate().filter(|(_, c)| *c > 0).collect()
        };
        let mut out: Vec<Bin> =
            some(negative).iter().rev().map(|(i, c)| bin(-edge(i + 1), -edge(*i), *c)).collect();
        if self.zeros > 0 {
            out.push(bin(0.0, 0.0, self.zeros));
        }
        out.extend(some(positive).iter().map(|(i, c)| bin(edge(*i), edge(i + 1), *c)));
        out
    }

    /// As [`Summary::bins`], of the magnitudes.
    pub fn magnitudes(&self) -> Vec<Bin> {
        let absmax = f64::from(self.min.abs().max(self.max.abs()));
        // Where all numbers have one sign, the other end of their range is the least magnitude.
        let least = f64::from(if self.min > 0.0 { self.min } else { (-self.max).max(0.0) });
        let (positive, negative) = self.histogram.split_at(SIDE);
        let mut out = Vec::new();
        #[allow(clippy::cast_precision_loss, reason = "a weight")]
        let mut push = |low: f64, high: f64, count: u64| {
            if count > 0 {
                out.push(Bin {
                    low: low.clamp(least, absmax),
                    high: high.clamp(least, absmax),
                    count: count as f64,
                });
            }
        };
        push(0.0, 0.0, self.zeros);
        for (i, (p, n)) in positive.iter().zip(negative).enumerate() {
            push(edge(i), edge(i + 1), p + n);
        }
        out
    }
}

/// Where the bins of one sign begin: bin `i` holds magnitudes from `edge(i)` to below `edge(i + 1)`.
fn edge(i: usize) -> f64 {
    if i == 0 {
        return 0.0;
    }
    if i == SIDE {
        return f64::from(f32::MAX);
    }
    let steps = u32::try_from(i - 1).expect("fewer bins than that");
    let bits = LEAST + (steps << DROPPED);
    debug_assert!(bits <= MOST, "bins end at the overflow");
    f64::from(f32::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames of one shape with every kind of number.
    fn frames() -> impl Strategy<Value = (Vec<usize>, Vec<Vec<f32>>)> {
        let number = prop_oneof![
            6 => -4f32..4.0,
            1 => Just(0.0f32),
            1 => any::<u32>().prop_map(f32::from_bits),
            1 => Just(f32::NAN),
            1 => prop_oneof![Just(f32::INFINITY), Just(1e15f32), Just(-1e-20f32)],
        ];
        prop::collection::vec(1usize..9, 1..4).prop_flat_map(move |shape| {
            let n: usize = shape.iter().product();
            let frame = prop::collection::vec(number.clone(), n);
            (Just(shape), prop::collection::vec(frame, 1..7))
        })
    }

    fn of(frames: &[Vec<f32>], shape: &[usize]) -> Summary {
        let mut out = Summary::new();
        for f in frames {
            out.observe(f, shape);
        }
        out
    }

    proptest! {
        #[test]
        fn order_batch_and_shards_do_not_matter((shape, mut all) in frames(), at in 0usize..7, shards in 1usize..4) {
            let whole = of(&all, &shape);
            let mut batch = Summary::new();
            batch.observe_frames(&all.concat(), all.len(), frame::plane(&shape));
            prop_assert_eq!(&batch, &whole);
            let mut merged = Summary::new();
            for s in (0..shards).rev() {
                let part: Vec<Vec<f32>> = all.iter().skip(s).step_by(shards).cloned().collect();
                merged.merge(&of(&part, &shape));
            }
            prop_assert_eq!(&merged, &whole);
            let middle = at % all.len();
            all.rotate_left(middle);
            prop_assert_eq!(&of(&all, &shape), &whole);
        }

        #[test]
        fn arrays_give_the_summary_back((shape, all) in frames()) {
            let whole = of(&all, &shape);
            prop_assert_eq!(Summary::from_parts(whole.parts()).unwrap(), whole);
        }

        #[test]
        fn bins_hold_every_number_in_order((shape, all) in frames()) {
            let whole = of(&all, &shape);
            let numbers: Vec<f32> = all.concat().into_iter().filter(|x| x.is_finite()).collect();
            for (bins, magnitudes) in [(whole.bins(), false), (whole.magnitudes(), true)] {
                prop_assert_eq!(bins.iter().map(|b| b.count).sum::<f64>(), numbers.len() as f64);
                prop_assert!(bins.windows(2).all(|w| w[0].high <= w[1].low));
                for x in &numbers {
                    let x = f64::from(if magnitudes { x.abs() } else { *x });
                    prop_assert!(bins.iter().any(|b| b.low <= x && x <= b.high), "{x} is in no bin");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let mut rng = crate::graph::sample::Rng::new(4);
        let x: Vec<f32> = (0..3 * 300_001).map(|_| rng.float(-1.0, 1.0)).collect();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut s = Summary::new();
                (s.observe_frames(&x, 3, 300_001), s)
            })
        };
        assert_eq!(on(1), on(5));
    }

    #[test]
    fn moments_are_means_of_the_numbers() {
        let s = of(&[vec![1.0, 2.0, f32::NAN], vec![3.0, 0.0, f32::INFINITY]], &[3]);
        assert_eq!((s.mean(), s.mean_square(), s.numbers()), (1.5, 3.5, 4));
        assert!((s.deviation() - 1.25f64.sqrt()).abs() < 1e-12);
        let s = of(&[vec![1e15, -1e15]], &[2]);
        assert_eq!((s.mean(), s.deviation()), (f64::INFINITY, f64::INFINITY));
        assert!(Summary::new().mean().is_nan());
    }

    #[test]
    fn arrays_that_contradict_each_other_are_refused() {
        let good = of(&[vec![1.0, 0.0, f32::NAN]], &[3]).parts();
        let refused = |change: fn(&mut Parts)| {
            let mut parts = good.clone();
            change(&mut parts);
            Summary::from_parts(parts).is_err()
        };
        assert!(refused(|p| p.histogram.truncate(1)));
        assert!(refused(|p| p.histogram[0] += 1));
        assert!(refused(|p| p.histogram[0] = u64::MAX));
        assert!(refused(|p| p.counts[5] = 2));
        assert!(refused(|p| p.counts[0] = 1 << 60));
        assert!(refused(|p| p.range = [f32::NAN, 1.0]));
        assert!(refused(|p| p.range = [2.0, 1.0]));
        assert!(refused(|p| p.range = [f32::INFINITY, f32::NEG_INFINITY]));
        assert!(Summary::from_parts(good).is_ok());
    }
}
