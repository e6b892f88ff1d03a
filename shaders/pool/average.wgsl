fn enter(v: vec4<f32>) -> vec4<f32> {
    return v;
}

fn leave(total: vec4<f32>, counted: u32) -> vec4<f32> {
    return total / f32(max(counted, 1u));
}
