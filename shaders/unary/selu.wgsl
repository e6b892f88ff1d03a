fn f(x: X, a: f32, b: f32) -> Y {
    return b * select(a * expm1_f32(x), x, x > X());
}
