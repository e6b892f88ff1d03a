// y = the same 32-bit word in every element, whatever its type.
// y: n4 groups of four words, linear; the last group may run over the tensor. One invocation writes one group.
struct Params {
    n4: u32,
    word: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    y[i] = vec4<u32>(params.word);
}
