// y[i] = x[i with its coordinate on the axis replaced by indices[i]].
// x, y: one 32-bit word an element. indices: i32, shaped like y; a negative one counts from the end, one outside
// the axis (of d) is clamped. One invocation computes one word. The caller guarantees that x is not empty.
struct Params {
    n: u32,
    rank: u32,
    axis: u32,
    d: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = flat_index(gid, groups);
    if n >= params.n {
        return;
    }
    var rest = n;
    var at = 0u;
    for (var k = params.rank; k > 0u; k--) {
        let a = k - 1u;
        let d = params.dims[a / 4u][a % 4u];
        var c = rest % d;
        rest = rest / d;
        if a == params.axis {
            c = element_of(indices[n], params.d);
        }
        at += c * params.strides[a / 4u][a % 4u];
    }
    y[n] = x[at];
}
