// Sum and maximum over the lanes of a row, as a tree of fixed shape; every lane gets the result.
var<workgroup> row_part: array<f32, ROW_WG>;

fn row_sum(v: f32, local: u32, lane: u32) -> f32 {
    if LANES == 1u {
        return v;
    }
    workgroupBarrier();
    row_part[local] = v;
    workgroupBarrier();
    for (var s = LANES / 2u; s > 0u; s /= 2u) {
        if lane < s {
            row_part[local] += row_part[invocation_of(lane + s, local)];
        }
        workgroupBarrier();
    }
    return row_part[invocation_of(0u, local)];
}

fn row_max(v: f32, local: u32, lane: u32) -> f32 {
    if LANES == 1u {
        return v;
    }
    workgroupBarrier();
    row_part[local] = v;
    workgroupBarrier();
    for (var s = LANES / 2u; s > 0u; s /= 2u) {
        if lane < s {
            row_part[local] = max(row_part[local], row_part[invocation_of(lane + s, local)]);
        }
        workgroupBarrier();
    }
    return row_part[invocation_of(0u, local)];
}
