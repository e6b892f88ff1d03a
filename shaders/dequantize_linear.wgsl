// y = f32(x - zero_point) * scale, scales and zero points by shared/grain.wgsl.
// x: codes as i32 in groups of four; scale: f32; zero: codes, bound where HAS_ZERO is 1; y: f32. All linear. One
// invocation computes one group.
struct Params {
    grain: Grain,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> zero: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i * 4u >= params.grain.n {
        return;
    }
    var out = vec4<f32>(0.0);
    for (var l = 0u; l < 4u; l += 1u) {
        let at = scale_of(params.grain, 4u * i + l);
        var code = x[i][l];
        if HAS_ZERO != 0u {
            code -= zero[at];
        }
        out[l] = nearest_float(code) * scale[at];
    }
    y[i] = out;
}
