// y = finished(x - zero point): codes of other parameters, and a clamp (shared/finish.wgsl).
// x, y: codes in n4 groups of four, any layout. One invocation computes one group.
// Where c is not 0 the layout is channels-last with c of 4*c4 lanes in use, and the others are kept at zero.
struct Params {
    finish: Finish,
    n4: u32,
    c: u32,
    c4: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let code = finished(wide(load4(i) - params.finish.x_zero), factor(0u), vec4<i32>());
    store4(i, select(vec4<i32>(), code, lanes_in_use(i, params.c, params.c4)));
}
