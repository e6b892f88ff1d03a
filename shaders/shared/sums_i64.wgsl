// What products of codes are summed in: 64 bits, in two's complement. SATURATE: whether sums saturate to 32 bits when all
// is summed.
override SATURATE: u32 = 0u;

alias E = i32;
alias V = vec4<i32>;

struct Sum {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn plus(s: Sum, v: Sum) -> Sum {
    let low = s.low + v.low;
    return Sum(low, s.high + v.high + ones(low < v.low));
}

// Steps of codes have at most 16 bits beside the sign, so that a product's magnitude has 32.
fn mul_add(a: V, b: V, s: Sum) -> Sum {
    let m = vec4<u32>(abs(a)) * vec4<u32>(abs(b));
    let negative = ((a ^ b) < vec4<i32>(0)) & (m != vec4<u32>(0u));
    let none = vec4<u32>(0u);
    return plus(s, Sum(select(m, none - m, negative), select(none, ~none, negative)));
}

fn add_to(s: Sum, v: V) -> Sum {
    let none = vec4<u32>(0u);
    return plus(s, Sum(bitcast<vec4<u32>>(v), select(none, ~none, v < vec4<i32>(0))));
}

fn whole(s: Sum, bias: V) -> Wide {
    let t = add_to(s, bias);
    let none = vec4<u32>(0u);
    let negative = t.high >= vec4<u32>(0x80000000u);
    let low = select(t.low, none - t.low, negative);
    let high = select(t.high, ~t.high + ones(t.low == none), negative);
    if SATURATE == 1u {
        let limit = select(vec4<u32>(0x7fffffffu), vec4<u32>(0x80000000u), negative);
        return Wide(select(min(low, limit), limit, high != none), none, none, none, negative);
    }
    return Wide(low, high, none, none, negative);
}
