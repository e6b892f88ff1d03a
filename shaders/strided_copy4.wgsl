// strided_copy in groups of four words: dims, strides and bases count groups.
// x, y: four 32-bit words a group. One invocation copies one group. Guarantees as in strided_copy.
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let at = offsets(i);
    y[at.y] = x[at.x];
}
