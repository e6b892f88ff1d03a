// An element is the rank-th of its row when `rank` elements are better: of a larger order(x) or an equal one in front.
// values, indices[row, rank] = x[row, j], j where rank < k. Row r of x: r / inner * len * inner + r % inner + j * inner.
// x, values: words; indices: i32; key and candidate come from files under order/ and top_k/. One invocation takes one element.
struct Params {
    n: u32,
    len: u32,
    k: u32,
    inner: u32,
    flip: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<u32>;
@group(0) @binding(3) var<storage, read_write> indices: array<i32>;

fn order(word: u32) -> u32 {
    return u32(key(word) ^ i32(params.flip)) ^ 0x80000000u;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let outer = i / params.inner / params.len;
    let j = i / params.inner % params.len;
    let column = i % params.inner;
    let mine = order(x[i]);
    if !candidate(outer * params.inner + column, mine, j) {
        return;
    }
    let base = outer * params.len * params.inner + column;
    var rank = 0u;
    for (var l = 0u; l < params.len; l++) {
        let other = order(x[base + l * params.inner]);
        rank += u32(other > mine || (other == mine && l < j));
    }
    if rank < params.k {
        let o = (outer * params.k + rank) * params.inner + column;
        values[o] = x[i];
        indices[o] = i32(j);
    }
}
