// sin and cos of any finite float to about 1 ulp of 1: x = k pi/2 + r, then polynomials on |r| <= pi/4 fitted to 4e-9.
// A driver's are only good to 2^-11, and only in -pi..pi.
struct TrigParts {
    // k modulo 4
    k: vec4<u32>,
    r: vec4<f32>,
}

// (high, low) words of a * b.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let mid = ah * bl + ((al * bl) >> 16u);
    let mid2 = al * bh + (mid & 0xffffu);
    return vec2<u32>(ah * bh + (mid >> 16u) + (mid2 >> 16u), a * b);
}

// Word i of 2/pi as a binary fraction behind one word of zeros.
fn two_over_pi(i: u32) -> u32 {
    var words = array<u32, 8>(
        0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu
    );
    return words[i];
}

// 32 bits of 2/pi from bit `at` of those words.
fn two_over_pi_bits(at: u32) -> u32 {
    let word = two_over_pi(at >> 5u);
    let bit = at & 31u;
    if bit == 0u {
        return word;
    }
    return (word << bit) | (two_over_pi((at >> 5u) + 1u) >> (32u - bit));
}

// Payne and Hanek, for |x| >= 2^12: the integer mantissa times those bits of 2/pi that do not make whole turns.
// Returns k as a float, and r.
fn reduce_large(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    // |x| = mantissa * 2^(e - 150). Bits of 2/pi whose product is a multiple of 4 are left out.
    let at = ((bits >> 23u) & 0xffu) - 120u;
    let w0 = two_over_pi_bits(at);
    let w1 = two_over_pi_bits(at + 32u);
    let w2 = two_over_pi_bits(at + 64u);
    // high:low = turns as a 64-bit fraction.
    let p1 = wide_product(mantissa, w1);
    let low = p1.y + wide_product(mantissa, w2).x;
    let high = mantissa * w0 + p1.x + select(0u, 1u, low < p1.y);
    // The nearest quarter, and what is left of it, at most 2^29 in `h`.
    var quarter = ((high >> 29u) + 1u) >> 1u;
    var h = high - (quarter << 30u);
    var l = low;
    let below = h >= 0x80000000u;
    if below {
        l = ~l + 1u;
        h = ~h + select(0u, 1u, l == 0u);
    }
    let rest = (f32(h) * 9.313226e-10 + f32(l) * 2.1684043e-19) * 1.5707964;
    let r = select(rest, -rest, below);
    if bits >= 0x80000000u {
        return vec2<f32>(f32((4u - quarter) & 3u), -r);
    }
    return vec2<f32>(f32(quarter & 3u), r);
}

fn trig_parts(x: vec4<f32>) -> TrigParts {
    let k = floor(x * 0.63661975 + 0.5);
    // pi/2 in parts of 8, 11 and 24 bits: k * part is exact for the first two.
    let r = ((x - k * 1.5703125) - k * 0.0004837513) - k * 7.54979e-8;
    var parts = TrigParts(vec4<u32>(vec4<i32>(clamp(k, vec4<f32>(-1e6), vec4<f32>(1e6)))) & vec4<u32>(3u), r);
    for (var i = 0u; i < 4u; i++) {
        if abs(x[i]) > 4096.0 {
            let large = reduce_large(x[i]);
            parts.k[i] = u32(large.x);
            parts.r[i] = large.y;
        }
    }
    return parts;
}

fn sin_near_0(r: vec4<f32>) -> vec4<f32> {
    let z = r * r;
    var p = z * 2.7175645e-6 - 0.00019839256;
    p = p * z + 0.008333329;
    p = p * z - 0.16666667;
    return r + r * z * p;
}

fn cos_near_0(r: vec4<f32>) -> vec4<f32> {
    let z = r * r;
    var p = z * 2.443120502e-5 - 0.0013887306;
    p = p * z + 0.041666646;
    return 1.0 + (z * z * p - 0.5 * z);
}

// sin(x + quarter * pi/2); NaN of an infinity.
fn sin_quarters(x: vec4<f32>, quarters: u32) -> vec4<f32> {
    let p = trig_parts(x);
    let k = p.k + quarters;
    let y = select(sin_near_0(p.r), cos_near_0(p.r), (k & vec4<u32>(1u)) != vec4<u32>(0u));
    let signed_y = select(y, -y, (k & vec4<u32>(2u)) != vec4<u32>(0u));
    return select(signed_y, not_a_number(), is_inf(x));
}
