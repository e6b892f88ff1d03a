// y[o, j, i] = x[o * x_outer + sum over t < k of index(o, j, t) * strides[t] + i], i < inner, j < slices.
// x, y: one 32-bit word an element. indices: i32, k of them for each (o, j), from o * index_outer on;
// a negative one counts from the end, one outside its axis is clamped. One invocation computes one word.
// The caller guarantees that no indexed axis is empty.
struct Params {
    n: u32,
    inner: u32,
    slices: u32,
    k: u32,
    x_outer: u32,
    index_outer: u32,
    pad0: u32,
    pad1: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = flat_index(gid, groups);
    if n >= params.n {
        return;
    }
    let i = n % params.inner;
    let j = (n / params.inner) % params.slices;
    let o = n / params.inner / params.slices;
    var at = o * params.x_outer + i;
    for (var t = 0u; t < params.k; t++) {
        let index = indices[o * params.index_outer + j * params.k + t];
        at += element_of(index, params.dims[t / 4u][t % 4u]) * params.strides[t / 4u][t % 4u];
    }
    y[n] = x[at];
}
