fn f(x: vec4<f32>, a: f32, b: f32) -> vec4<f32> {
    return select(a * x, x, x >= vec4<f32>(0.0));
}
