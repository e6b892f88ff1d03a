// As matmul.wgsl, for few rows.
// a, b, c: f32 with any strides, those of broadcast axes 0; c is read where has_c is 1. y: f32 [batch, m, n].
// One invocation computes one row of 4 columns, each element as one sum in the order of k.

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = flat_index(gid, groups);
    let cols = (params.n + 3u) / 4u;
    if index >= cols * params.m * params.batches {
        return;
    }
    let j = index % cols * 4u;
    let i = index / cols % params.m;
    let z = index / (cols * params.m);
    let start = batch_start(z);
    let row = start.x + i * params.a_row;
    // Columns beyond the end are computed from the last one and not stored.
    let col = start.y + min(j + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * params.b_col;
    var s = Sum();
    for (var k = 0u; k < params.k; k++) {
        s = add_product(a_at(row + k * params.a_col), b_at(col + k * params.b_row), s);
    }
    store4(z, i, j, s);
}
