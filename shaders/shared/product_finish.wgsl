// Matrix products of codes: parameters, what follows a sum, and the bindings of it. Needs shared/sums_i32.wgsl or shared/sums_i64.wgsl, and
// shared/finish.wgsl.  What is not there is bound all the same, and not read.
struct Params {
    finish: Finish,
    batch: vec4<u32>,    // axes of the batch of y
    a_batch: vec4<u32>,  // steps of a and b along them
    b_batch: vec4<u32>,
    m: u32,
    k: u32,
    n: u32,
    batches: u32,
    a_row: u32,
    a_col: u32,
    b_row: u32,
    b_col: u32,
    c_row: u32,
    c_col: u32,
    has_c: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> c: array<i32>;
@group(0) @binding(4) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> addend: array<i32>;
@group(0) @binding(6) var<storage, read_write> y: array<i32>;

// What follows the sums of columns j to j + 3.
fn store4(z: u32, i: u32, j: u32, s: Sum) {
    if i >= params.m || j >= params.n {
        return;
    }
    let column = min(j + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
    var bias = V();
    if params.has_c != 0u {
        let at = i * params.c_row + column * params.c_col;
        bias = V(c[at.x], c[at.y], c[at.z], c[at.w]);
    }
    var added = V();
    if MODE == ADDED {
        let at = (z * params.m + i) * params.n + column;
        added = V(addend[at.x], addend[at.y], addend[at.z], addend[at.w]);
    }
    put(z, i, j, finished(whole(s, bias), factor_of(j / 4u), added));
}
