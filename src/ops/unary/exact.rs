//! The functions of `float.rs` in f64, for the entries of tables.

use libm::{erf, erfc, exp, expm1, log1p, sqrt, tanh};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

fn logistic(x: f64) -> f64 {
    let e = exp(-x.abs());
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// A function by its name and both parameters; `None` where it is none of f32.
pub(super) fn exact(name: &str, x: f64, a: f64, b: f64) -> Option<f64> {
    Some(match name {
        "Abs" => x.abs(),
        "Acos" => libm::acos(x),
        "Acosh" => libm::acosh(x),
        "Asin" => libm::asin(x),
        "Asinh" => libm::asinh(x),
        "Atan" => libm::atan(x),
        "Atanh" => libm::atanh(x),
        "Ceil" => x.ceil(),
        "Celu" => {
            if x >= 0.0 {
                x
            } else {
                a * expm1(x / a)
            }
        }
        "Cos" => libm::cos(x),
        "Cosh" => libm::cosh(x),
        "Elu" => {
            if x >= 0.0 {
                x
            } else {
                a * expm1(x)
            }
        }
        "Erf" => erf(x),
        "Exp" => exp(x),
        "Floor" => x.floor(),
        "Gelu" if a != 0.0 => x * logistic(2.0 * sqrt(2.0 / PI) * (x + 0.044715 * x * x * x)),
        "Gelu" => 0.5 * x * erfc(-x * FRAC_1_SQRT_2),
        "HardSigmoid" => (a * x + b).clamp(0.0, 1.0),
        "HardSwish" => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        "LeakyRelu" => {
            if x >= 0.0 {
                x
            } else {
                a * x
            }
        }
        "Log" => libm::log(x),
        "Mantissa" => {
            if x == 0.0 {
                0.0
            } else {
                2.0 * libm::frexp(x.abs()).0
            }
        }
        "Mish" => x * tanh(softplus(x)),
        "Neg" => -x,
        "QuickGelu" => x * logistic(a * x),
        "Reciprocal" => 1.0 / x,
        "Relu" => x.max(0.0),
        "Round" => x.round_ties_even(),
        "Selu" => b * if x > 0.0 { x } else { a * expm1(x) },
        "Shrink" => {
            if x > a {
                x - b
            } else if x < -a {
                x + b
            } else {
                0.0
            }
        }
        "Sigmoid" => logistic(x),
        "Sign" => {
            if x == 0.0 {
                0.0
            } else {
                x.signum()
            }
        }
        "Sin" => libm::sin(x),
        "Sinh" => libm::sinh(x),
        "Softplus" => softplus(x),
        "Softsign" => x / (1.0 + x.abs()),
        "Sqrt" => sqrt(x),
        "Tan" => libm::tan(x),
        "Tanh" => tanh(x),
        "ThresholdedRelu" => {
            if x > a {
                x
            } else {
                0.0
            }
        }
        _ => return None,
    })
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + log1p(exp(-x.abs()))
}
