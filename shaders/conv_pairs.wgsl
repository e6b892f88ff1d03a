// As conv_grouped.wgsl on codes, where pairs of neighbours in the order kd, kh, kw, c saturate in 16 bits.
// x: codes [n, id, ih, iw, 4 * c4]. w: codes [kd, kh, kw, 4 * cg4, 4 * o4]. b: [4 * o4], read where bias is 1.
// w_zero: [4 * o4]. y: [n, od, oh, ow, 4 * o4]. One invocation computes one output pixel in 4 channels, which may belong
// to several groups.

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
    let zero = w_zero[q];
    var s = Pairs();
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    for (var t = 0u; t < taps; t++) {
        let at = place(o, tap_offset(t));
        for (var c = 0u; c < params.cg; c++) {
            let steps = V(lane(at, first.x + c), lane(at, first.y + c), lane(at, first.z + c), lane(at, first.w + c));
            let code = weight((4u * t * params.kernel.w + c) * params.output.w + q);
            s = paired(s, t * params.cg + c, steps, code, zero);
        }
    }
    store(p, q, complete(s), tail_of(q));
}
