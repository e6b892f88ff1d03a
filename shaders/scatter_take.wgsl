// y[s, i] = updates[owner[s] - 1, i] where the slice s has an owner, else x[s, i]; i < inner.
// x, updates, y: one 32-bit word an element. owner: u32, one a slice. One invocation computes one word.
struct Params {
    n: u32,
    updates: u32,
    inner: u32,
    k: u32,
    axis: u32,
    count: u32,
    step: u32,
    pad0: u32,
    dims: array<vec4<u32>, 2>,
    lengths: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> updates: array<u32>;
@group(0) @binding(3) var<storage, read> owner: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = flat_index(gid, groups);
    if n >= params.n {
        return;
    }
    let last = owner[n / params.inner];
    if last == 0u {
        y[n] = x[n];
    } else {
        y[n] = updates[(last - 1u) * params.inner + n % params.inner];
    }
}
