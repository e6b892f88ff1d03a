// Signed integers of up to 127 bits, four at a time, which WGSL lacks: magnitudes as four words, the lowest first, and
// signs. Words that a caller knows to be zero cost nothing, as drivers fold them.
struct Wide {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
    negative: vec4<bool>,
}

// How halves are rounded: the numbers of quant::Rounding.
const HALF_EVEN: u32 = 0u;
const HALF_UP: u32 = 1u;
const HALF_AWAY: u32 = 2u;

// Magnitudes that are rounded saturate here.
const MOST: u32 = 0x7fffffffu;

fn ones(b: vec4<bool>) -> vec4<u32> {
    return select(vec4<u32>(0u), vec4<u32>(1u), b);
}

// 0 - u32(v), and not u32(-v), which overflows for the least of all integers.
fn wide(v: vec4<i32>) -> Wide {
    let bits = bitcast<vec4<u32>>(v);
    let negative = v < vec4<i32>(0);
    return Wide(select(bits, vec4<u32>(0u) - bits, negative), vec4<u32>(), vec4<u32>(), vec4<u32>(), negative);
}

struct Product {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn product(x: vec4<u32>, y: vec4<u32>) -> Product {
    let mask = vec4<u32>(0xffffu);
    let half = vec4<u32>(16u);
    let xl = x & mask;
    let xh = x >> half;
    let yl = y & mask;
    let yh = y >> half;
    let ll = xl * yl;
    let middle = xh * yl + (ll >> half);
    let upper = xl * yh + (middle & mask);
    return Product((upper << half) | (ll & mask), xh * yh + (middle >> half) + (upper >> half));
}

// The product with an integer that is not negative, which the caller guarantees to fit.
fn times(x: Wide, m: vec4<u32>) -> Wide {
    let p = product(x.a, m);
    let q = product(x.b, m);
    let r = product(x.c, m);
    let b = p.high + q.low;
    let carry = q.high + ones(b < p.high);
    let c = carry + r.low;
    let d = r.high + ones(c < carry) + x.d * m;
    return Wide(p.low, b, c, d, x.negative);
}

// Two's complement where `flip`, of words.
fn complement(x: Wide, flip: vec4<bool>) -> Wide {
    let mask = select(vec4<u32>(0u), vec4<u32>(0xffffffffu), flip);
    let a = (x.a ^ mask) + ones(flip);
    let to_b = ones(flip & (a == vec4<u32>(0u)));
    let b = (x.b ^ mask) + to_b;
    let to_c = to_b & ones(b == vec4<u32>(0u));
    let c = (x.c ^ mask) + to_c;
    let d = (x.d ^ mask) + (to_c & ones(c == vec4<u32>(0u)));
    return Wide(a, b, c, d, x.negative);
}

fn sum_of(x: Wide, y: Wide) -> Wide {
    let p = complement(x, x.negative);
    let q = complement(y, y.negative);
    let a = p.a + q.a;
    let to_b = ones(a < p.a);
    let pb = p.b + to_b;
    let b = pb + q.b;
    let to_c = ones(pb < to_b) | ones(b < pb);
    let pc = p.c + to_c;
    let c = pc + q.c;
    let d = p.d + q.d + (ones(pc < to_c) | ones(c < pc));
    let negative = d >= vec4<u32>(0x80000000u);
    return complement(Wide(a, b, c, d, negative), negative);
}

// |x| / 2^by, rounded once as `rule` says of x, at most MOST; a negative `by` multiplies. `more`: |x| lies between this
// magnitude and the next one.
fn rounded_shift(x: Wide, by: vec4<i32>, rule: u32, more: vec4<bool>) -> vec4<u32> {
    let none = vec4<u32>(0u);
    let one = vec4<u32>(1u);
    // One bit less, so that the lowest one left is the half.
    let n = vec4<u32>(clamp(by - 1, vec4<i32>(0), vec4<i32>(127)));
    let past_a = n >= vec4<u32>(32u);
    let past_b = n >= vec4<u32>(64u);
    let past_c = n >= vec4<u32>(96u);
    let w0 = select(select(select(x.a, x.b, past_a), x.c, past_b), x.d, past_c);
    let w1 = select(select(select(x.b, x.c, past_a), x.d, past_b), none, past_c);
    let above = select(select(x.c | x.d, x.d, past_a), none, past_b);
    let s = n & vec4<u32>(31u);
    let low = (w0 >> s) | ((w1 << one) << (vec4<u32>(31u) - s));
    let high = (w1 >> s) | above;
    let lost = select(none, x.a, past_a) | select(none, x.b, past_b) | select(none, x.c, past_c)
        | (w0 & ((one << s) - one));
    let down = select(low >> one, vec4<u32>(MOST), high != none);
    var tie = vec4<bool>(true);
    if rule == HALF_EVEN {
        tie = (down & one) == one;
    } else if rule == HALF_UP {
        tie = !x.negative;
    }
    let up = ((low & one) == one) & ((lost != none) | more | tie);
    let right = min(down + ones(up), vec4<u32>(MOST));
    // To the left.
    let left = vec4<u32>(clamp(-by, vec4<i32>(0), vec4<i32>(31)));
    let some = (x.a | x.b | x.c | x.d) != none;
    let beyond = ((x.b | x.c | x.d | (x.a >> (vec4<u32>(31u) - left))) != none) | (some & (by < vec4<i32>(-31)));
    return select(right, select(x.a << left, vec4<u32>(MOST), beyond), by <= vec4<i32>(0));
}

fn bit_length(x: Wide) -> vec4<u32> {
    let zero = vec4<u32>(0u);
    let a = vec4<u32>(32u) - countLeadingZeros(x.a);
    let b = select(a, vec4<u32>(64u) - countLeadingZeros(x.b), x.b != zero);
    let c = select(b, vec4<u32>(96u) - countLeadingZeros(x.c), x.c != zero);
    return select(c, vec4<u32>(128u) - countLeadingZeros(x.d), x.d != zero);
}
