// y[row, j] = finish(d, s), d = x[row, j] - max over j of x[row, j], s = sum over j of exp(d); finish comes from a file under softmax/.
// x, y: f32, rows as in shared/rows.wgsl. LANES invocations compute one row.
struct Params {
    rows: Rows,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(ROW_WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = place(local, group, groups);
    let base = row_offset(at.row);
    let len = select(0u, params.rows.len, at.row < params.rows.count);
    var m = -3.4028234e38;
    for (var j = at.lane; j < len; j += LANES) {
        m = max(m, x[base + within_offset(j)]);
    }
    m = row_max(m, local, at.lane);
    var s = 0.0;
    for (var j = at.lane; j < len; j += LANES) {
        s += exp(x[base + within_offset(j)] - m);
    }
    s = row_sum(s, local, at.lane);
    for (var j = at.lane; j < len; j += LANES) {
        let i = base + within_offset(j);
        y[i] = finish(x[i] - m, s);
    }
}
