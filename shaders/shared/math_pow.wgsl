// pow to about 2 ulp. log2(x) is carried in two floats whose factors are cut to 12 bits, so that their products are
// exact; a plain exp2(y * log2(x)) loses as many bits as the result's exponent has.
fn top_bits(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xfffff000u));
}

// x finite and above 0, y finite.
fn pow_positive(x: vec4<f32>, y: vec4<f32>) -> vec4<f32> {
    let l = log_parts(x);
    // s = f / (2 + f); log2(1 + f) = 2 / ln(2) * (s + s^3 p(s^2)), p fitted to 1e-9.
    let d = l.f + 2.0;
    let d_hi = top_bits(d);
    let d_lo = l.f - (d_hi - 2.0);
    let s = l.f / d;
    let s_hi = top_bits(s);
    let s_lo = ((l.f - s_hi * d_hi) - s_hi * d_lo) / d;
    let z = s * s;
    var p = z * 0.14936861 + 0.19988737;
    p = p * z + 0.33333388;
    // 2 / ln(2) = 2.884765625 + 0.0006244568
    let hi = s_hi * 2.884765625;
    let lo = s_hi * 0.0006244568 + (s_lo * 2.88539 + s * z * p * 2.88539);
    let hi_12 = top_bits(hi);
    let y_hi = top_bits(y);
    let y_lo = y - y_hi;
    let t = y * (l.e + hi);
    // The integer parts of the large products, then all that is left.
    let from_e = y_hi * l.e;
    let from_s = y_hi * hi_12;
    let n_e = floor(from_e + 0.5);
    let n_s = floor(from_s + 0.5);
    let rest = (from_e - n_e) + (from_s - n_s) + (y_lo * l.e + y_lo * hi_12 + y * (hi - hi_12) + y * lo);
    let e = exp_parts(clamp(rest, vec4<f32>(-4.0), vec4<f32>(4.0)) * 0.6931472);
    let n = clamp(n_e + n_s + e.n, vec4<f32>(-250.0), vec4<f32>(250.0));
    let out = scale_by_power(1.0 + e.m, vec4<i32>(n));
    return select(select(out, infinity(), t > vec4<f32>(129.0)), vec4<f32>(0.0), t < vec4<f32>(-152.0));
}

// As C's pow. `integer` and `odd` say so of y.
fn pow_f32(x: vec4<f32>, y: vec4<f32>, integer: vec4<bool>, odd: vec4<bool>) -> vec4<f32> {
    let m = abs(x);
    let one = vec4<f32>(1.0);
    let zero = vec4<f32>(0.0);
    let x_zero = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) == vec4<u32>(0u);
    let y_zero = (bitcast<vec4<u32>>(y) & vec4<u32>(0x7fffffffu)) == vec4<u32>(0u);
    let x_inf = is_inf(x);
    let y_inf = is_inf(y);
    var out = pow_positive(select(m, one, x_zero | x_inf), select(y, one, y_inf));
    let falls = is_negative(y);
    out = select(out, select(zero, infinity(), falls), x_zero);
    out = select(out, select(infinity(), zero, falls), x_inf);
    out = select(out, select(select(infinity(), zero, falls == (m > one)), one, m == one), y_inf);
    let no_root = is_negative(x) & !integer & !x_zero & !x_inf & !y_inf;
    out = select(out, not_a_number(), no_root);
    out = select(out, -out, is_negative(x) & odd);
    out = select(out, x, y == one);
    out = select(out, x * x, y == vec4<f32>(2.0));
    out = select(out, not_a_number(), is_nan(x) | is_nan(y));
    return select(out, one, (x == one) | y_zero);
}
