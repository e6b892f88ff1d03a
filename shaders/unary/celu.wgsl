fn f(x: X, a: f32, b: f32) -> Y {
    return select(a * expm1_f32(x / a), x, x >= X());
}
