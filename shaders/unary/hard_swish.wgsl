fn f(x: X, a: f32, b: f32) -> Y {
    return x * clamp(x * (1.0 / 6.0) + 0.5, X(), X(1.0));
}
