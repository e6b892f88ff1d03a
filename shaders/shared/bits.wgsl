// What is asked of a float's bits, because float comparisons of drivers may drop NaNs and flush denormals.
fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn is_inf(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) == vec4<u32>(0x7f800000u);
}

fn is_negative(x: vec4<f32>) -> vec4<bool> {
    return bitcast<vec4<u32>>(x) >= vec4<u32>(0x80000000u);
}

// `var`, since a constant expression must be finite.
fn infinity() -> vec4<f32> {
    var bits = 0x7f800000u;
    return vec4<f32>(bitcast<f32>(bits));
}

fn not_a_number() -> vec4<f32> {
    var bits = 0x7fc00000u;
    return vec4<f32>(bitcast<f32>(bits));
}

// The magnitude of m with the sign of x.
fn with_sign(m: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
    let sign = bitcast<vec4<u32>>(x) & vec4<u32>(0x80000000u);
    return bitcast<vec4<f32>>((bitcast<vec4<u32>>(m) & vec4<u32>(0x7fffffffu)) | sign);
}

// An integer ordered as the floats are, NaN aside; 0 and -0 share one.
fn order_key(x: vec4<f32>) -> vec4<i32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = vec4<i32>(bits & vec4<u32>(0x7fffffffu));
    return select(magnitude, -magnitude, bits >= vec4<u32>(0x80000000u));
}
