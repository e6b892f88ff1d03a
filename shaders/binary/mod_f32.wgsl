// The remainder of a / b toward zero, exact, by long division of the mantissas eight bits at a time.
fn remainder(a: f32, b: f32) -> f32 {
    let a_bits = bitcast<u32>(a) & 0x7fffffffu;
    let b_bits = bitcast<u32>(b) & 0x7fffffffu;
    let sign = bitcast<u32>(a) & 0x80000000u;
    if a_bits >= 0x7f800000u || b_bits > 0x7f800000u || b_bits == 0u {
        return not_a_number().x;
    }
    if a_bits < b_bits {
        return a;
    }
    // Denormals have the exponent of the smallest normal numbers, and no hidden bit.
    let a_e = max(a_bits >> 23u, 1u);
    let b_e = max(b_bits >> 23u, 1u);
    let a_m = (a_bits & 0x7fffffu) | select(0u, 0x800000u, a_bits >= 0x800000u);
    let b_m = (b_bits & 0x7fffffu) | select(0u, 0x800000u, b_bits >= 0x800000u);
    var r = a_m % b_m;
    for (var left = a_e - b_e; left > 0u;) {
        let step = min(left, 8u);
        r = (r << step) % b_m;
        left -= step;
    }
    if r == 0u {
        return bitcast<f32>(sign);
    }
    let shift = countLeadingZeros(r) - 8u;
    if b_e > shift {
        return bitcast<f32>(sign | ((b_e - shift) << 23u) | ((r << shift) & 0x7fffffu));
    }
    return bitcast<f32>(sign | (r << (b_e - 1u)));
}

fn f(a: A, b: B, p: f32) -> Y {
    return Y(remainder(a.x, b.x), remainder(a.y, b.y), remainder(a.z, b.z), remainder(a.w, b.w));
}
