//! How far two models' outputs agree.

use super::metrics::{MetricError, argmax, frames_of};
use crate::tensor::Tensor;

/// How far an output of one model is from the same output of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgreementFigures {
    /// Share of the frames whose largest element is at the same place.
    pub argmax: f64,
    /// x.y / (|x| |y|) over all elements; 1 where both are zero, 0 where one is.
    pub cosine: f64,
    /// 20 log10(|x| / |x - y|); infinite where they are equal.
    pub sqnr_db: f64,
    /// Largest |x - y|; NaN where one is.
    pub max_abs: f64,
}

/// Agreement of one output of two models, frame by frame; x is the first model's.
///
/// Sums are in f64 and in an order that depends on a frame's size only, so that the batch makes no difference.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    frames: u64,
    same: u64,
    sums: Sums,
}

/// What one frame adds to an [`Agreement`].
#[derive(Clone, Copy, Debug)]
pub struct FrameAgreement {
    same: bool,
    sums: Sums,
}

impl FrameAgreement {
    /// How many numbers it is.
    pub const NUMBERS: usize = 6;

    /// As numbers, for files.
    pub fn to_numbers(self) -> [f64; Self::NUMBERS] {
        let Sums { xx, yy, xy, dd, max } = self.sums;
        [f64::from(u8::from(self.same)), xx, yy, xy, dd, max]
    }

    /// From the numbers of [`FrameAgreement::to_numbers`].
    pub fn from_numbers([same, xx, yy, xy, dd, max]: [f64; Self::NUMBERS]) -> FrameAgreement {
        FrameAgreement { same: same != 0.0, sums: Sums { xx, yy, xy, dd, max } }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    xx: f64,
    yy: f64,
    xy: f64,
    dd: f64,
    max: f64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.xx += other.xx;
        self.yy += other.yy;
        self.xy += other.xy;
        self.dd += other.dd;
        self.max = largest(self.max, other.max);
    }

    fn of(x: &[f64], y: &[f64]) -> Sums {
        const LANES: usize = 8;
        let mut lanes = [Sums::default(); LANES];
        for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
            for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                // Equal infinities differ by nothing.
                let d = if x == y { 0.0 } else { x - y };
                lane.xx += x * x;
                lane.yy += y * y;
                lane.xy += x * y;
                lane.dd += d * d;
                lane.max = largest(lane.max, d.abs());
            }
        }
        let mut sum = Sums::default();
        lanes.into_iter().for_each(|lane| sum.add(lane));
        sum
    }
}

/// The larger; NaN where one is.
fn largest(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

impl Agreement {
    /// Nothing compared yet.
    pub fn new() -> Agreement {
        Agreement::default()
    }

    /// Takes the next frames of an output of both models in.
    ///
    /// # Errors
    /// Outputs of different shapes, or without an axis for the frames.
    pub fn observe(&mut self, name: &str, first: &Tensor, other: &Tensor) -> Result<(), MetricError> {
        Agreement::compare(name, first, other)?.into_iter().for_each(|frame| self.add(frame));
        Ok(())
    }

    /// What each of these frames adds.
    ///
    /// # Errors
    /// As for [`Agreement::observe`].
    pub fn compare(name: &str, first: &Tensor, other: &Tensor) -> Result<Vec<FrameAgreement>, MetricError> {
        if first.shape() != other.shape() || first.shape().is_empty() {
            return Err(MetricError::Shapes {
                name: name.into(),
                expected: first.shape().to_vec(),
                got: other.shape().to_vec(),
            });
        }
        let ((x, frame), (y, _)) = (frames_of(first), frames_of(other));
        let frames = (0..first.shape()[0]).map(|i| (&x[i * frame..][..frame], &y[i * frame..][..frame]));
        Ok(frames
            .map(|(x, y)| FrameAgreement { same: argmax(x) == argmax(y), sums: Sums::of(x, y) })
            .collect())
    }

    /// Takes in a frame; the order of frames makes a difference to the last bits of the figures.
    pub fn add(&mut self, frame: FrameAgreement) {
        self.frames += 1;
        self.same += u64::from(frame.same);
        self.sums.add(frame.sums);
    }

    /// Frames that were compared.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The figures so far; NaN without a frame.
    pub fn figures(&self) -> AgreementFigures {
        let Sums { xx, yy, xy, dd, max } = self.sums;
        let cosine = match (xx == 0.0, yy == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            _ => (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0),
        };
        let nothing = self.frames == 0;
        let or_nan = |v: f64| if nothing { f64::NAN } else { v };
        AgreementFigures {
            argmax: or_nan(self.same as f64 / self.frames as f64),
            cosine: or_nan(cosine),
            sqnr_db: or_nan(if dd == 0.0 { f64::INFINITY } else { 10.0 * libm::log10(xx / dd) }),
            max_abs: or_nan(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(x: &[f32], y: &[f32], frames: usize) -> AgreementFigures {
        let shape = [frames, x.len() / frames];
        let mut a = Agreement::new();
        a.observe("p", &Tensor::from_f32(shape, x.to_vec()), &Tensor::from_f32(shape, y.to_vec()))
            .expect("same shape");
        a.figures()
    }

    #[test]
    fn agreement_follows_its_definitions() {
        let a = agreement(&[3.0, 4.0, 0.0, 1.0], &[3.0, 5.0, 1.0, 0.0], 2);
        assert_eq!((a.argmax, a.max_abs), (0.5, 1.0));
        assert!((a.cosine - 29.0 / (26f64.sqrt() * 35f64.sqrt())).abs() < 1e-15);
        assert!((a.sqnr_db - 20.0 * (26f64 / 3.0).sqrt().log10()).abs() < 1e-12);
        let same = agreement(&[1.0, f32::INFINITY], &[1.0, f32::INFINITY], 1);
        assert_eq!((same.sqnr_db, same.max_abs), (f64::INFINITY, 0.0));
        let zeros = agreement(&[0.0; 2], &[0.0; 2], 1);
        assert_eq!((zeros.cosine, zeros.sqnr_db), (1.0, f64::INFINITY));
        let one = agreement(&[0.0; 2], &[0.0, 1.0], 1);
        assert_eq!((one.cosine, one.sqnr_db), (0.0, f64::NEG_INFINITY));
        assert!(agreement(&[1.0, 2.0], &[f32::NAN, 2.0], 1).max_abs.is_nan());
        assert!(Agreement::new().figures().argmax.is_nan());
    }

    #[test]
    fn the_batch_makes_no_difference_to_a_single_bit() {
        let x: Vec<f32> = (0..7 * 13).map(|i| ((i * 37 % 101) as f32).sqrt() - 4.0).collect();
        let y: Vec<f32> = x.iter().enumerate().map(|(i, v)| v + (i % 5) as f32 * 0.01).collect();
        let whole = agreement(&x, &y, 7);
        let mut parts = Agreement::new();
        for (x, y) in x.chunks(3 * 13).zip(y.chunks(3 * 13)) {
            let shape = [x.len() / 13, 13];
            parts
                .observe("p", &Tensor::from_f32(shape, x.to_vec()), &Tensor::from_f32(shape, y.to_vec()))
                .expect("same shape");
        }
        assert_eq!(parts.figures(), whole);
    }

    #[test]
    fn outputs_of_different_shapes_are_refused() {
        let (a, b) = (
            Tensor::zeros(crate::tensor::DType::F32, [2, 3]),
            Tensor::zeros(crate::tensor::DType::F32, [2, 4]),
        );
        let e = Agreement::new().observe("p", &a, &b).expect_err("3 and 4").to_string();
        assert!(e.contains("[2, 4]") && e.contains("[2, 3]"), "{e}");
    }
}
