fn f(x: X, a: f32, b: f32) -> Y {
    return 1.0 / x;
}
