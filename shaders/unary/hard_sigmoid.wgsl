fn f(x: X, a: f32, b: f32) -> Y {
    return clamp(a * x + b, X(), X(1.0));
}
