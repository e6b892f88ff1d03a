// Sums whose pairs of products saturate in 16 bits: quant::Accumulator::SaturatingPairs. Needs shared/sums_i64.wgsl and
// steps of x that are codes less params.finish.x_zero. SHIFT: what makes codes of x unsigned.
override SHIFT: u32 = 0u;

// Zero points of w, whose codes are as they are: of each four output channels.
@group(0) @binding(7) var<storage, read> w_zero: array<vec4<i32>>;

struct Pairs {
    sum: Sum,
    // Of an even element, until the one behind it is there.
    first: V,
}

// With element k of what is summed over: a pair is complete where k is odd. What zero points add is taken off at once.
fn paired(s: Pairs, k: u32, steps: V, code: V, zero: V) -> Pairs {
    let x_zero = params.finish.x_zero + i32(SHIFT);
    let added = x_zero * code + zero * steps;
    let both = s.first + (steps + x_zero) * code;
    if k % 2u == 0u {
        return Pairs(add_to(s.sum, -added), both);
    }
    return Pairs(add_to(s.sum, clamp(both, V(-32768), V(32767)) - added), V());
}

// A last element without another one fits 16 bits.
fn complete(s: Pairs) -> Sum {
    return add_to(s.sum, s.first);
}
