fn f(x: X, a: f32, b: f32) -> Y {
    let m = abs(x);
    return with_sign(0.5 * log1p_f32(2.0 * m / (1.0 - m)), x);
}
