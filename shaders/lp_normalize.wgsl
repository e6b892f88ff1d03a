// y[row, j] = x[row, j] / (p-th root of the sum over j of |x[row, j]|^p), p 1 or 2; 0 for a row of zeros.
// x, y: f32, rows as in shared/rows.wgsl. LANES invocations compute one row.
struct Params {
    rows: Rows,
    p: u32,
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
    var s = 0.0;
    for (var j = at.lane; j < len; j += LANES) {
        let v = abs(x[base + within_offset(j)]);
        s += select(v * v, v, params.p == 1u);
    }
    s = row_sum(s, local, at.lane);
    let norm = select(sqrt(s), s, params.p == 1u);
    for (var j = at.lane; j < len; j += LANES) {
        let i = base + within_offset(j);
        y[i] = select(x[i] / norm, 0.0, norm == 0.0);
    }
}
