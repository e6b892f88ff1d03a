// y[o] = four codes in one word: moves codes of at most 8 bits from a word each to a packed layout.
// x: codes as i32. y: words. dims: y's axes from slowest to fastest with padding, in n words: the axis `lane` counts in
// fours; lens: codes without padding, what lies between is written as 0; steps: the same axes' strides in x.
// One invocation writes one word. The caller guarantees that rank is at most 8 and that no dim is 0.
struct Params {
    n: u32,
    rank: u32,
    lane: u32,
    pad: u32,
    dims: array<vec4<u32>, 2>,
    lens: array<vec4<u32>, 2>,
    steps: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<i32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    var rest = i;
    var source = vec4<u32>();
    var inside = vec4<bool>(true);
    for (var k = params.rank; k > 0u; k--) {
        let axis = k - 1u;
        let dim = params.dims[axis / 4u][axis % 4u];
        var at = vec4<u32>(rest % dim);
        if axis == params.lane {
            at = 4u * at + vec4<u32>(0u, 1u, 2u, 3u);
        }
        rest /= dim;
        inside &= at < vec4<u32>(params.lens[axis / 4u][axis % 4u]);
        source += at * params.steps[axis / 4u][axis % 4u];
    }
    source = select(vec4<u32>(0u), source, inside);
    let codes = vec4<i32>(x[source.x], x[source.y], x[source.z], x[source.w]);
    y[i] = pack4xI8(select(vec4<i32>(0), codes, inside));
}
