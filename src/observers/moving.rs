//! `moving_average`: ends that follow the frames, for compatibility with trainers that calibrate so. **They depend on the
//! order of the frames**, so that no summary holds them: they can be neither merged nor sharded nor found afterwards.

use super::{FrameStats, Observer, ObserverDef, ObserverError, Summary, number};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "moving_average",
    usage: "moving_average[=C]",
    about: "ends that follow the batches in order, v += C * (batch - v), C above 0 and up to 1, 0.01 unless given",
    parse: |p| {
        let c = p.map_or(Some(0.01), |p| number(p, 0.0..=1.0))?;
        #[allow(clippy::cast_possible_truncation, reason = "rounds to nearest")]
        let c = c as f32;
        (c > 0.0).then(|| Box::new(MovingAverage(c)) as Box<dyn Observer>)
    },
};

#[derive(Debug)]
struct MovingAverage(f32);

impl Observer for MovingAverage {
    fn range(&self, _: &Summary, _: DType, _: Scheme) -> Result<Range, ObserverError> {
        Err(ObserverError::Sequential)
    }

    fn moving(&self) -> Option<f32> {
        Some(self.0)
    }
}

/// Ends that follow the batches of a tensor: v += c * (batch - v), in f32, from the first batch's ends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovingMinMax {
    c: f32,
    /// Frames of a batch.
    batch: usize,
    ends: Option<Range>,
    /// Ends of the batch that is not whole yet, and its frames.
    open: (Option<Range>, usize),
}

impl MovingMinMax {
    /// An average of this weight of a new batch of so many frames.
    pub fn new(c: f32, batch: usize) -> MovingMinMax {
        MovingMinMax { c, batch: batch.max(1), ends: None, open: (None, 0) }
    }

    /// Adds a frame. One without any finite number counts and changes nothing.
    pub fn observe(&mut self, frame: &FrameStats) {
        let (open, frames) = self.open;
        let new = Range::new(frame.min, frame.max).ok();
        let open = match (open, new) {
            (Some(a), Some(b)) => Some(Range { low: a.low.min(b.low), high: a.high.max(b.high) }),
            (a, b) => a.or(b),
        };
        self.open = (open, frames + 1);
        if frames + 1 == self.batch {
            self.ends = self.range();
            self.open = (None, 0);
        }
    }

    /// The ends, an incomplete last batch included; none before the first number.
    pub fn range(&self) -> Option<Range> {
        let follow = |v: f32, batch: f32| v + self.c * (batch - v);
        match (self.ends, self.open.0) {
            (Some(v), Some(new)) => {
                Some(Range { low: follow(v.low, new.low), high: follow(v.high, new.high) })
            }
            (v, new) => v.or(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_follow_the_batches_by_c() {
        let frame = |x: &[f32]| Summary::new().observe(x, &[x.len()]);
        let mut m = MovingMinMax::new(0.25, 2);
        assert_eq!(m.range(), None);
        m.observe(&frame(&[-1.0, 2.0]));
        assert_eq!(m.range(), Some(Range { low: -1.0, high: 2.0 }));
        m.observe(&frame(&[0.0, 4.0]));
        assert_eq!(m.range(), Some(Range { low: -1.0, high: 4.0 }));
        m.observe(&frame(&[f32::NAN]));
        m.observe(&frame(&[-5.0, 8.0, f32::INFINITY]));
        assert_eq!(m.range(), Some(Range { low: -2.0, high: 5.0 }));
        m.observe(&frame(&[2.0, 9.0]));
        assert_eq!(m.range(), Some(Range { low: -1.0, high: 6.0 }), "the incomplete last batch counts");
    }
}
