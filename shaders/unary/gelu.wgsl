// a: 0 by erf, 1 by tanh.
fn f(x: X, a: f32, b: f32) -> Y {
    if a == 0.0 {
        return 0.5 * x * (1.0 + erf_f32(x * 0.70710677));
    }
    // 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u)
    let u = 0.7978846 * (x + 0.044715 * x * x * x);
    let e = exp_f32(-2.0 * abs(u));
    return x * (select(X(1.0), e, u < X()) / (1.0 + e));
}
