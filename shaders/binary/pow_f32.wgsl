fn f(a: A, b: B, p: f32) -> Y {
    let integer = floor(b) == b;
    let odd = integer & (abs(b) < B(16777216.0)) & (floor(b * 0.5) * 2.0 != b);
    return pow_f32(a, b, integer, odd);
}
