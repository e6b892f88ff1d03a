//! Quantization parameters and the step functions that they define: the only rounding code in Rust.
//!
//! `quantize(x) = clamp(round(x / scale) + zero_point, low, high)` and `dequantize(q) = f32(q - zero_point) * scale`, where
//! [`Rounding`] and [`Division`] say how the quotient is formed and rounded. Infinities saturate; NaN becomes the zero
//! point. Whoever feeds a quantizer counts the NaNs.

mod addition;
mod fixed;
mod params;
mod profile;
mod quantizer;
mod requantize;
mod scale;
mod step;

pub use addition::{Addends, Addition};
pub use fixed::{Mantissa, Multiplier, Multipliers};
pub use params::{Division, QParams, QuantError, Rounding, SCALE_MAX, SCALE_MIN};
pub use profile::{Accumulator, Arithmetic, Profile, ProfileError};
pub use quantizer::{Origin, Quantizer, Role, Spec, State};
pub use requantize::{Adder, Factor, Mean, Requantize, Requantizer};
pub use scale::{Range, Scheme, power_of_two};
pub use step::Step;
