fn f(x: X, a: f32, b: f32) -> Y {
    let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
    let one_to_two = bitcast<vec4<f32>>((bits & vec4<u32>(0x007fffffu)) | vec4<u32>(0x3f800000u));
    return select(one_to_two, X(), is_inf(x) | (bits < vec4<u32>(0x00800000u)));
}
