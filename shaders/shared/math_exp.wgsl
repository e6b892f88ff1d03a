// exp and expm1 to about 1 ulp. e^x = 2^n * e^r with |r| <= ln(2)/2 and e^r - 1 = r + r^2 q(r), q fitted to 1.2e-9.
// A driver's exp may be wrong by 3 + 2|x| ulp.
struct ExpParts {
    n: vec4<f32>,
    // e^r - 1
    m: vec4<f32>,
}

fn exp_parts(x: vec4<f32>) -> ExpParts {
    let n = floor(x * 1.442695 + 0.5);
    // ln(2) in two parts, the first short enough for n * part to be exact.
    let r = (x - n * 0.693359375) + n * 0.00021219444;
    var q = r * 0.00019790062 + 0.0013944943;
    q = q * r + 0.008333499;
    q = q * r + 0.04166629;
    q = q * r + 0.16666666;
    q = q * r + 0.5;
    return ExpParts(n, r + r * r * q);
}

// 2^n for n in -126..=127.
fn power_of_two(n: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(n + vec4<i32>(127)) << vec4<u32>(23u));
}

// x * 2^n for |n| <= 252, in two steps so that neither power leaves the range.
fn scale_by_power(x: vec4<f32>, n: vec4<i32>) -> vec4<f32> {
    let half = n >> vec4<u32>(1u);
    return x * power_of_two(half) * power_of_two(n - half);
}

fn exp_f32(x: vec4<f32>) -> vec4<f32> {
    let p = exp_parts(clamp(x, vec4<f32>(-105.0), vec4<f32>(90.0)));
    let y = scale_by_power(1.0 + p.m, vec4<i32>(p.n));
    return select(y, infinity(), x > vec4<f32>(88.72284));
}

fn expm1_f32(x: vec4<f32>) -> vec4<f32> {
    let p = exp_parts(clamp(x, vec4<f32>(-30.0), vec4<f32>(60.0)));
    let scale = power_of_two(vec4<i32>(p.n));
    let y = scale * p.m + (scale - 1.0);
    // Beyond, the 1 is below the last bit.
    return select(y, exp_f32(x), x > vec4<f32>(40.0));
}
