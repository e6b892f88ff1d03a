// atan and asin to about 2 ulp; polynomials fitted to 6e-9.
fn atan_f32(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let steep = a > vec4<f32>(2.4142137);
    let middle = a > vec4<f32>(0.41421357);
    // 1e30: an infinity in a division is not to be relied on.
    let bounded = min(a, vec4<f32>(1e30));
    var t = select(bounded, (bounded - 1.0) / (bounded + 1.0), middle);
    t = select(t, -1.0 / max(bounded, vec4<f32>(1.0)), steep);
    var base = select(vec4<f32>(0.0), vec4<f32>(0.7853982), middle);
    base = select(base, vec4<f32>(1.5707964), steep);
    let z = t * t;
    var p = 0.10595642 - z * 0.06082494;
    p = p * z - 0.14243802;
    p = p * z + 0.19998488;
    p = p * z - 0.33333316;
    return with_sign(base + (t + t * z * p), x);
}

// asin of 0..0.5.
fn asin_near_0(x: vec4<f32>) -> vec4<f32> {
    let z = x * x;
    var p = z * 0.04223055 + 0.024140988;
    p = p * z + 0.045478344;
    p = p * z + 0.07495233;
    p = p * z + 0.16666754;
    return x + x * z * p;
}
