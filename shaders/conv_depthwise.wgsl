// y[n, c, p] = sum over (kd, kh, kw) of x[n, c, p * stride + k * dilation - pad] * w[c, k], + b[c].
// x: [n, id, ih, iw, 4 * c4]. w: [kd, kh, kw, 4 * c4]. b: [4 * c4], read where bias is 1.
// y: [n, od, oh, ow, 4 * c4]. One invocation computes 4 consecutive output pixels in 4 channels, each element as
// one sum in the order kd, kh, kw. Elements are those of shared/window_f32.wgsl or shared/window_codes.wgsl.

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= (params.pixels + 3u) / 4u * params.output.w {
        return;
    }
    let q = i % params.output.w;
    let p = i / params.output.w * 4u;
    let o0 = origin(p);
    let o1 = origin(p + 1u);
    let o2 = origin(p + 2u);
    let o3 = origin(p + 3u);
    var s0 = Sum();
    var s1 = Sum();
    var s2 = Sum();
    var s3 = Sum();
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    for (var t = 0u; t < taps; t++) {
        let k = tap_offset(t);
        let tap = weight(t * params.output.w + q);
        s0 = mul_add(load(place(o0, k), q), tap, s0);
        s1 = mul_add(load(place(o1, k), q), tap, s1);
        s2 = mul_add(load(place(o2, k), q), tap, s2);
        s3 = mul_add(load(place(o3, k), q), tap, s3);
    }
    let tail = tail_of(q);
    store(p, q, s0, tail);
    store(p + 1u, q, s1, tail);
    store(p + 2u, q, s2, tail);
    store(p + 3u, q, s3, tail);
}
