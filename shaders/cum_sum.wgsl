// y[row, j] = sum of x[row, 0..=j], of x[row, 0..j] where `exclusive` is 1, both from the end where `reverse` is 1.
// x, y: T, rows as in shared/rows.wgsl. One invocation computes one row, in order.
struct Params {
    rows: Rows,
    exclusive: u32,
    reverse: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = flat_index(gid, groups);
    if row >= params.rows.count {
        return;
    }
    let base = row_offset(row);
    var sum = T(0);
    for (var l = 0u; l < params.rows.len; l++) {
        let j = select(l, params.rows.len - 1u - l, params.reverse == 1u);
        let i = base + within_offset(j);
        let v = x[i];
        y[i] = select(sum + v, sum, params.exclusive == 1u);
        sum += v;
    }
}
