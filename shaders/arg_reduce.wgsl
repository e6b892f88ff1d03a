// y[row] = index of the largest key(x[row, j]) ^ flip; among equals the first, or the last where `last` is 1.
// x: words, rows as in shared/rows.wgsl; y: i32[rows]; key comes from a file under order/. LANES invocations compute one element.
struct Params {
    rows: Rows,
    flip: u32,
    last: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<i32>;

var<workgroup> keys: array<i32, ROW_WG>;
var<workgroup> indices: array<u32, ROW_WG>;

fn better(k: i32, i: u32, than_k: i32, than_i: u32) -> bool {
    return k > than_k || (k == than_k && (i < than_i) != (params.last == 1u));
}

@compute @workgroup_size(ROW_WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = place(local, group, groups);
    let live = at.row < params.rows.count;
    let base = row_offset(at.row);
    // Lanes behind the end of a short row repeat an element of it.
    var best_i = min(at.lane, params.rows.len - 1u);
    var best = 0;
    if live {
        best = key(x[base + within_offset(best_i)]) ^ i32(params.flip);
        for (var j = at.lane + LANES; j < params.rows.len; j += LANES) {
            let k = key(x[base + within_offset(j)]) ^ i32(params.flip);
            if better(k, j, best, best_i) {
                best = k;
                best_i = j;
            }
        }
    }
    if LANES > 1u {
        keys[local] = best;
        indices[local] = best_i;
        workgroupBarrier();
        for (var s = LANES / 2u; s > 0u; s /= 2u) {
            let other = invocation_of(at.lane + s, local);
            if at.lane < s && better(keys[other], indices[other], keys[local], indices[local]) {
                keys[local] = keys[other];
                indices[local] = indices[other];
            }
            workgroupBarrier();
        }
        best_i = indices[local];
    }
    if live && at.lane == 0u {
        y[at.row] = i32(best_i);
    }
}
