fn f(x: X, a: f32, b: f32) -> Y {
    return max(x, X()) + log1p_f32(exp_f32(-abs(x)));
}
