// y = min(max(x, low), high) element by element, of the element type of shared/unary_f32.wgsl or shared/unary_i32.wgsl.
// x, y: n4 groups of four, any layout. One invocation computes one group. low, high: bits of the bounds, no NaN.
// Where c is not 0 the layout is channels-last with c of 4*c4 lanes in use, and the others are kept at zero.
struct Params {
    n4: u32,
    c: u32,
    c4: u32,
    low: u32,
    high: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read_write> y: array<Y>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let low = bitcast<X>(vec4<u32>(params.low));
    let high = bitcast<X>(vec4<u32>(params.high));
    let v = x[i];
    let out = keep_nan(v, min(max(v, low), high));
    y[i] = select(Y(), out, lanes_in_use(i, params.c, params.c4));
}
