// Arithmetic of f32 from integers, each operation rounded once, ties to even: where drivers may contract, and divide with
// an error. Needs shared/wide.wgsl and shared/requantize.wgsl. Numbers below 2^-126 keep more bits than an f32.
struct Float {
    significand: vec4<u32>,
    exponent: vec4<i32>,
    negative: vec4<bool>,
}

fn float(bits: vec4<u32>) -> Float {
    let p = parts(bits);
    return Float(p.significand, p.exponent, bits >= vec4<u32>(0x80000000u));
}

// An integer of up to 24 bits.
fn whole_float(v: i32) -> Float {
    return Float(vec4<u32>(u32(abs(v))), vec4<i32>(0), vec4<bool>(v < 0));
}

fn shifted_left(x: Wide, n: vec4<u32>) -> Wide {
    let none = vec4<u32>(0u);
    let one = vec4<u32>(1u);
    let s = n & vec4<u32>(31u);
    let back = vec4<u32>(31u) - s;
    let a = x.a << s;
    let b = (x.b << s) | ((x.a >> one) >> back);
    let c = (x.c << s) | ((x.b >> one) >> back);
    let d = (x.d << s) | ((x.c >> one) >> back);
    let one_word = n >= vec4<u32>(32u);
    let two = n >= vec4<u32>(64u);
    return Wide(
        select(a, none, one_word),
        select(select(b, a, one_word), none, two),
        select(select(c, b, one_word), a, two),
        select(select(d, c, one_word), b, two),
        x.negative,
    );
}

// x * 2^e + y, for x of up to 48 bits.
fn float_sum(x: Wide, e: vec4<i32>, y: Float) -> Float {
    let none = vec4<u32>(0u);
    let x_is_zero = (x.a | x.b) == none;
    let y_is_zero = y.significand == none;
    let apart = select(e - y.exponent, vec4<i32>(0), x_is_zero | y_is_zero);
    // So far below the other one, a number counts only by its sign.
    let y_is_tiny = apart > vec4<i32>(64);
    let x_is_tiny = apart < vec4<i32>(-80);
    let by = clamp(apart, vec4<i32>(-80), vec4<i32>(64));
    let a = select(x.a, vec4<u32>(1u), x_is_tiny);
    let b = select(x.b, none, x_is_tiny);
    let left = shifted_left(Wide(a, b, none, none, x.negative), vec4<u32>(max(by, vec4<i32>(0))));
    let s = select(y.significand, vec4<u32>(1u), y_is_tiny);
    let right = shifted_left(Wide(s, none, none, none, y.negative), vec4<u32>(max(-by, vec4<i32>(0))));
    let both = sum_of(left, right);
    let r = nearest(both);
    // The exponent of the smaller one, or of what stands for it.
    let base = select(e, y.exponent + (apart - by), apart > vec4<i32>(0));
    let of_x = select(base, y.exponent, x_is_zero);
    let of_tiny = select(of_x, y.exponent - 80, x_is_tiny);
    return Float(r.significand, r.exponent + select(of_tiny, e, y_is_zero), both.negative);
}

// p * m + c, rounded once, for a positive m.
fn fused(p: vec4<i32>, m: vec4<u32>, c: Float) -> Float {
    let x = wide(p);
    let f = parts(m);
    return float_sum(times(x, f.significand), f.exponent, c);
}

// x / y, for a positive y.
fn float_quotient(x: Float, y: Float) -> Float {
    let up = countLeadingZeros(x.significand) - vec4<u32>(8u);
    let down = countLeadingZeros(y.significand) - vec4<u32>(8u);
    var rest = x.significand << up;
    let by = y.significand << down;
    var q = vec4<u32>(0u);
    // One bit before the point, 27 behind it: 24 bits, a half, and what is left.
    for (var bit = 0u; bit < 28u; bit++) {
        let fits = rest >= by;
        rest = select(rest, rest - by, fits) << vec4<u32>(1u);
        q = (q << vec4<u32>(1u)) | ones(fits);
    }
    // The last bit stands for all that follow.
    q |= ones(rest != vec4<u32>(0u));
    let none = vec4<u32>();
    let r = nearest(Wide(q, none, none, none, x.negative));
    let exponent = x.exponent - vec4<i32>(up) - y.exponent + vec4<i32>(down) - 27;
    return Float(r.significand, r.exponent + exponent, x.negative);
}

// The nearest code, of a number that has the zero point in it.
fn nearest_code(f: Float) -> vec4<i32> {
    let none = vec4<u32>();
    let x = Wide(f.significand, none, none, none, f.negative);
    let near = vec4<i32>(min(rounded_shift(x, -f.exponent, HALF_EVEN, vec4<bool>()), vec4<u32>(0x4000000u)));
    return clamp(select(near, -near, f.negative), vec4<i32>(params.finish.low), vec4<i32>(params.finish.high));
}
