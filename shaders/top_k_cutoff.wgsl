// cutoff[row] = (order of the k-th best element of the row, index of the last element of that order among the k best),
// each found bit by bit by counting. x: words, rows as in top_k.wgsl; key comes from a file under order/.
// One workgroup computes one row; 1 <= k <= len.
struct Params {
    rows: u32,
    len: u32,
    k: u32,
    inner: u32,
    flip: u32,
}

const CUT_WG: u32 = 256u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> cutoff: array<vec2<u32>>;

var<workgroup> total: atomic<u32>;

fn order(word: u32) -> u32 {
    return u32(key(word) ^ i32(params.flip)) ^ 0x80000000u;
}

fn sum_over_row(mine: u32, local: u32) -> u32 {
    workgroupBarrier();
    if local == 0u {
        atomicStore(&total, 0u);
    }
    workgroupBarrier();
    atomicAdd(&total, mine);
    workgroupBarrier();
    return atomicLoad(&total);
}

@compute @workgroup_size(CUT_WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let row = group.x + group.y * groups.x;
    let base = row / params.inner * params.len * params.inner + row % params.inner;
    let len = select(0u, params.len, row < params.rows);
    // The largest order that k elements reach.
    var reached = 0u;
    for (var b = 32u; b > 0u; b--) {
        let trial = reached | (1u << (b - 1u));
        var count = 0u;
        for (var j = local; j < len; j += CUT_WG) {
            count += u32(order(x[base + j * params.inner]) >= trial);
        }
        if sum_over_row(count, local) >= params.k {
            reached = trial;
        }
    }
    var above = 0u;
    for (var j = local; j < len; j += CUT_WG) {
        above += u32(order(x[base + j * params.inner]) > reached);
    }
    let wanted = params.k - sum_over_row(above, local);
    // The largest index in front of which there are fewer elements of that order than wanted.
    var last = 0u;
    for (var b = 32u; b > 0u; b--) {
        let trial = last | (1u << (b - 1u));
        var count = 0u;
        for (var j = local; j < min(len, trial); j += CUT_WG) {
            count += u32(order(x[base + j * params.inner]) == reached);
        }
        if sum_over_row(count, local) < wanted && trial < params.len {
            last = trial;
        }
    }
    if local == 0u && row < params.rows {
        cutoff[row] = vec2<u32>(reached, last);
    }
}
