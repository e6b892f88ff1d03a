fn f(x: X, a: f32, b: f32) -> Y {
    return atan_f32(x);
}
