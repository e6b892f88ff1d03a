fn affine(v: f32, k: u32) -> f32 {
    return v;
}
