// y = min(max(x, low), high) element by element.
// x, y: n4 groups of four i32, any layout. One invocation computes one group.
// Rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
struct Params {
    n4: u32,
    c: u32,
    c4: u32,
    low: i32,
    high: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<i32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let out = min(max(x[i], vec4<i32>(params.low)), vec4<i32>(params.high));
    y[i] = select(vec4<i32>(0), out, lanes_in_use(i, params.c, params.c4));
}
