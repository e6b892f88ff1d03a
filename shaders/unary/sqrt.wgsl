fn f(x: X, a: f32, b: f32) -> Y {
    return select(sqrt(x), not_a_number(), x < X());
}
