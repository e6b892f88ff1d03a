fn f(x: X, a: f32, b: f32) -> Y {
    return vec4<u32>(is_nan(x));
}
