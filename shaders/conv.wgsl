// y[n, o, p] = sum over (kd, kh, kw, c) of x[n, c, p * stride + k * dilation - pad] * w[o, c, k], + b[o].
// x: [n, id, ih, iw, 4 * c4]. w: [kd, kh, kw, 4 * cg4, 4 * o4]. b: [4 * o4], read where bias is 1.
// y: [n, od, oh, ow, 4 * o4]. One invocation computes 8 consecutive output pixels in 16 consecutive channels, each
// element as one sum in the order kd, kh, kw, c.
// Elements are those of shared/window_f32.wgsl, shared/window_codes.wgsl or shared/window_packed.wgsl, and their products are
// summed by shared/tile_rows.wgsl or shared/tile_dots.wgsl.
// The caller guarantees that there is one group, or that groups have multiples of 4 input and 16 output channels.

struct Tails {
    a: Tail,
    b: Tail,
    c: Tail,
    d: Tail,
}

fn finish(p: u32, q: vec4<u32>, s: Sums, tails: Tails) {
    store(p, q.x, s.a, tails.a);
    store(p, q.y, s.b, tails.b);
    store(p, q.z, s.c, tails.c);
    store(p, q.w, s.d, tails.d);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    let blocks = (params.output.w + 3u) / 4u;
    if i >= (params.pixels + 7u) / 8u * blocks {
        return;
    }
    let q = i % blocks * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    // Where o4 is not a multiple of 4 the last ones are computed and not stored.
    let wq = min(q, vec4<u32>(params.output.w - 1u));
    let p = i / blocks * 8u;
    let c0 = 4u * q.x / params.og * params.kernel.w;
    let o0 = origin(p);
    let o1 = origin(p + 1u);
    let o2 = origin(p + 2u);
    let o3 = origin(p + 3u);
    let o4 = origin(p + 4u);
    let o5 = origin(p + 5u);
    let o6 = origin(p + 6u);
    let o7 = origin(p + 7u);
    var s0 = Sums();
    var s1 = Sums();
    var s2 = Sums();
    var s3 = Sums();
    var s4 = Sums();
    var s5 = Sums();
    var s6 = Sums();
    var s7 = Sums();
    var wi = 0u;
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    for (var t = 0u; t < taps; t++) {
        let k = tap_offset(t);
        let x0 = place(o0, k);
        let x1 = place(o1, k);
        let x2 = place(o2, k);
        let x3 = place(o3, k);
        let x4 = place(o4, k);
        let x5 = place(o5, k);
        let x6 = place(o6, k);
        let x7 = place(o7, k);
        for (var c = c0; c < c0 + params.kernel.w; c++) {
            let tile = weights(wi, wq);
            s0 = add(s0, load(x0, c), tile);
            s1 = add(s1, load(x1, c), tile);
            s2 = add(s2, load(x2, c), tile);
            s3 = add(s3, load(x3, c), tile);
            s4 = add(s4, load(x4, c), tile);
            s5 = add(s5, load(x5, c), tile);
            s6 = add(s6, load(x6, c), tile);
            s7 = add(s7, load(x7, c), tile);
            wi += STEP * params.output.w;
        }
    }
    let tails = Tails(tail_of(wq.x), tail_of(wq.y), tail_of(wq.z), tail_of(wq.w));
    // The pixels pass through s0, so that there is one copy of what follows a sum: drivers compile each.
    for (var r = 0u; r < 8u; r++) {
        finish(p + r, q, s0, tails);
        s0 = s1;
        s1 = s2;
        s2 = s3;
        s3 = s4;
        s4 = s5;
        s5 = s6;
        s6 = s7;
    }
}
