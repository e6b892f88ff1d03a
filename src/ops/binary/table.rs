//! The functions of two operands.

use super::{Apply, Form, Kind, Params, Row, each, read, samples};
use crate::graph::OpDef;
use crate::graph::sample::Fill;

/// A row: `module, "Name", ["onnx types"], kind, "element types", extra ulps`, and for each pair of element types
/// `Types: "function file", ["files it needs"], [values of a, of b], f(a, b, p)`.
macro_rules! binary {
    ($id:ident, $name:literal, [$($onnx:literal),*], $kind:ident, $supported:literal, $ulps:expr,
     $($form:ident: $file:literal, [$($shared:literal),*], [$a:expr, $b:expr], $f:expr);+ $(;)?) => {
        pub(in crate::ops) mod $id {
            use super::*;
            #[allow(non_upper_case_globals, reason = "named like the variants of Apply")]
            mod kernels {
                use super::*;
                $(pub(super) static $form: crate::graph::lower::Kernel =
                    binary!(@kernel $form, $file, [$($shared),*]);)+
            }
            static ROW: Row = Row {
                def: &DEF,
                kind: Kind::$kind,
                forms: &[$(Form {
                    apply: Apply::$form(|y, a, b, p| each(y, a, b, |a, b| ($f)(a, b, p))),
                    kernel: &kernels::$form,
                    fills: [$a, $b],
                }),+],
                supported: $supported,
                extra_ulps: $ulps,
            };
            pub(in crate::ops) static DEF: OpDef = OpDef {
                name: $name,
                onnx: &[$($onnx),*],
                read: |r| read(&ROW, r),
                kernels: &[$(&kernels::$form),+],
                samples: |rng| samples(&ROW, rng),
            };
        }
    };
    (@kernel F32, $file:literal, $shared:tt) => { binary!(@file " f32", $file, ["shared/binary_f32.wgsl", "shared/quantize.wgsl", "shared/nan_count.wgsl", "shared/epilogue.wgsl"], $shared) };
    (@kernel I32, $file:literal, $shared:tt) => { binary!(@file " i32", $file, ["shared/binary_i32.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@kernel F32Bool, $file:literal, $shared:tt) => { binary!(@file " f32", $file, ["shared/binary_f32_bool.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@kernel I32Bool, $file:literal, $shared:tt) => { binary!(@file " i32", $file, ["shared/binary_i32_bool.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@kernel Bool, $file:literal, $shared:tt) => { binary!(@file " bool", $file, ["shared/binary_bool.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@kernel F32I32, $file:literal, $shared:tt) => { binary!(@file " f32 i32", $file, ["shared/binary_f32_i32.wgsl", "shared/quantize.wgsl", "shared/nan_count.wgsl", "shared/epilogue.wgsl"], $shared) };
    (@file $types:literal, $file:literal, [$($aliases:literal),*], [$($shared:literal),*]) => {
        crate::kernel!(
            concat!($file, $types),
            Params,
            [
                "shared/grid.wgsl", "shared/lanes.wgsl", "shared/bits.wgsl", "shared/broadcast.wgsl",
                $($aliases,)* $($shared,)* $file, "binary.wgsl"
            ]
        )
    };
}

const FLOATS: Fill = Fill::Range(-3.0, 3.0);
const INTS: Fill = Fill::Ints(-9, 9);
/// Integers whose sums and products wrap.
const WIDE: Fill = Fill::Ints(i32::MIN, i32::MAX);
/// NaN, infinities, zeros and denormals.
const SPECIAL: Fill = Fill::Range(0.0, 0.0);

binary!(add, "Add", ["Add"], Pair, "f32 or i32, both the same", 0.0,
    F32: "binary/add.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| a + b;
    I32: "binary/add.wgsl", [], [WIDE, WIDE], |a: i32, b: i32, _| a.wrapping_add(b);
);
binary!(and, "And", ["And"], Pair, "bool", 0.0,
    Bool: "binary/and.wgsl", [], [Fill::Bools, Fill::Bools], |a: u8, b: u8, _| a & b;
);
binary!(bitwise_and, "BitwiseAnd", ["BitwiseAnd"], Pair, "i32", 0.0,
    I32: "binary/and.wgsl", [], [WIDE, WIDE], |a: i32, b: i32, _| a & b;
);
binary!(bitwise_or, "BitwiseOr", ["BitwiseOr"], Pair, "i32", 0.0,
    I32: "binary/or.wgsl", [], [WIDE, WIDE], |a: i32, b: i32, _| a | b;
);
binary!(bitwise_xor, "BitwiseXor", ["BitwiseXor"], Pair, "i32", 0.0,
    I32: "binary/xor.wgsl", [], [WIDE, WIDE], |a: i32, b: i32, _| a ^ b;
);
// i32: toward zero, and 0 where b is 0, which ONNX leaves open. A driver's division may be wrong by 2.5 ulp.
binary!(div, "Div", ["Div"], Pair, "f32 or i32, both the same", 0.0,
    F32: "binary/div.wgsl", [], [FLOATS, Fill::Range(0.2, 3.0)], |a: f32, b: f32, _| a / b;
    I32: "binary/div_i32.wgsl", [], [WIDE, INTS],
    |a: i32, b: i32, _| if b == 0 { 0 } else { a.wrapping_div(b) };
);
binary!(equal, "Equal", ["Equal"], Pair, "f32, i32 or bool, both the same", 0.0,
    F32Bool: "binary/equal.wgsl", [], [SPECIAL, SPECIAL], |a: f32, b: f32, _| u8::from(a == b);
    I32Bool: "binary/equal.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| u8::from(a == b);
    Bool: "binary/equal.wgsl", [], [Fill::Bools, Fill::Bools], |a: u8, b: u8, _| u8::from(a == b);
);
binary!(greater, "Greater", ["Greater"], Pair, "f32 or i32, both the same", 0.0,
    F32Bool: "binary/greater.wgsl", [], [SPECIAL, SPECIAL], |a: f32, b: f32, _| u8::from(a > b);
    I32Bool: "binary/greater.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| u8::from(a > b);
);
binary!(greater_or_equal, "GreaterOrEqual", ["GreaterOrEqual"], Pair, "f32 or i32, both the same", 0.0,
    F32Bool: "binary/greater_or_equal.wgsl", [], [SPECIAL, SPECIAL], |a: f32, b: f32, _| u8::from(a >= b);
    I32Bool: "binary/greater_or_equal.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| u8::from(a >= b);
);
binary!(less, "Less", ["Less"], Pair, "f32 or i32, both the same", 0.0,
    F32Bool: "binary/less.wgsl", [], [SPECIAL, SPECIAL], |a: f32, b: f32, _| u8::from(a < b);
    I32Bool: "binary/less.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| u8::from(a < b);
);
binary!(less_or_equal, "LessOrEqual", ["LessOrEqual"], Pair, "f32 or i32, both the same", 0.0,
    F32Bool: "binary/less_or_equal.wgsl", [], [SPECIAL, SPECIAL], |a: f32, b: f32, _| u8::from(a <= b);
    I32Bool: "binary/less_or_equal.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| u8::from(a <= b);
);
// A NaN wins, unlike in Rust's own max and min.
binary!(max, "Max", ["Max"], Chain, "f32 or i32, all the same", 0.0,
    F32: "binary/max.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| if a > b || a.is_nan() { a } else { b };
    I32: "binary/max.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| a.max(b);
);
binary!(mean, "Mean", ["Mean"], Mean, "f32", 0.0,
    F32: "binary/mean.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, p| (a + b) / p;
);
binary!(min, "Min", ["Min"], Chain, "f32 or i32, all the same", 0.0,
    F32: "binary/min.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| if a < b || a.is_nan() { a } else { b };
    I32: "binary/min.wgsl", [], [INTS, INTS], |a: i32, b: i32, _| a.min(b);
);
// i32: 0 where b is 0, which ONNX leaves open.
binary!(modulo, "Mod", ["Mod"], Modulo, "f32 or i32, both the same", 0.0,
    F32: "binary/mod_f32.wgsl", [], [Fill::Range(-3e4, 3e4), FLOATS], |a: f32, b: f32, _| a % b;
    I32: "binary/mod_i32.wgsl", [], [WIDE, INTS], modulo_i32;
);
binary!(mul, "Mul", ["Mul"], Pair, "f32 or i32, both the same", 0.0,
    F32: "binary/mul.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| a * b;
    I32: "binary/mul.wgsl", [], [WIDE, WIDE], |a: i32, b: i32, _| a.wrapping_mul(b);
);
binary!(or, "Or", ["Or"], Pair, "bool", 0.0,
    Bool: "binary/or.wgsl", [], [Fill::Bools, Fill::Bools], |a: u8, b: u8, _| a | b;
);
binary!(prelu, "PRelu", ["PRelu"], IntoFirst, "f32", 0.0,
    F32: "binary/prelu.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| if a < 0.0 { a * b } else { a };
);
// The device function is good to 2 ulp where division is exact, and divides once.
binary!(pow, "Pow", ["Pow"], Pair, "f32 with f32 or i32, or i32 with i32", 0.0,
    F32: "binary/pow_f32.wgsl", ["shared/math_exp.wgsl", "shared/math_log.wgsl", "shared/math_pow.wgsl"],
    [Fill::Range(0.0, 3.0), Fill::Range(-4.0, 30.0)], |a: f32, b: f32, _| pow_f32(a, b);
    F32I32: "binary/pow_f32_i32.wgsl", ["shared/math_exp.wgsl", "shared/math_log.wgsl", "shared/math_pow.wgsl"],
    [FLOATS, INTS], |a: f32, b: i32, _| libm::pow(f64::from(a), f64::from(b)) as f32;
    I32: "binary/pow_i32.wgsl", [], [INTS, Fill::Ints(-3, 40)], |a: i32, b: i32, _| pow_i32(a, b);
);
binary!(sub, "Sub", ["Sub"], Pair, "f32 or i32, both the same", 0.0,
    F32: "binary/sub.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| a - b;
    I32: "binary/sub.wgsl", [], [WIDE, WIDE], |a: i32, b: i32, _| a.wrapping_sub(b);
);
binary!(sum, "Sum", ["Sum"], Chain, "f32", 0.0,
    F32: "binary/add.wgsl", [], [FLOATS, FLOATS], |a: f32, b: f32, _| a + b;
);
binary!(xor, "Xor", ["Xor"], Pair, "bool", 0.0,
    Bool: "binary/xor.wgsl", [], [Fill::Bools, Fill::Bools], |a: u8, b: u8, _| a ^ b;
);

/// The remainder of a division toward zero where `fmod` is 1; else of one downward, with the sign of `b`.
fn modulo_i32(a: i32, b: i32, fmod: f32) -> i32 {
    if b == 0 {
        return 0;
    }
    let r = a.wrapping_rem(b);
    if fmod == 0.0 && r != 0 && (r < 0) != (b < 0) { r + b } else { r }
}

fn pow_f32(a: f32, b: f32) -> f32 {
    if b == 2.0 { a * a } else { libm::powf(a, b) }
}

/// Wraps. A negative exponent gives 0 but for bases of 1 and -1; of 0, too, where there is no result.
fn pow_i32(a: i32, b: i32) -> i32 {
    match (u32::try_from(b), a) {
        (Ok(b), _) => a.wrapping_pow(b),
        (_, 1) => 1,
        (_, -1) => {
            if b % 2 == 0 {
                1
            } else {
                -1
            }
        }
        _ => 0,
    }
}
