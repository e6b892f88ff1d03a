// y = clamp(round(x / scale) + zero_point), scales and zero points by shared/grain.wgsl; NaN becomes the zero point.
// x: f32 in groups of four; scale: bits of f32, clamped to 2^-100..2^100; zero: codes, bound where HAS_ZERO is 1; y: codes
// as i32. All linear. One invocation computes one group.
struct Params {
    grain: Grain,
    low: i32,
    high: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scale: array<u32>;
@group(0) @binding(3) var<storage, read> zero: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<i32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i * 4u >= params.grain.n {
        return;
    }
    var q = Quantizer(vec4<f32>(1.0), vec4<f32>(1.0), vec4<i32>(0), params.low, params.high);
    for (var l = 0u; l < 4u; l += 1u) {
        let at = scale_of(params.grain, 4u * i + l);
        // Positive floats are ordered as their bits; negative ones and NaN are above.
        q.scale[l] = bitcast<f32>(clamp(scale[at], 0x0d800000u, 0x71800000u));
        if HAS_ZERO != 0u {
            q.zero_point[l] = zero[at];
        }
    }
    q.inverse = vec4<f32>(1.0) / q.scale;
    y[i] = quantize(x[i], q);
}
