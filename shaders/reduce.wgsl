// y[row] = leave(join of enter(x[row, j]) over j), from `identity`; enter, join, leave and the type T come from files under reduce/.
// x: T, rows as in shared/rows.wgsl; y: T[rows]. LANES invocations compute one element.
struct Params {
    rows: Rows,
    identity: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

var<workgroup> part: array<T, ROW_WG>;

@compute @workgroup_size(ROW_WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = place(local, group, groups);
    let live = at.row < params.rows.count;
    var acc = bitcast<T>(params.identity);
    if live {
        let base = row_offset(at.row);
        for (var j = at.lane; j < params.rows.len; j += LANES) {
            acc = join(acc, enter(x[base + within_offset(j)]));
        }
    }
    if LANES > 1u {
        part[local] = acc;
        workgroupBarrier();
        for (var s = LANES / 2u; s > 0u; s /= 2u) {
            if at.lane < s {
                part[local] = join(part[local], part[invocation_of(at.lane + s, local)]);
            }
            workgroupBarrier();
        }
        acc = part[local];
    }
    if live && at.lane == 0u {
        y[at.row] = leave(acc);
    }
}
