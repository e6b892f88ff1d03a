// y[i] = start + i * delta, of the element type of shared/unary_f32.wgsl or shared/unary_i32.wgsl.
// y: n4 groups of four, linear. One invocation computes one group. start, delta: their bits.
struct Params {
    n4: u32,
    start: u32,
    delta: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<Y>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let start = bitcast<Y>(vec4<u32>(params.start));
    let delta = bitcast<Y>(vec4<u32>(params.delta));
    y[i] = start + Y(4u * i + vec4<u32>(0u, 1u, 2u, 3u)) * delta;
}
