// y[o] = x[i]: moves a tensor from one memory layout to another.
// x, y: any 32-bit elements, or x codes as X_FORM says. dims: y's axes from slowest to fastest with padding, in n elements; lens: without
// padding, what lies between is written as 0; steps: the same axes' strides in x.
// One invocation writes one element. The caller guarantees that rank is at most 8 and that no dim is 0.
struct Params {
    n: u32,
    rank: u32,
    lane: u32,
    pad: u32,
    dims: array<vec4<u32>, 2>,
    lens: array<vec4<u32>, 2>,
    steps: array<vec4<u32>, 2>,
}

override X_FORM: u32 = 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    var rest = i;
    var source = 0u;
    var inside = true;
    for (var k = 0u; k < params.rank; k += 1u) {
        let axis = params.rank - 1u - k;
        let dim = params.dims[axis / 4u][axis % 4u];
        let at = rest % dim;
        rest /= dim;
        inside = inside && at < params.lens[axis / 4u][axis % 4u];
        source += at * params.steps[axis / 4u][axis % 4u];
    }
    var v = 0u;
    if inside {
        if X_FORM == WORDS {
            v = x[source];
        } else {
            v = bitcast<u32>(code_in(x[source >> 2u], source & 3u, X_FORM));
        }
    }
    y[i] = v;
}
