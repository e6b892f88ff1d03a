//! Functions with an integer or bool result.

use super::unary;

unary!(bitwise_not, "BitwiseNot", ["BitwiseNot"], [], "i32", 0.0,
    I32: "unary/bitwise_not.wgsl", [], [], |x: i32, _, _| !x;
);
unary!(is_inf, "IsInf", ["IsInf"], [Flag("detect_positive", true), Flag("detect_negative", true)], "f32", 0.0,
    F32Bool: "unary/is_inf.wgsl", [], [],
    |x: f32, a: f32, b: f32| u8::from(x.is_infinite() && (if x > 0.0 { a } else { b }) != 0.0);
);
unary!(is_nan, "IsNaN", ["IsNaN"], [], "f32", 0.0,
    F32Bool: "unary/is_nan.wgsl", [], [], |x: f32, _, _| u8::from(x.is_nan());
);
unary!(not, "Not", ["Not"], [], "bool", 0.0,
    Bool: "unary/not.wgsl", [], [], |x: u8, _, _| 1 - x;
);
