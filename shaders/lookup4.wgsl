// lookup in groups of four words: dims, steps and table offsets count groups.
// Where c is not 0, y is channels-last with c of 4*c4 lanes in use, and the fill leaves the others zero.
// x, y: four 32-bit words a group. table: words. One invocation computes one group. Guarantees as in lookup.
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let at = source(i);
    if at != OUTSIDE {
        y[i] = x[at];
        return;
    }
    var v = vec4<u32>(params.fill);
    if params.c != 0u {
        let lane = vec4<u32>(0u, 1u, 2u, 3u) + 4u * (i % params.c4);
        v = select(vec4<u32>(0u), v, lane < vec4<u32>(params.c));
    }
    y[i] = v;
}
