// What becomes of integers (ops::integer::device): codes, sums of 32 bits, or numbers in the bits of an f32. Needs
// shared/wide.wgsl, shared/requantize.wgsl and a field `finish` of Params.
struct Finish {
    // Zero points of input 0, of the output, of the addend.
    x_zero: i32,
    y_zero: i32,
    addend_zero: i32,
    low: i32,
    high: i32,
    // Factors from one group of four channels to the next: 0 or 1.
    step: u32,
    pad0: u32,
    pad1: u32,
}

// A number of steps, at most MOST, as a code.
fn placed(magnitude: vec4<u32>, negative: vec4<bool>) -> vec4<i32> {
    // Far beyond every code, and far from overflow.
    let near = vec4<i32>(min(magnitude, vec4<u32>(0x4000000u)));
    let code = select(near, -near, negative) + params.finish.y_zero;
    return clamp(code, vec4<i32>(params.finish.low), vec4<i32>(params.finish.high));
}

fn saturated(x: Wide) -> vec4<i32> {
    let limit = select(vec4<u32>(0x7fffffffu), vec4<u32>(0x80000000u), x.negative);
    let m = select(min(x.a, limit), limit, (x.b | x.c | x.d) != vec4<u32>(0u));
    return bitcast<vec4<i32>>(select(m, vec4<u32>(0u) - m, x.negative));
}

// f32(x) to the nearest, times scale, as bits.
fn real(x: Wide, scale: vec4<u32>) -> vec4<i32> {
    let s = nearest(x);
    // Exact: the significand has at most 24 bits.
    let bits = bitcast<vec4<u32>>(vec4<f32>(s.significand)) + (vec4<u32>(s.exponent) << vec4<u32>(23u));
    let signed = bits | (ones(x.negative) << vec4<u32>(31u));
    let v = bitcast<vec4<f32>>(select(signed, vec4<u32>(0u), s.significand == vec4<u32>(0u)));
    return bitcast<vec4<i32>>(v * bitcast<vec4<f32>>(scale));
}

// The factors of channels 4q to 4q + 3.
fn factor_of(q: u32) -> Factor {
    return factor(q * params.finish.step);
}

// What becomes of integers; `addend` are codes.
fn finished(x: Wide, f: Factor, addend: vec4<i32>) -> vec4<i32> {
    if MODE == SUMS {
        return saturated(x);
    }
    if MODE == REAL {
        return real(x, f.m);
    }
    if MODE == ADDED {
        let added = times(wide(addend - params.finish.addend_zero), f.other);
        let both = sum_of(times(x, f.m), added);
        return placed(rounded_shift(both, f.by, ROUNDING, vec4<bool>()), both.negative);
    }
    return placed(scaled(x, f), x.negative);
}
