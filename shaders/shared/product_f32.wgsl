// Matrix products of f32: parameters, bindings, loads and stores. Needs shared/sums_f32.wgsl and shared/epilogue.wgsl.
struct Params {
    epilogue: Epilogue,
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
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> c: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

alias A = f32;
alias B = vec4<f32>;

fn a_at(i: u32) -> A {
    return a[i];
}

fn b_at(at: vec4<u32>) -> B {
    return B(b[at.x], b[at.y], b[at.z], b[at.w]);
}

fn add_product(v: A, w: B, s: Sum) -> Sum {
    return mul_add(V(v), w, s);
}

// What follows the sums of columns j to j + 3.
fn store4(z: u32, i: u32, j: u32, s: Sum) {
    if i >= params.m || j >= params.n {
        return;
    }
    var v = params.alpha * s;
    if params.has_c != 0u {
        let column = min(j + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
        let at = i * params.c_row + column * params.c_col;
        v += params.beta * vec4<f32>(c[at.x], c[at.y], c[at.z], c[at.w]);
    }
    v = epilogue(v, j + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.n));
    put(z, i, j, v);
}
