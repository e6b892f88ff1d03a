//! The moving average of each batch's ends, for compatibility with trainers that calibrate so.

use super::{FrameStats, ObserverError};
use crate::quant::Range;

/// Ends that follow the batches: v += c * (batch - v), in f32, from the first batch's ends on. **It depends on the
/// order and size of the batches**, so it can be neither merged nor sharded; everything else here can.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovingMinMax {
    c: f32,
    ends: Option<Range>,
}

/// What depends on the order of its frames was to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a moving average depends on the order of the batches: it cannot be merged or sharded; use minmax instead"
)]
pub struct OrderDependent;

impl Default for MovingMinMax {
    fn default() -> Self {
        MovingMinMax { c: 0.01, ends: None }
    }
}

impl MovingMinMax {
    /// An average of this weight of a new batch, above 0 and at most 1; `None` for any other.
    pub fn new(c: f32) -> Option<MovingMinMax> {
        (c > 0.0 && c <= 1.0).then_some(MovingMinMax { c, ends: None })
    }

    /// Adds a batch. One without any finite number changes nothing.
    pub fn observe(&mut self, batch: &[FrameStats]) {
        let low = batch.iter().fold(f32::INFINITY, |m, f| m.min(f.min));
        let high = batch.iter().fold(f32::NEG_INFINITY, |m, f| m.max(f.max));
        let Ok(new) = Range::new(low, high) else { return };
        let c = self.c;
        let follow = |v: f32, batch: f32| v + c * (batch - v);
        self.ends = Some(match self.ends {
            None => new,
            Some(v) => Range { low: follow(v.low, new.low), high: follow(v.high, new.high) },
        });
    }

    /// Always refuses.
    ///
    /// # Errors
    /// Every time.
    pub fn merge(&mut self, _: &MovingMinMax) -> Result<(), OrderDependent> {
        Err(OrderDependent)
    }

    /// The range.
    ///
    /// # Errors
    /// No batch with a number so far.
    pub fn range(&self) -> Result<Range, ObserverError> {
        self.ends.ok_or(ObserverError::Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observers::Summary;

    #[test]
    fn ends_follow_the_batches_by_c() {
        let frame = |x: &[f32]| Summary::new().observe(x, &[x.len()]);
        let mut m = MovingMinMax::new(0.25).unwrap();
        assert_eq!(m.range(), Err(ObserverError::Empty));
        m.observe(&[frame(&[-1.0, 2.0]), frame(&[0.0, 4.0])]);
        assert_eq!(m.range().unwrap(), Range { low: -1.0, high: 4.0 });
        m.observe(&[frame(&[f32::NAN])]);
        m.observe(&[frame(&[-5.0, 8.0, f32::INFINITY])]);
        assert_eq!(m.range().unwrap(), Range { low: -2.0, high: 5.0 });
        assert_eq!(m.merge(&MovingMinMax::default()), Err(OrderDependent));
        assert!(MovingMinMax::new(0.0).is_none() && MovingMinMax::new(f32::NAN).is_none());
    }
}
