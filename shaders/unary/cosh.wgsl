fn f(x: X, a: f32, b: f32) -> Y {
    let h = exp_f32(0.5 * abs(x));
    return (0.5 * h) * h + 0.5 / (h * h);
}
