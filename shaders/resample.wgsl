// y = sum over the taps of three axes of (w0 * w1) * w2 * x, in the order of the tables; fill where one is outside.
// x, y: f32. table: words. One invocation computes one element.
// The caller guarantees that every sum of offsets is an element of x.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let t = taps_of(i);
    if !t.inside {
        y[i] = f32(params.fill);
        return;
    }
    var acc = 0.0;
    for (var p = 0u; p < params.taps.x; p++) {
        let a = t.rows.x + p * 2u;
        let at0 = t.at + table[a];
        let w0 = bitcast<f32>(table[a + 1u]);
        for (var q = 0u; q < params.taps.y; q++) {
            let b = t.rows.y + q * 2u;
            let at1 = at0 + table[b];
            let w1 = w0 * bitcast<f32>(table[b + 1u]);
            for (var r = 0u; r < params.taps.z; r++) {
                let c = t.rows.z + r * 2u;
                acc += (w1 * bitcast<f32>(table[c + 1u])) * x[at1 + table[c]];
            }
        }
    }
    y[i] = acc;
}
