// y[n, o, c] = max over taps t inside the input of x[n, o * stride + t * dilation - begin, c]; `lowest` where there are none.
// x, y: V (four channels of T, by load4 and store4 of a linked file) channels-last, n4 groups of four in y. One invocation computes one group.
struct Params {
    window: Window,
    n4: u32,
    c4: u32,
    c: u32,
    lowest: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let o = output_at(i, params.c4);
    let size = params.window.input.xyz;
    var best = V(bitcast<T>(params.lowest));
    for (var d = 0u; d < params.window.kernel.x; d++) {
        for (var h = 0u; h < params.window.kernel.y; h++) {
            for (var w = 0u; w < params.window.kernel.z; w++) {
                let p = tap_at(o.at, vec3<u32>(d, h, w));
                if all(p < size) {
                    let at = ((o.n * size.x + p.x) * size.y + p.y) * size.z + p.z;
                    best = max(best, load4(at * params.c4 + o.group));
                }
            }
        }
    }
    let lane = vec4<u32>(0u, 1u, 2u, 3u) + 4u * o.group;
    store4(i, select(V(), best, lane < vec4<u32>(params.c)));
}
