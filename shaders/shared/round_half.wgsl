// The nearest number of a narrower type, ties to even, in the bits of an f32; NaN stays as it is. Integer arithmetic only,
// because drivers may flush denormals.

// Drops the lowest d bits, 1 to 23, of magnitudes, rounding; a carry into the exponent is the next power of two.
fn drop_bits(m: vec4<u32>, d: vec4<u32>) -> vec4<u32> {
    let one = vec4<u32>(1u);
    let half = (one << (d - one)) - one;
    return (m + half + ((m >> d) & one)) & ~((one << d) - one);
}

fn with_sign_or_nan(rounded: vec4<u32>, bits: vec4<u32>) -> vec4<u32> {
    let signed = rounded | (bits & vec4<u32>(0x80000000u));
    return select(signed, bits, (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}

fn to_bf16(bits: vec4<u32>) -> vec4<u32> {
    let m = bits & vec4<u32>(0x7fffffffu);
    return with_sign_or_nan(drop_bits(m, vec4<u32>(16u)), bits);
}

// From exponent 113 (2^-14) on 13 bits are dropped, below it one more for each halving: multiples of 2^-24 are left.
fn to_f16(bits: vec4<u32>) -> vec4<u32> {
    let m = bits & vec4<u32>(0x7fffffffu);
    let exponent = clamp(m >> vec4<u32>(23u), vec4<u32>(103u), vec4<u32>(113u));
    var out = drop_bits(m, vec4<u32>(126u) - exponent);
    // Below 2^-24 there are two choices, and half of it is a tie to 0.
    out = select(out, vec4<u32>(0x33800000u), m < vec4<u32>(0x33800000u));
    out = select(out, vec4<u32>(0u), m <= vec4<u32>(0x33000000u));
    // From 2^16 on.
    out = select(out, vec4<u32>(0x7f800000u), out >= vec4<u32>(0x47800000u));
    return with_sign_or_nan(out, bits);
}
