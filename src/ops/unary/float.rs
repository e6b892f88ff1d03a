//! Functions of f32, some of them of i32 too. Transcendental functions are those of a pure-Rust libm, so that every
//! host computes the same bits. The device functions of `shaders/shared/math_*.wgsl` use exact or correctly rounded
//! operations but for division and square root, and came within 4 ulp of the largest result where those were exact.

use super::unary;

/// Ulp that a driver's division may be wrong by: 2.5 (Vulkan specification, precision of core operations).
const DIVISION: f32 = 2.5;

/// The same of a square root: that of a division by a reciprocal root, itself good to 2 ulp.
const ROOT: f32 = 4.5;

/// 1 / (1 + e^-x), without overflow.
fn logistic(x: f32) -> f32 {
    let e = libm::expf(-x.abs());
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// In f64, since 1 + erf cancels.
fn gelu_of(x: f32, by_tanh: bool) -> f32 {
    let x = f64::from(x);
    let half = if by_tanh {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        1.0 / (1.0 + libm::exp(-2.0 * u))
    } else {
        0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    };
    (x * half) as f32
}

unary!(abs, "Abs", ["Abs"], [], "f32 or i32", 0.0,
    F32: "unary/abs.wgsl", [], [(-3.0, 3.0)], |x: f32, _, _| x.abs();
    I32: "unary/abs.wgsl", [], [], |x: i32, _, _| x.wrapping_abs();
);
unary!(acos, "Acos", ["Acos"], [], "f32", ROOT,
    F32: "unary/acos.wgsl", ["shared/math_arc.wgsl"], [(-1.0, 1.0), (0.9, 1.0)], |x: f32, _, _| libm::acosf(x);
);
unary!(acosh, "Acosh", ["Acosh"], [], "f32", ROOT,
    F32: "unary/acosh.wgsl", ["shared/math_log.wgsl"], [(1.0, 3.0), (1.0, 1e12), (1.0, 1.01)],
    |x: f32, _, _| libm::acoshf(x);
);
unary!(asin, "Asin", ["Asin"], [], "f32", ROOT,
    F32: "unary/asin.wgsl", ["shared/math_arc.wgsl"], [(-1.0, 1.0)], |x: f32, _, _| libm::asinf(x);
);
unary!(asinh, "Asinh", ["Asinh"], [], "f32", ROOT,
    F32: "unary/asinh.wgsl", ["shared/math_log.wgsl"], [(-3.0, 3.0), (-1e12, 1e12), (-0.01, 0.01)],
    |x: f32, _, _| libm::asinhf(x);
);
unary!(atan, "Atan", ["Atan"], [], "f32", DIVISION,
    F32: "unary/atan.wgsl", ["shared/math_arc.wgsl"], [(-9.0, 9.0), (-0.01, 0.01)],
    |x: f32, _, _| libm::atanf(x);
);
unary!(atanh, "Atanh", ["Atanh"], [], "f32", DIVISION,
    F32: "unary/atanh.wgsl", ["shared/math_log.wgsl"], [(-0.99, 0.99), (-0.01, 0.01)],
    |x: f32, _, _| libm::atanhf(x);
);
unary!(ceil, "Ceil", ["Ceil"], [], "f32", 0.0,
    F32: "unary/ceil.wgsl", [], [(-30.0, 30.0)], |x: f32, _, _| x.ceil();
);
unary!(celu, "Celu", ["Celu"], [Float("alpha", 1.0)], "f32", 0.0,
    F32: "unary/celu.wgsl", ["shared/math_exp.wgsl"], [(-3.0, 3.0), (-40.0, 0.1)],
    |x: f32, a: f32, _| if x >= 0.0 { x } else { a * libm::expm1f(x / a) };
);
unary!(cos, "Cos", ["Cos"], [], "f32", 0.0,
    F32: "unary/cos.wgsl", ["shared/math_trig.wgsl"], [(-7.0, 7.0), (-5000.0, 5000.0), (-1e9, 1e9)],
    |x: f32, _, _| libm::cosf(x);
);
unary!(cosh, "Cosh", ["Cosh"], [], "f32", DIVISION,
    F32: "unary/cosh.wgsl", ["shared/math_exp.wgsl"], [(-3.0, 3.0), (60.0, 89.0)],
    |x: f32, _, _| libm::coshf(x);
);
unary!(elu, "Elu", ["Elu"], [Float("alpha", 1.0)], "f32", 0.0,
    F32: "unary/elu.wgsl", ["shared/math_exp.wgsl"], [(-3.0, 3.0), (-40.0, 0.1)],
    |x: f32, a, _| if x >= 0.0 { x } else { a * libm::expm1f(x) };
);
unary!(erf, "Erf", ["Erf"], [], "f32", 0.0,
    F32: "unary/erf.wgsl", ["shared/math_exp.wgsl", "shared/math_erf.wgsl"], [(-5.0, 5.0), (-0.01, 0.01)],
    |x: f32, _, _| libm::erff(x);
);
unary!(exp, "Exp", ["Exp"], [], "f32", 0.0,
    F32: "unary/exp.wgsl", ["shared/math_exp.wgsl"], [(-3.0, 3.0), (-90.0, -20.0), (20.0, 88.0)],
    |x: f32, _, _| libm::expf(x);
);
unary!(floor, "Floor", ["Floor"], [], "f32", 0.0,
    F32: "unary/floor.wgsl", [], [(-30.0, 30.0)], |x: f32, _, _| x.floor();
);
unary!(gelu, "Gelu", ["Gelu", "com.microsoft:Gelu"], [OneOf("approximate", ["none", "tanh"])], "f32", DIVISION,
    F32: "unary/gelu.wgsl", ["shared/math_exp.wgsl", "shared/math_erf.wgsl"], [(-6.0, 6.0)],
    |x: f32, a: f32, _| gelu_of(x, a != 0.0);
);
unary!(hard_sigmoid, "HardSigmoid", ["HardSigmoid"], [Float("alpha", 0.2), Float("beta", 0.5)], "f32", 0.0,
    F32: "unary/hard_sigmoid.wgsl", [], [(-6.0, 6.0)], |x: f32, a: f32, b: f32| (a * x + b).clamp(0.0, 1.0);
);
unary!(hard_swish, "HardSwish", ["HardSwish"], [], "f32", 0.0,
    F32: "unary/hard_swish.wgsl", [], [(-6.0, 6.0)], |x: f32, _, _| x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0);
);
unary!(leaky_relu, "LeakyRelu", ["LeakyRelu"], [Float("alpha", 0.01)], "f32", 0.0,
    F32: "unary/leaky_relu.wgsl", [], [(-3.0, 3.0)], |x: f32, a, _| if x >= 0.0 { x } else { a * x };
);
unary!(log, "Log", ["Log"], [], "f32", 0.0,
    F32: "unary/log.wgsl", ["shared/math_log.wgsl"], [(0.5, 1.6), (1e-6, 1e-3), (1.0, 1e9)],
    |x: f32, _, _| libm::logf(x);
);
unary!(
    /// |x| / 2^floor(log2 |x|), in [1, 2): what tables of normalised operands are entered with. 0 for 0, denormals
    /// and infinities.
    mantissa, "Mantissa", [], [], "f32", 0.0,
    F32: "unary/mantissa.wgsl", [], [(0.1, 9.0), (-3e9, -1e-9)], |x: f32, _, _| {
        let bits = x.to_bits() & 0x7fff_ffff;
        match bits >> 23 {
            0 => 0.0,
            255 if x.is_nan() => x,
            255 => 0.0,
            _ => f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000),
        }
    };
);
unary!(mish, "Mish", ["Mish"], [], "f32", DIVISION,
    F32: "unary/mish.wgsl", ["shared/math_exp.wgsl"], [(-9.0, 9.0), (-30.0, -5.0)], |x: f32, _, _| {
        // tanh(log(1 + e)) = w / (w + 2) with w = e (e + 2); 1 for large x.
        let e = libm::exp(f64::from(x.min(40.0)));
        let w = e * (e + 2.0);
        (f64::from(x) * (w / (w + 2.0))) as f32
    };
);
unary!(neg, "Neg", ["Neg"], [], "f32 or i32", 0.0,
    F32: "unary/neg.wgsl", [], [(-3.0, 3.0)], |x: f32, _, _| -x;
    I32: "unary/neg.wgsl", [], [], |x: i32, _, _| x.wrapping_neg();
);
unary!(quick_gelu, "QuickGelu", ["com.microsoft:QuickGelu"], [Float("alpha", 1.702)], "f32", DIVISION,
    F32: "unary/quick_gelu.wgsl", ["shared/math_exp.wgsl"], [(-9.0, 9.0)], |x: f32, a, _| x * logistic(a * x);
);
unary!(reciprocal, "Reciprocal", ["Reciprocal"], [], "f32", DIVISION,
    F32: "unary/reciprocal.wgsl", [], [(0.1, 9.0), (-3.0, -0.2)], |x: f32, _, _| 1.0 / x;
);
unary!(relu, "Relu", ["Relu"], [], "f32", 0.0,
    F32: "unary/relu.wgsl", [], [(-3.0, 3.0)], |x: f32, _, _| if x < 0.0 { 0.0 } else { x };
);
unary!(round, "Round", ["Round"], [], "f32", 0.0,
    F32: "unary/round.wgsl", ["shared/round_even.wgsl"], [(-30.0, 30.0), (8388600.0, 8388620.0)],
    |x: f32, _, _| x.round_ties_even();
);
unary!(selu, "Selu", ["Selu"], [Float("alpha", 1.673_263_2), Float("gamma", 1.050_701)], "f32", 0.0,
    F32: "unary/selu.wgsl", ["shared/math_exp.wgsl"], [(-3.0, 3.0), (-40.0, 0.1)],
    |x: f32, a, b| b * if x > 0.0 { x } else { a * libm::expm1f(x) };
);
unary!(shrink, "Shrink", ["Shrink"], [Float("lambd", 0.5), Float("bias", 0.0)], "f32", 0.0,
    F32: "unary/shrink.wgsl", [], [(-3.0, 3.0)],
    |x: f32, a: f32, b| if x > a { x - b } else if x < -a { x + b } else { x * 0.0 };
);
unary!(sigmoid, "Sigmoid", ["Sigmoid"], [], "f32", DIVISION,
    F32: "unary/sigmoid.wgsl", ["shared/math_exp.wgsl"], [(-9.0, 9.0), (-100.0, 100.0)],
    |x: f32, _, _| logistic(x);
);
unary!(sign, "Sign", ["Sign"], [], "f32 or i32", 0.0,
    F32: "unary/sign.wgsl", [], [(-3.0, 3.0)],
    |x: f32, _, _| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x };
    I32: "unary/sign.wgsl", [], [], |x: i32, _, _| x.signum();
);
unary!(sin, "Sin", ["Sin"], [], "f32", 0.0,
    F32: "unary/sin.wgsl", ["shared/math_trig.wgsl"], [(-7.0, 7.0), (-5000.0, 5000.0), (-1e9, 1e9)],
    |x: f32, _, _| libm::sinf(x);
);
unary!(sinh, "Sinh", ["Sinh"], [], "f32", DIVISION,
    F32: "unary/sinh.wgsl", ["shared/math_exp.wgsl"], [(-3.0, 3.0), (60.0, 89.0), (-0.01, 0.01)],
    |x: f32, _, _| libm::sinhf(x);
);
unary!(softplus, "Softplus", ["Softplus"], [], "f32", 0.0,
    F32: "unary/softplus.wgsl", ["shared/math_exp.wgsl", "shared/math_log.wgsl"], [(-9.0, 9.0), (-100.0, -5.0)],
    |x: f32, _, _| if x > 0.0 { x + libm::log1pf(libm::expf(-x)) } else { libm::log1pf(libm::expf(x)) };
);
unary!(softsign, "Softsign", ["Softsign"], [], "f32", DIVISION,
    F32: "unary/softsign.wgsl", [], [(-9.0, 9.0)], |x: f32, _, _| x / (1.0 + x.abs());
);
unary!(sqrt, "Sqrt", ["Sqrt"], [], "f32", ROOT,
    F32: "unary/sqrt.wgsl", [], [(0.0, 9.0)], |x: f32, _, _| x.sqrt();
);
unary!(tan, "Tan", ["Tan"], [], "f32", DIVISION,
    F32: "unary/tan.wgsl", ["shared/math_trig.wgsl"], [(-1.5, 1.5), (-100.0, 100.0)],
    |x: f32, _, _| libm::tanf(x);
);
unary!(tanh, "Tanh", ["Tanh"], [], "f32", DIVISION,
    F32: "unary/tanh.wgsl", ["shared/math_exp.wgsl"], [(-9.0, 9.0), (-0.01, 0.01)],
    |x: f32, _, _| libm::tanhf(x);
);
unary!(thresholded_relu, "ThresholdedRelu", ["ThresholdedRelu"], [Float("alpha", 1.0)], "f32", 0.0,
    F32: "unary/thresholded_relu.wgsl", [], [(-3.0, 3.0)],
    |x: f32, a, _| if x > a || x.is_nan() { x } else { 0.0 };
);
