// As conv.wgsl over the taps that shared/slide_back.wgsl finds, with groups.
// x: [n, id, ih, iw, 4 * c4]. w: [kd, kh, kw, 4 * c4, 4 * og4]. b: [4 * o4], read where bias is 1.
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
    let column = channel % params.og;
    let og4 = (params.og + 3u) / 4u;
    let o = origin(p);
    var sum = Sum();
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    for (var t = 0u; t < taps; t++) {
        let at = place(o, tap_offset(t));
        for (var c = 0u; c < params.cg; c++) {
            let row = (4u * t * params.input.w + first + c) * og4 + column / 4u;
            let weight = V(
                w[row.x][column.x % 4u],
                w[row.y][column.y % 4u],
                w[row.z][column.z % 4u],
                w[row.w][column.w % 4u],
            );
            let v = V(lane(at, first.x + c), lane(at, first.y + c), lane(at, first.z + c), lane(at, first.w + c));
            sum = mul_add(v, weight, sum);
        }
    }
    store(p, q, sum, tail_of(q));
}
