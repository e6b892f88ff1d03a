// One step function of quant::Step: codes of four numbers. Needs shared/bits.wgsl.
// ROUNDING 0 half_even, 1 half_up, 2 half_away. DIVISION 0 multiply, 1 divide, 2 real.
//
// Division of drivers may be off by some ulps, so a quotient is estimated with the reciprocal: off by at most 2^-7
// where it matters, below 2^16. Only near a half is the code decided anew, by comparing in 64-bit integers.
override ROUNDING: u32 = 0u;
override DIVISION: u32 = 0u;

struct Quantizer {
    scale: vec4<f32>,
    inverse: vec4<f32>,
    zero_point: vec4<i32>,
    low: i32,
    high: i32,
}

// The product of two u32, low word first.
fn product(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let ll = al * bl;
    let middle = ah * bl + (ll >> 16u);
    let upper = al * bh + (middle & 0xffffu);
    return vec2<u32>((upper << 16u) | (ll & 0xffffu), ah * bh + (middle >> 16u) + (upper >> 16u));
}

fn significand(bits: u32) -> u32 {
    return (bits & 0x7fffffu) | 0x800000u;
}

// The sign of |x| / scale - n * 2^e, where the quotient is known to be within a few percent of it, n has 25 or 26 bits.
fn compare(x_bits: u32, scale_bits: u32, n: u32, e: i32) -> i32 {
    let right = product(n, significand(scale_bits));
    // |x| = significand * 2^(exponent - 150), the scale likewise; both sides in units of 2^(e + scale's exponent).
    let shift = u32(i32((x_bits & 0x7fffffffu) >> 23u) - i32(scale_bits >> 23u) - e);
    let m = significand(x_bits);
    let left = vec2<u32>(m << shift, m >> (32u - shift));
    if left.y != right.y {
        return select(-1, 1, left.y > right.y);
    }
    if left.x != right.x {
        return select(-1, 1, left.x > right.x);
    }
    return 0;
}

// Where |x| / scale lies against t / 2, t odd: below, at, above it (-1, 0, 1), after the rounding of DIVISION.
fn against_half(x_bits: u32, scale_bits: u32, t: u32) -> i32 {
    // t / 2 = n * 2^e with n of 26 bits.
    let spare = countLeadingZeros(t) - 6u;
    let n = t << spare;
    let e = -1 - i32(spare);
    if DIVISION == 2u {
        return compare(x_bits, scale_bits, n, e);
    }
    // f32 rounds to t / 2 what is not beyond half an ulp, two units, of it. Below 1/2 ulps are half as long.
    // A quotient in the middle goes to the even significand, which is that of t / 2.
    let below = select(2u, 1u, t == 1u);
    if compare(x_bits, scale_bits, n + 2u, e) > 0 {
        return 1;
    }
    return select(0, -1, compare(x_bits, scale_bits, n - below, e) < 0);
}

// Rounds v, whose place between down and down + 1 is rest.
fn rounded(down: vec4<f32>, rest: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    var up = rest > vec4<f32>(0.5);
    let tie = rest == vec4<f32>(0.5);
    if ROUNDING == 0u {
        up |= tie & (floor(down * 0.5) * 2.0 != down);
    } else if ROUNDING == 1u {
        up |= tie;
    } else {
        up |= tie & !is_negative(v);
    }
    return select(down, down + 1.0, up);
}

fn decided(x: f32, scale: f32, down: f32) -> f32 {
    let x_bits = bitcast<u32>(x);
    // Halves as odd integers; down is floor of the quotient, so that |half| is down + 1/2 or its negative.
    let t = u32(abs(2.0 * down + 1.0));
    var side = against_half(x_bits, bitcast<u32>(scale), t);
    if x_bits >= 0x80000000u {
        side = -side;
    }
    return 0.5 + 0.25 * f32(side);
}

// Codes; NaN becomes the zero point.
fn quantize(x: vec4<f32>, q: Quantizer) -> vec4<i32> {
    let v = clamp(x * q.inverse, vec4<f32>(-131072.0), vec4<f32>(131072.0));
    let down = floor(v);
    var rest = v - down;
    if DIVISION == 0u {
        // Exact but for numbers just above -1/2, which the subtraction rounds to a tie.
        rest = select(rest, vec4<f32>(0.75), (v > vec4<f32>(-0.5)) & (v < vec4<f32>(0.0)));
    } else {
        let near = (abs(rest - vec4<f32>(0.5)) < vec4<f32>(0.03125)) & (abs(v) < vec4<f32>(65537.0));
        for (var l = 0u; l < 4u; l += 1u) {
            if near[l] {
                rest[l] = decided(x[l], q.scale[l], down[l]);
            }
        }
    }
    let code = vec4<i32>(rounded(down, rest, x)) + q.zero_point;
    return select(clamp(code, vec4<i32>(q.low), vec4<i32>(q.high)), q.zero_point, is_nan(x));
}

// Exact differences of codes times the scale, rounded once.
fn dequantize(code: vec4<i32>, q: Quantizer) -> vec4<f32> {
    return vec4<f32>(code - q.zero_point) * q.scale;
}
