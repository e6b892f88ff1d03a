// y[o, d, r] = values[1] where indices[o, r], counted from the end if negative, is d, else values[0].
// indices: T; values: 2 words; y: words, n in all. One invocation computes one element.
struct Params {
    n: u32,
    depth: u32,
    inner: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<T>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let d = i32(i / params.inner % params.depth);
    let index = i32(indices[i / params.inner / params.depth * params.inner + i % params.inner]);
    let hot = index == d || index == d - i32(params.depth);
    y[i] = select(values[0], values[1], hot);
}
