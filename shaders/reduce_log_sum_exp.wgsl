// y[row] = m + log(sum of exp(x[row, j] - m) over j), m the largest x of the row; -inf for an empty row.
// x: f32, rows as in shared/rows.wgsl; y: f32[rows]. LANES invocations compute one element.
struct Params {
    rows: Rows,
    identity: u32,
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
    let live = at.row < params.rows.count;
    let base = row_offset(at.row);
    let len = select(0u, params.rows.len, live);
    let lowest = bitcast<f32>(params.identity);
    var m = lowest;
    for (var j = at.lane; j < len; j += LANES) {
        m = max(m, x[base + within_offset(j)]);
    }
    m = row_max(m, local, at.lane);
    // exp(inf - inf) would be NaN; an infinite maximum is the result.
    let finite = (bitcast<u32>(m) & 0x7f800000u) != 0x7f800000u;
    var s = 0.0;
    for (var j = at.lane; j < len; j += LANES) {
        s += exp(x[base + within_offset(j)] - m);
    }
    s = row_sum(s, local, at.lane);
    if live && at.lane == 0u {
        y[at.row] = select(m, m + log(s), finite);
    }
}
