fn f(x: X, a: f32, b: f32) -> Y {
    let m = expm1_f32(-2.0 * abs(x));
    return with_sign(-m / (m + 2.0), x);
}
