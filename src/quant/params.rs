//! What a quantizer is made of.

use super::Step;
use crate::tensor::DType;
use std::fmt;

/// Smallest scale, 2^-100: quotients stay finite and far from denormals.
pub const SCALE_MIN: f32 = f32::from_bits((127 - 100) << 23);
/// Largest scale, 2^100.
pub const SCALE_MAX: f32 = f32::from_bits((127 + 100) << 23);

/// How a quotient becomes an integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To the nearest, halves to even: ONNX, `PyTorch`.
    #[default]
    HalfEven,
    /// floor(v + 1/2) in exact arithmetic.
    HalfUp,
    /// To the nearest, halves away from zero: gemmlowp.
    HalfAway,
}

impl Rounding {
    /// Every way, in the order of their numbers in `shaders/shared/quantize.wgsl`.
    pub const ALL: [Rounding; 3] = [Rounding::HalfEven, Rounding::HalfUp, Rounding::HalfAway];

    /// Its name in files and text.
    pub fn name(self) -> &'static str {
        match self {
            Rounding::HalfEven => "half_even",
            Rounding::HalfUp => "half_up",
            Rounding::HalfAway => "half_away",
        }
    }

    /// Rounds to an integer.
    #[allow(clippy::disallowed_methods, reason = "halves away from zero are asked for")]
    pub fn round(self, v: f64) -> f64 {
        match self {
            Rounding::HalfEven => v.round_ties_even(),
            Rounding::HalfUp => {
                // Not floor(v + 0.5), whose sum may round up to the next integer.
                let down = v.floor();
                if v - down >= 0.5 { down + 1.0 } else { down }
            }
            Rounding::HalfAway => v.round(),
        }
    }
}

/// How the quotient `x / scale` is formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Division {
    /// f32(x * inv) with inv = f32(1 / scale), computed once on the host.
    #[default]
    Multiply,
    /// f32(x / scale), rounded correctly.
    Divide,
    /// x / scale in exact arithmetic.
    Real,
}

impl Division {
    /// Every way, in the order of their numbers in `shaders/shared/quantize.wgsl`.
    pub const ALL: [Division; 3] = [Division::Multiply, Division::Divide, Division::Real];

    /// Its name in files and text.
    pub fn name(self) -> &'static str {
        match self {
            Division::Multiply => "multiply",
            Division::Divide => "divide",
            Division::Real => "real",
        }
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parameters that no quantizer can have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// A type without codes.
    #[error("{0} is no type of codes; supported: i4, i8, i16, i32, u4, u8, u16")]
    DType(DType),
    /// A scale that is not a usable number.
    #[error("scale {0:?} is outside 2^-100..2^100")]
    Scale(f32),
    /// A zero point that is no code.
    #[error("zero point {zero_point} is outside {low}..={high} of {dtype}")]
    ZeroPoint {
        /// The zero point.
        zero_point: i32,
        /// The type of the codes.
        dtype: DType,
        /// Lowest code.
        low: i32,
        /// Highest code.
        high: i32,
    },
    /// Lists of different lengths, or several scales without an axis.
    #[error("{scales} scales and {zero_points} zero points {}", if *axis { "along an axis" } else { "without an axis" })]
    Lengths {
        /// Scales.
        scales: usize,
        /// Zero points.
        zero_points: usize,
        /// Whether there is an axis.
        axis: bool,
    },
    /// A range that is empty, infinite or NaN.
    #[error("range {low:?}..{high:?} is not a range of numbers")]
    Range {
        /// Its lower end.
        low: f32,
        /// Its upper end.
        high: f32,
    },
}

/// Parameters of a quantizer: one scale and zero point, or one per index of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct QParams {
    dtype: DType,
    narrow: bool,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
    axis: Option<usize>,
    /// How quotients are rounded.
    pub rounding: Rounding,
    /// How quotients are formed.
    pub division: Division,
}

impl QParams {
    /// One scale for a whole tensor.
    ///
    /// # Errors
    /// A type without codes, a scale outside its limits, a zero point outside the type.
    pub fn per_tensor(dtype: DType, scale: f32, zero_point: i32) -> Result<QParams, QuantError> {
        QParams::new(dtype, false, vec![scale], vec![zero_point], None)
    }

    /// One scale for each index of an axis.
    ///
    /// # Errors
    /// As [`QParams::per_tensor`], and lists of different lengths.
    pub fn per_channel(
        dtype: DType,
        scales: Vec<f32>,
        zero_points: Vec<i32>,
        axis: usize,
    ) -> Result<QParams, QuantError> {
        QParams::new(dtype, false, scales, zero_points, Some(axis))
    }

    /// Parameters from all their parts. With `narrow` the lowest code is not used.
    ///
    /// # Errors
    /// A type without codes, a scale outside its limits, a zero point outside the codes, lists that do not fit.
    pub fn new(
        dtype: DType,
        narrow: bool,
        scales: Vec<f32>,
        zero_points: Vec<i32>,
        axis: Option<usize>,
    ) -> Result<QParams, QuantError> {
        let (low, high) = codes(dtype, narrow)?;
        let fits = scales.len() == zero_points.len() && (axis.is_some() || scales.len() == 1);
        if !fits {
            let (scales, zero_points) = (scales.len(), zero_points.len());
            return Err(QuantError::Lengths { scales, zero_points, axis: axis.is_some() });
        }
        if let Some(s) = scales.iter().find(|s| !(SCALE_MIN..=SCALE_MAX).contains(*s)) {
            return Err(QuantError::Scale(*s));
        }
        if let Some(z) = zero_points.iter().find(|z| !(low..=high).contains(*z)) {
            return Err(QuantError::ZeroPoint { zero_point: *z, dtype, low, high });
        }
        let (rounding, division) = Default::default();
        Ok(QParams { dtype, narrow, scales, zero_points, axis, rounding, division })
    }

    /// Whether codes mean the same under both.
    pub fn same_codes(&self, other: &QParams) -> bool {
        self.dtype == other.dtype
            && self.scales == other.scales
            && self.zero_points == other.zero_points
            && self.axis == other.axis
    }

    /// The same with another way to round.
    pub fn rounded(mut self, rounding: Rounding) -> QParams {
        self.rounding = rounding;
        self
    }

    /// The same with another way to divide.
    pub fn divided(mut self, division: Division) -> QParams {
        self.division = division;
        self
    }

    /// Type of the codes.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether the lowest code is not used.
    pub fn narrow(&self) -> bool {
        self.narrow
    }

    /// Real units per step: one, or one per index of the axis.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Codes of zero: as many as scales.
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// The axis along which parameters differ.
    pub fn axis(&self) -> Option<usize> {
        self.axis
    }

    /// Lowest and highest code.
    pub fn codes(&self) -> (i32, i32) {
        codes(self.dtype, self.narrow).expect("the type was checked")
    }

    /// The step function of index `i` of the axis.
    pub fn step(&self, i: usize) -> Step {
        let (low, high) = self.codes();
        Step::new(self.scales[i], self.zero_points[i], low, high, self.rounding, self.division)
    }
}

/// Lowest and highest code of a type.
pub(super) fn codes(dtype: DType, narrow: bool) -> Result<(i32, i32), QuantError> {
    let (low, high) = dtype.limits().ok_or(QuantError::DType(dtype))?;
    Ok((low + i32::from(narrow), high))
}
