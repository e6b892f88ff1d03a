// y[row, j] = affine((x[row, j] - mean) * inv, k), mean and variance of the row, inv = 1 / (sqrt(variance + epsilon) + floor),
// k = row % period * per_row + j / run the parameter that belongs to it; affine comes from a file under normalize/.
// x, y: f32, rows as in shared/rows.wgsl. LANES invocations compute one row.
struct Params {
    rows: Rows,
    epsilon: f32,
    floor: f32,
    period: u32,
    per_row: u32,
    run: u32,
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
        s += x[base + within_offset(j)];
    }
    let mean = row_sum(s, local, at.lane) / f32(params.rows.len);
    s = 0.0;
    for (var j = at.lane; j < len; j += LANES) {
        let d = x[base + within_offset(j)] - mean;
        s += d * d;
    }
    let variance = row_sum(s, local, at.lane) / f32(params.rows.len);
    let inv = 1.0 / (sqrt(variance + params.epsilon) + params.floor);
    let first = at.row % params.period * params.per_row;
    for (var j = at.lane; j < len; j += LANES) {
        let i = base + within_offset(j);
        y[i] = affine((x[i] - mean) * inv, first + j / params.run);
    }
}
