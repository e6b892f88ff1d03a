// y = x where column - row >= k (`upper` 1) or <= k (`upper` 0), else 0, over matrices of h rows and w columns.
// x, y: words, n in all. One invocation computes one element.
struct Params {
    n: u32,
    h: u32,
    w: u32,
    k: i32,
    upper: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let d = i32(i % params.w) - i32(i / params.w % params.h);
    let kept = select(d <= params.k, d >= params.k, params.upper == 1u);
    y[i] = select(0u, x[i], kept);
}
