// mean[row] and inv[row] = 1 / sqrt(variance + epsilon) of x[row, ..].
// x: f32, rows as in shared/rows.wgsl; mean, inv: f32[rows]. LANES invocations compute one row.
struct Params {
    rows: Rows,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> inv: array<f32>;

@compute @workgroup_size(ROW_WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = place(local, group, groups);
    let base = row_offset(at.row);
    let live = at.row < params.rows.count;
    let len = select(0u, params.rows.len, live);
    var s = 0.0;
    for (var j = at.lane; j < len; j += LANES) {
        s += x[base + within_offset(j)];
    }
    let m = row_sum(s, local, at.lane) / f32(params.rows.len);
    s = 0.0;
    for (var j = at.lane; j < len; j += LANES) {
        let d = x[base + within_offset(j)] - m;
        s += d * d;
    }
    let variance = row_sum(s, local, at.lane) / f32(params.rows.len);
    if live && at.lane == 0u {
        mean[at.row] = m;
        inv[at.row] = 1.0 / sqrt(variance + params.epsilon);
    }
}
