// Codes of x by one quantizer (shared/quantize.wgsl); NaN becomes the zero point and is counted in slot.
// x: n4 groups of four f32, any layout; y: codes, likewise. One invocation computes one group.
// Rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
struct Params {
    n4: u32,
    c: u32,
    c4: u32,
    low: i32,
    high: i32,
    zero_point: i32,
    scale: f32,
    inverse: f32,
    slot: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let zero = vec4<i32>(params.zero_point);
    let q = Quantizer(vec4<f32>(params.scale), vec4<f32>(params.inverse), zero, params.low, params.high);
    let used = lanes_in_use(i, params.c, params.c4);
    count_nan(x[i], used, params.slot);
    store4(i, select(vec4<i32>(0), quantize(x[i], q), used));
}
