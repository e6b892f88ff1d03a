// p + q, both at scales of their own: quant::Addition. factors: one of each operand, then one of their sum.

fn shifted(p: vec4<i32>) -> Wide {
    let x = wide(p);
    return Wide(x.a << vec4<u32>(20u), x.a >> vec4<u32>(12u), x.c, x.d, x.negative);
}

fn combined(p: vec4<i32>, q: vec4<i32>) -> vec4<i32> {
    let of_p = factor(0u);
    let of_q = factor(1u);
    let of_sum = factor(2u);
    if MODE == DOUBLING_AWAY || MODE == DOUBLING_UP {
        let none = vec4<u32>();
        let l = shifted(p);
        let r = shifted(q);
        let x = Wide(doubled(l, of_p), none, none, none, l.negative);
        let y = Wide(doubled(r, of_q), none, none, none, r.negative);
        let both = sum_of(x, y);
        return placed(doubled(both, of_sum), both.negative);
    }
    if MODE == FLOAT {
        return nearest_code(fused(p, of_p.m, fused(q, of_q.m, float(of_sum.m))));
    }
    // Four words of the multiplier of each operand: both products exact, their sum rounded once.
    let l = wide(p);
    let r = wide(q);
    let m = Wide(vec4<u32>(of_p.m.x), vec4<u32>(of_p.m.y), vec4<u32>(of_p.m.z), vec4<u32>(of_p.m.w), l.negative);
    let n = Wide(vec4<u32>(of_q.m.x), vec4<u32>(of_q.m.y), vec4<u32>(of_q.m.z), vec4<u32>(of_q.m.w), r.negative);
    let both = sum_of(times(m, l.a), times(n, r.a));
    return placed(rounded_shift(both, of_sum.by, ROUNDING, vec4<bool>()), both.negative);
}
