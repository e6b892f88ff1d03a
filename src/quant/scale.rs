//! From the range of a tensor to the parameters of its quantizer.

use super::params::codes;
use super::{QParams, QuantError, SCALE_MAX, SCALE_MIN};
use crate::tensor::DType;

/// A range of numbers, both ends finite and `low <= high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lower end.
    pub low: f32,
    /// Upper end.
    pub high: f32,
}

impl Range {
    /// A range.
    ///
    /// # Errors
    /// Ends that are not finite or not in order.
    pub fn new(low: f32, high: f32) -> Result<Range, QuantError> {
        if low.is_finite() && high.is_finite() && low <= high {
            return Ok(Range { low, high });
        }
        Err(QuantError::Range { low, high })
    }

    /// The larger of the magnitudes of its ends.
    pub fn absmax(self) -> f32 {
        self.low.abs().max(self.high.abs())
    }

    /// The range around zero in which everything of it lies.
    pub fn symmetric(self) -> Range {
        Range { low: -self.absmax(), high: self.absmax() }
    }
}

/// The convention by which a range becomes a scale and zero point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// absmax / ((high - low) / 2), zero point 0: absmax / 127.5 for i8. The statistical scale.
    #[default]
    Symmetric,
    /// absmax / high, zero point 0: absmax / 127 for i8, and no use of the lowest code.
    SymmetricNarrow,
    /// absmax / (high + 1), zero point 0: absmax / 128 for i8. Fixed scales given by a physical range.
    Physical,
    /// (max - min) / (high - low) of the range with zero in it, and the zero point that puts zero on a code.
    Asymmetric,
}

impl Scheme {
    /// Every convention.
    pub const ALL: [Scheme; 4] =
        [Scheme::Symmetric, Scheme::SymmetricNarrow, Scheme::Physical, Scheme::Asymmetric];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Symmetric => "symmetric",
            Scheme::SymmetricNarrow => "symmetric-narrow",
            Scheme::Physical => "physical",
            Scheme::Asymmetric => "asymmetric",
        }
    }

    /// Scale and zero point of a range for a type of codes. A range without extent has scale 1.
    ///
    /// Symmetric conventions put an unsigned type's zero in its middle.
    ///
    /// # Errors
    /// A type without codes.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the scale is rounded to f32, the zero point clamped before"
    )]
    pub fn scale(self, range: Range, dtype: DType) -> Result<(f32, i32), QuantError> {
        let (low, high) = codes(dtype, self == Scheme::SymmetricNarrow)?;
        let (low, high) = (f64::from(low), f64::from(high));
        let middle = ((low + high) / 2.0).ceil();
        let half = match self {
            Scheme::Symmetric => (high - low) / 2.0,
            Scheme::SymmetricNarrow => high - middle,
            Scheme::Physical => high - middle + 1.0,
            Scheme::Asymmetric => {
                let (min, max) = (f64::from(range.low.min(0.0)), f64::from(range.high.max(0.0)));
                let scale = bounded((max - min) / (high - low));
                let zero_point = (low - min / f64::from(scale)).round_ties_even().clamp(low, high);
                return Ok((scale, zero_point as i32));
            }
        };
        Ok((bounded(f64::from(range.absmax()) / half), middle as i32))
    }

    /// Parameters of one quantizer for a whole tensor.
    ///
    /// # Errors
    /// A type without codes.
    pub fn per_tensor(self, range: Range, dtype: DType) -> Result<QParams, QuantError> {
        let (scale, zero_point) = self.scale(range, dtype)?;
        QParams::new(dtype, self == Scheme::SymmetricNarrow, vec![scale], vec![zero_point], None)
    }

    /// Parameters with one range for each index of an axis.
    ///
    /// # Errors
    /// A type without codes.
    pub fn per_channel(self, ranges: &[Range], dtype: DType, axis: usize) -> Result<QParams, QuantError> {
        let all: Result<Vec<(f32, i32)>, QuantError> = ranges.iter().map(|r| self.scale(*r, dtype)).collect();
        let (scales, zero_points) = all?.into_iter().unzip();
        QParams::new(dtype, self == Scheme::SymmetricNarrow, scales, zero_points, Some(axis))
    }
}

/// A scale within its limits; 1 for none at all.
#[allow(clippy::cast_possible_truncation, reason = "rounds to nearest")]
fn bounded(scale: f64) -> f32 {
    if scale == 0.0 { 1.0 } else { (scale as f32).clamp(SCALE_MIN, SCALE_MAX) }
}

/// The power of two that is not below a scale.
pub fn power_of_two(scale: f32) -> f32 {
    let bits = scale.to_bits();
    let down = f32::from_bits(bits & 0x7f80_0000);
    if down == scale { scale } else { (down * 2.0).min(SCALE_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(scheme: Scheme, low: f32, high: f32, dtype: DType) -> (f32, i32) {
        scheme.scale(Range::new(low, high).unwrap(), dtype).unwrap()
    }

    #[test]
    fn conventions_divide_by_their_number() {
        assert_eq!(scale(Scheme::Symmetric, -255.0, 1.0, DType::I8), (2.0, 0));
        assert_eq!(scale(Scheme::SymmetricNarrow, -254.0, 1.0, DType::I8), (2.0, 0));
        assert_eq!(scale(Scheme::Physical, -256.0, 1.0, DType::I8), (2.0, 0));
        assert_eq!(scale(Scheme::Asymmetric, 0.0, 510.0, DType::U8), (2.0, 0));
        assert_eq!(scale(Scheme::Asymmetric, -256.0, 254.0, DType::U8), (2.0, 128));
        assert_eq!(scale(Scheme::Asymmetric, 3.0, 510.0, DType::U8), (2.0, 0));
        assert_eq!(scale(Scheme::Symmetric, -255.0, 1.0, DType::U8), (2.0, 128));
        assert_eq!(scale(Scheme::Symmetric, -15.0, 1.0, DType::I4), (2.0, 0));
    }

    #[test]
    fn a_range_without_extent_has_scale_one() {
        for scheme in Scheme::ALL {
            assert_eq!(scale(scheme, 0.0, 0.0, DType::I8).0, 1.0);
        }
    }

    #[test]
    fn scales_stay_within_their_limits() {
        for scheme in Scheme::ALL {
            for dtype in [DType::I4, DType::U16, DType::I32] {
                for v in [f32::MAX, f32::MIN_POSITIVE, 1e-45] {
                    let q = scheme.per_tensor(Range::new(-v, v).unwrap(), dtype).unwrap();
                    assert!((SCALE_MIN..=SCALE_MAX).contains(&q.scales()[0]));
                }
            }
        }
    }

    #[test]
    fn zero_is_a_code_of_every_convention() {
        let mut rng = crate::graph::sample::Rng::new(2);
        for scheme in Scheme::ALL {
            for _ in 0..200 {
                let (a, b) = (rng.float(-9.0, 9.0), rng.float(-9.0, 9.0));
                let q = scheme.per_tensor(Range::new(a.min(b), a.max(b)).unwrap(), DType::U8).unwrap();
                assert_eq!(q.step(0).fake_quantize(0.0), 0.0, "{q:?}");
            }
        }
    }

    #[test]
    fn powers_of_two_round_up() {
        assert_eq!(power_of_two(10.0 / 127.5), 0.125);
        assert_eq!(power_of_two(0.125), 0.125);
        assert_eq!(power_of_two(0.126), 0.25);
        assert_eq!(power_of_two(SCALE_MIN), SCALE_MIN);
    }

    /// The range [-10, 9.999998] at i8 in powers of two, and what the scale 0.7764707 represents at i8.
    #[test]
    fn reference_scales() {
        let (s, _) = scale(Scheme::Symmetric, -10.0, 9.999_998, DType::I8);
        assert_eq!(power_of_two(s), 0.125);
        let step = QParams::per_tensor(DType::I8, 0.776_470_7, 0).unwrap().step(0);
        assert!((step.dequantize(-128) - -99.388).abs() < 5e-4);
        assert!((step.dequantize(127) - 98.612).abs() < 5e-4);
    }
}
