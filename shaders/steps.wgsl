// y[o] = x[o] - zero[index along one axis]: codes less their zero points, in the layout that they have.
// x, y: i32; zero: one an element of the axis, or one. dims: axes from slowest to fastest with padding, in n elements;
// lens: without padding, what lies between is written as 0. axis: which of them zero runs along, where it has several.
// One invocation writes one element. The caller guarantees that rank is at most 8 and that no dim is 0.
struct Params {
    n: u32,
    rank: u32,
    axis: u32,
    pad: u32,
    dims: array<vec4<u32>, 2>,
    lens: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<i32>;
@group(0) @binding(2) var<storage, read> zero: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    var rest = i;
    var index = 0u;
    var inside = true;
    for (var k = params.rank; k > 0u; k--) {
        let axis = k - 1u;
        let dim = params.dims[axis / 4u][axis % 4u];
        let at = rest % dim;
        rest /= dim;
        inside = inside && at < params.lens[axis / 4u][axis % 4u];
        if axis == params.axis {
            index = at;
        }
    }
    var v = 0;
    if inside {
        v = x[i] - zero[index];
    }
    y[i] = v;
}
