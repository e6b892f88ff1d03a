// |v|^p for a whole p of at least 1, and the p-th root of the sum.
fn enter(v: vec4<f32>) -> vec4<f32> {
    let a = abs(v);
    var r = a;
    for (var k = 1u; k < params.p; k++) {
        r *= a;
    }
    return r;
}

fn leave(total: vec4<f32>, counted: u32) -> vec4<f32> {
    if params.p == 1u {
        return total;
    }
    if params.p == 2u {
        return sqrt(total);
    }
    return select(vec4<f32>(0.0), pow(total, vec4<f32>(1.0 / f32(params.p))), total > vec4<f32>(0.0));
}
