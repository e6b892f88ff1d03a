// y[i] = sum over j of a[offset(i, j)] (* b[offset(i, j)] where pair is 1), j row-major over the summed labels.
// a, b, y: f32, linear. Steps of both operands per label of the output (out_*) and per summed label (sum_*).
// One invocation computes one element. The caller guarantees that every offset is an element.
struct Params {
    n: u32,
    out_rank: u32,
    terms: u32,
    sum_rank: u32,
    pair: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    out_dims: array<vec4<u32>, 2>,
    out_a: array<vec4<u32>, 2>,
    out_b: array<vec4<u32>, 2>,
    sum_dims: array<vec4<u32>, 2>,
    sum_a: array<vec4<u32>, 2>,
    sum_b: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = flat_index(gid, groups);
    if n >= params.n {
        return;
    }
    var rest = n;
    var at_a = 0u;
    var at_b = 0u;
    for (var k = params.out_rank; k > 0u; k--) {
        let l = k - 1u;
        let d = params.out_dims[l / 4u][l % 4u];
        let c = rest % d;
        rest = rest / d;
        at_a += c * params.out_a[l / 4u][l % 4u];
        at_b += c * params.out_b[l / 4u][l % 4u];
    }
    var acc = 0.0;
    for (var j = 0u; j < params.terms; j++) {
        rest = j;
        var term_a = at_a;
        var term_b = at_b;
        for (var k = params.sum_rank; k > 0u; k--) {
            let l = k - 1u;
            let d = params.sum_dims[l / 4u][l % 4u];
            let c = rest % d;
            rest = rest / d;
            term_a += c * params.sum_a[l / 4u][l % 4u];
            term_b += c * params.sum_b[l / 4u][l % 4u];
        }
        if params.pair == 1u {
            acc += a[term_a] * b[term_b];
        } else {
            acc += a[term_a];
        }
    }
    y[n] = acc;
}
