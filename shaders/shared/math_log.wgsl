// log and log1p to about 1 ulp, denormals included. On -0.293..0.415,
// log(1 + f) = f - f^2/2 + f^3 p(f), p fitted to 3.2e-9. A driver's log is only good to 2^-21 absolute near 1.
fn log1p_near_0(f: vec4<f32>) -> vec4<f32> {
    var p = f * 0.067483455 - 0.116778865;
    p = p * f + 0.11888634;
    p = p * f - 0.12405277;
    p = p * f + 0.14219452;
    p = p * f - 0.16668008;
    p = p * f + 0.20002124;
    p = p * f - 0.2500001;
    p = p * f + 0.33333313;
    let f2 = f * f;
    return f + (f2 * f * p - 0.5 * f2);
}

struct LogParts {
    // x = 2^e (1 + f), 1 + f in sqrt(1/2)..sqrt(2)
    e: vec4<f32>,
    f: vec4<f32>,
}

// x finite and above 0.
fn log_parts(x: vec4<f32>) -> LogParts {
    var bits = bitcast<vec4<u32>>(x);
    // A denormal is an integer times 2^-149.
    let denormal = bits < vec4<u32>(0x00800000u);
    bits = select(bits, bitcast<vec4<u32>>(vec4<f32>(bits)), denormal);
    // 0x3f3504f3 is sqrt(1/2).
    let shifted = bits - vec4<u32>(0x3f3504f3u);
    var e = bitcast<vec4<i32>>(shifted) >> vec4<u32>(23u);
    let m = bitcast<vec4<f32>>(bits - (vec4<u32>(e) << vec4<u32>(23u)));
    e = select(e, e - vec4<i32>(149), denormal);
    return LogParts(vec4<f32>(e), m - 1.0);
}

fn log_f32(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x);
    let p = log_parts(x);
    let y = (log1p_near_0(p.f) - p.e * 0.00021219444) + p.e * 0.693359375;
    let zero = (bits & vec4<u32>(0x7fffffffu)) == vec4<u32>(0u);
    var out = select(y, x, bits == vec4<u32>(0x7f800000u));
    out = select(out, not_a_number(), is_negative(x));
    return select(out, -infinity(), zero);
}

fn log1p_f32(x: vec4<f32>) -> vec4<f32> {
    let near = (x > vec4<f32>(-0.29)) & (x < vec4<f32>(0.41));
    return select(log_f32(1.0 + x), log1p_near_0(x), near);
}
