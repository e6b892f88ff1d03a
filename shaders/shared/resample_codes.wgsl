// Parameters of shared/resample.wgsl for codes, and what becomes of their taps: finished(sum of w0 * w1 * w2 * (x - zero
// point)) (shared/finish.wgsl), or the fill where one is outside. Weights have at most 12 bits, so that 32 bits hold sums
// along one axis. Whoever links this defines load(i), the codes of element i of x.
struct Params {
    finish: Finish,
    n: u32,
    rank: u32,
    fill: i32,
    c: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
    slots: array<vec4<u32>, 2>,
    tables: vec4<u32>,
    taps: vec4<u32>,
    c4: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> factors: array<vec4<u32>>;

// v * weight, in two's complement.
fn weighted(v: V, weight: u32) -> Sum {
    let p = product(vec4<u32>(abs(v)), vec4<u32>(weight));
    let none = vec4<u32>(0u);
    let negative = v < V();
    let high = select(p.high, ~p.high + ones(p.low == none), negative);
    return Sum(select(p.low, none - p.low, negative), high);
}

fn resampled(t: Taps) -> vec4<i32> {
    if !t.inside {
        return vec4<i32>(params.fill);
    }
    var sum = Sum();
    for (var p = 0u; p < params.taps.x; p++) {
        let a = t.rows.x + p * 2u;
        let at0 = t.at + table[a];
        for (var q = 0u; q < params.taps.y; q++) {
            let b = t.rows.y + q * 2u;
            let at1 = at0 + table[b];
            var line = V();
            for (var r = 0u; r < params.taps.z; r++) {
                let c = t.rows.z + r * 2u;
                line += i32(table[c + 1u]) * (load(at1 + table[c]) - params.finish.x_zero);
            }
            sum = plus(sum, weighted(line, table[a + 1u] * table[b + 1u]));
        }
    }
    return finished(whole(sum, V()), factor(0u), vec4<i32>());
}
