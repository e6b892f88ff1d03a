fn f(x: X, a: f32, b: f32) -> Y {
    return select(select(X(), x - b, x > X(a)), x + b, x < X(-a));
}
