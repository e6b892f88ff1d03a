// From sums to codes, as targets do it: quant::Factor. Needs shared/wide.wgsl and `factors`, words of
// ops::integer::device: three vec4 a factor of four channels. MODE: numbers of quant::Requantize, then QUOTIENT and those
// of what else becomes of sums. ROUNDING: numbers of quant::Rounding.
override MODE: u32 = 0u;
override ROUNDING: u32 = 0u;
// Whether integers have 32 bits, and all shifts lie from 33 to 63.
override FAR: u32 = 0u;

const DOUBLING_AWAY: u32 = 1u;
const DOUBLING_UP: u32 = 2u;
const FLOAT: u32 = 3u;
const QUOTIENT: u32 = 5u;
const ADDED: u32 = 6u;
const SUMS: u32 = 7u;
const REAL: u32 = 8u;
const MEAN_IN_F32: u32 = 9u;

struct Factor {
    m: vec4<u32>,
    by: vec4<i32>,
    // The multiplier of an addend.
    other: vec4<u32>,
}

fn factor(i: u32) -> Factor {
    return Factor(factors[3u * i], bitcast<vec4<i32>>(factors[3u * i + 1u]), factors[3u * i + 2u]);
}

// The magnitude of gemmlowp's product of a sum, saturated to 32 bits, with a multiplier.
fn doubled(x: Wide, f: Factor) -> vec4<u32> {
    let limit = select(vec4<u32>(0x7fffffffu), vec4<u32>(0x80000000u), x.negative);
    let within = select(min(x.a, limit), limit, (x.b | x.c | x.d) != vec4<u32>(0u));
    let left = vec4<u32>(clamp(31 - f.by, vec4<i32>(0), vec4<i32>(31)));
    let shifted = select(within << left, limit, within > (limit >> left));
    let p = product(shifted, f.m);
    let none = vec4<u32>();
    let nothing = vec4<bool>();
    let high = rounded_shift(Wide(p.low, p.high, none, none, x.negative), vec4<i32>(31), HALF_UP, nothing);
    let right = clamp(f.by - 31, vec4<i32>(0), vec4<i32>(62));
    let h = Wide(high, none, none, none, x.negative);
    if MODE == DOUBLING_UP {
        return rounded_shift(h, right, HALF_UP, nothing);
    }
    return rounded_shift(h, right, HALF_AWAY, nothing);
}

// significand * 2^exponent with a significand of at most 24 bits.
struct Binary {
    significand: vec4<u32>,
    exponent: vec4<i32>,
}

// The nearest f32 of a magnitude, ties to even.
fn nearest(x: Wide) -> Binary {
    let cut = vec4<i32>(max(bit_length(x), vec4<u32>(24u)) - vec4<u32>(24u));
    let s = rounded_shift(x, cut, HALF_EVEN, vec4<bool>());
    // 2^24 is 2^23, twice.
    let carry = s >> vec4<u32>(24u);
    return Binary(s >> carry, cut + vec4<i32>(carry));
}

// The significand of a positive f32 and its exponent.
fn parts(bits: vec4<u32>) -> Binary {
    let field = (bits >> vec4<u32>(23u)) & vec4<u32>(0xffu);
    let hidden = select(vec4<u32>(0u), vec4<u32>(0x800000u), field != vec4<u32>(0u));
    return Binary((bits & vec4<u32>(0x7fffffu)) | hidden, vec4<i32>(max(field, vec4<u32>(1u))) - 150);
}

// f32(x) * m, both rounded to f32, from integers: drivers may contract and convert otherwise.
fn float_product(x: Wide, m: vec4<u32>) -> Binary {
    let s = nearest(x);
    let f = parts(m);
    let p = product(s.significand, f.significand);
    let none = vec4<u32>();
    let y = nearest(Wide(p.low, p.high, none, none, x.negative));
    return Binary(y.significand, s.exponent + y.exponent + f.exponent);
}

// The same to the nearest integer.
fn floated(x: Wide, m: vec4<u32>) -> vec4<u32> {
    let y = float_product(x, m);
    let none = vec4<u32>();
    return rounded_shift(Wide(y.significand, none, none, none, x.negative), -y.exponent, HALF_EVEN, vec4<bool>());
}

// |x| / (m * 2^by), x below 2^64, m below 2^31.
fn divided(x: Wide, f: Factor) -> vec4<u32> {
    var low = x.a / f.m;
    var rest = x.a % f.m;
    var high = x.b / f.m;
    if any(x.b != vec4<u32>(0u)) {
        rest = x.b % f.m;
        low = vec4<u32>(0u);
        for (var bit = 32u; bit > 0u; bit--) {
            rest = (rest << vec4<u32>(1u)) | ((x.a >> vec4<u32>(bit - 1u)) & vec4<u32>(1u));
            let fits = rest >= f.m;
            rest = select(rest, rest - f.m, fits);
            low = (low << vec4<u32>(1u)) | ones(fits);
        }
    }
    // Bits behind the point: at least the half. All four have one shift.
    for (var bit = 1 - f.by.x; bit > 0; bit--) {
        high = select((high << vec4<u32>(1u)) | (low >> vec4<u32>(31u)), high, high != vec4<u32>(0u));
        rest = rest << vec4<u32>(1u);
        let fits = rest >= f.m;
        rest = select(rest, rest - f.m, fits);
        low = (low << vec4<u32>(1u)) | ones(fits);
    }
    let q = Wide(low, high, vec4<u32>(), vec4<u32>(), x.negative);
    return rounded_shift(q, max(f.by, vec4<i32>(1)), ROUNDING, rest != vec4<u32>(0u));
}

// rounded_shift of a product of a magnitude of 32 bits: all that counts lies in its high word.
fn far_shift(x: Wide, f: Factor) -> vec4<u32> {
    let p = product(x.a, f.m);
    let one = vec4<u32>(1u);
    let n = vec4<u32>(f.by - 33);
    let low = p.high >> n;
    let down = low >> one;
    var tie = vec4<bool>(true);
    if ROUNDING == HALF_EVEN {
        tie = (down & one) == one;
    } else if ROUNDING == HALF_UP {
        tie = !x.negative;
    }
    let lost = (p.high & ((one << n) - one)) | p.low;
    return down + ones(((low & one) == one) & ((lost != vec4<u32>(0u)) | tie));
}

// The magnitude of x times a factor, as an integer, at most MOST.
fn scaled(x: Wide, f: Factor) -> vec4<u32> {
    if FAR == 1u {
        return far_shift(x, f);
    }
    if MODE == DOUBLING_AWAY || MODE == DOUBLING_UP {
        return doubled(x, f);
    }
    if MODE == FLOAT {
        return floated(x, f.m);
    }
    if MODE == QUOTIENT {
        return divided(x, f);
    }
    return rounded_shift(times(x, f.m), f.by, ROUNDING, vec4<bool>());
}
