fn f(x: X, a: f32, b: f32) -> Y {
    return sin_quarters(x, 0u);
}
