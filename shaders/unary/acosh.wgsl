fn f(x: X, a: f32, b: f32) -> Y {
    let t = x - 1.0;
    let near = log1p_f32(t + sqrt(max(t * (t + 2.0), X())));
    let y = select(near, log_f32(x) + 0.6931472, x > X(1e9));
    return select(y, not_a_number(), x < X(1.0));
}
