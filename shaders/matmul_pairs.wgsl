// As matmul_row.wgsl on codes, where pairs of neighbours along k saturate in 16 bits.
// a, b: codes with any strides, those of broadcast axes 0; c: bias, read where has_c is 1. w_zero: [n].
// y: [batch, m, n]. One invocation computes one row of 4 columns.

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
    var s = Pairs();
    for (var k = 0u; k < params.k; k++) {
        s = paired(s, k, V(a_at(row + k * params.a_col)), b_at(col + k * params.b_row), w_zero[j / 4u]);
    }
    store4(z, i, j, complete(s));
}
