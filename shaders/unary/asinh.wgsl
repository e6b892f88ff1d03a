fn f(x: X, a: f32, b: f32) -> Y {
    let m = abs(x);
    let z = m * m;
    let near = log1p_f32(m + z / (1.0 + sqrt(1.0 + z)));
    let y = select(near, log_f32(m) + 0.6931472, m > X(1e9));
    return with_sign(y, x);
}
