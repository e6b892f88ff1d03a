// y[n, o, p] = sum over (kd, kh, kw, c) of x[n, c of the group, p * stride + k * dilation - pad] * w[o, c, k], + b[o].
// x: [n, id, ih, iw, 4 * c4]. w: [kd, kh, kw, 4 * cg4, 4 * o4]. b: [4 * o4], read where bias is 1.
// y: [n, od, oh, ow, 4 * o4]. One invocation computes one output pixel in 4 channels, which may belong to
// several groups, each element as one sum in the order kd, kh, kw, c. Elements are those of shared/window_f32.wgsl or
// shared/window_codes.wgsl.

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.pixels * params.output.w {
        return;
    }
    let q = i % params.output.w;
    let p = i / params.output.w;
    let channel = min(4u * q + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.o - 1u));
    let first = channel / params.og * params.cg;
    let o = origin(p);
    var sum = Sum();
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    for (var t = 0u; t < taps; t++) {
        let at = place(o, tap_offset(t));
        for (var c = 0u; c < params.cg; c++) {
            let v = V(lane(at, first.x + c), lane(at, first.y + c), lane(at, first.z + c), lane(at, first.w + c));
            sum = mul_add(v, weight((4u * t * params.kernel.w + c) * params.output.w + q), sum);
        }
    }
    store(p, q, sum, tail_of(q));
}
