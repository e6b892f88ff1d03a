fn f(a: A, b: B, p: f32) -> Y {
    return pow_f32(a, vec4<f32>(b), vec4<bool>(true), (b & B(1)) != B());
}
