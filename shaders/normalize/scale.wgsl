// scale: f32, one a parameter.
@group(0) @binding(3) var<storage, read> scale: array<f32>;

fn affine(v: f32, k: u32) -> f32 {
    return v * scale[k];
}
