// y = f32(x - zero_point) * scale.
// x: codes in n4 groups of four, any layout; y: f32, likewise. One invocation computes one group.
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
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let steps = load4(i) - vec4<i32>(params.zero_point);
    let exact = vec4<f32>(
        nearest_float(steps.x),
        nearest_float(steps.y),
        nearest_float(steps.z),
        nearest_float(steps.w),
    );
    y[i] = select(vec4<f32>(0.0), exact * params.scale, lanes_in_use(i, params.c, params.c4));
}
