fn finish(d: f32, s: f32) -> f32 {
    return exp(d) / s;
}
