// y[batch, i, j] = alpha * (sum over k of a[batch, i, k] * b[batch, k, j]) + beta * c[i, j].
// a, b, c: f32 with any strides, those of broadcast axes 0; c is read where has_c is 1. y: f32 [batch, m, n].
// One invocation computes 8 rows and 16 columns, each element as one sum in the order of k.

struct Sums {
    a: Sum,
    b: Sum,
    c: Sum,
    d: Sum,
}

// 16 columns of b.
struct Row {
    a: B,
    b: B,
    c: B,
    d: B,
}

fn add(s: Sums, v: A, w: Row) -> Sums {
    return Sums(
        add_product(v, w.a, s.a),
        add_product(v, w.b, s.b),
        add_product(v, w.c, s.c),
        add_product(v, w.d, s.d),
    );
}

fn finish(z: u32, i: u32, j: u32, s: Sums) {
    store4(z, i, j, s.a);
    store4(z, i, j + 4u, s.b);
    store4(z, i, j + 8u, s.c);
    store4(z, i, j + 12u, s.d);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = flat_index(gid, groups);
    let cols = (params.n + 15u) / 16u;
    let rows = (params.m + 7u) / 8u;
    if index >= cols * rows * params.batches {
        return;
    }
    let j = index % cols * 16u;
    let i = index / cols % rows * 8u;
    let z = index / (cols * rows);
    let start = batch_start(z);
    // Rows and columns beyond the end are computed from the last ones and not stored.
    let last = vec4<u32>(params.m - 1u);
    let r0 = start.x + min(i + vec4<u32>(0u, 1u, 2u, 3u), last) * params.a_row;
    let r1 = start.x + min(i + vec4<u32>(4u, 5u, 6u, 7u), last) * params.a_row;
    let lanes = vec4<u32>(0u, 1u, 2u, 3u);
    let c0 = min(j + lanes, vec4<u32>(params.n - 1u)) * params.b_col;
    let c1 = min(j + 4u + lanes, vec4<u32>(params.n - 1u)) * params.b_col;
    let c2 = min(j + 8u + lanes, vec4<u32>(params.n - 1u)) * params.b_col;
    let c3 = min(j + 12u + lanes, vec4<u32>(params.n - 1u)) * params.b_col;
    var s0 = Sums();
    var s1 = Sums();
    var s2 = Sums();
    var s3 = Sums();
    var s4 = Sums();
    var s5 = Sums();
    var s6 = Sums();
    var s7 = Sums();
    for (var k = 0u; k < params.k; k++) {
        let at = start.y + k * params.b_row;
        let w = Row(b_at(at + c0), b_at(at + c1), b_at(at + c2), b_at(at + c3));
        let ak = k * params.a_col;
        s0 = add(s0, a_at(r0.x + ak), w);
        s1 = add(s1, a_at(r0.y + ak), w);
        s2 = add(s2, a_at(r0.z + ak), w);
        s3 = add(s3, a_at(r0.w + ak), w);
        s4 = add(s4, a_at(r1.x + ak), w);
        s5 = add(s5, a_at(r1.y + ak), w);
        s6 = add(s6, a_at(r1.z + ak), w);
        s7 = add(s7, a_at(r1.w + ak), w);
    }
    // The rows pass through s0, so that there is one copy of what follows a sum: drivers compile each.
    for (var r = 0u; r < 8u; r++) {
        finish(z, i + r, j, s0);
        s0 = s1;
        s1 = s2;
        s2 = s3;
        s3 = s4;
        s4 = s5;
        s5 = s6;
        s6 = s7;
    }
}
