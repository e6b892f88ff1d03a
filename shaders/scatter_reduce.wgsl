// y[slice of u, i] = reduction of it and updates[u, i], for the updates u of one line in their order; i < inner.
// indices: i32. updates, y: f32 or i32 by IS_FLOAT. y holds the data before. REDUCTION: 1 add, 2 mul, 3 max, 4 min.
// One invocation handles one i of one line of `count` updates that lie `step` apart. No two lines share an element.
override REDUCTION: u32 = 1u;
override IS_FLOAT: u32 = 1u;

@group(0) @binding(2) var<storage, read> updates: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

fn reduced_float(a: f32, b: f32) -> f32 {
    switch REDUCTION {
        case 1u: { return a + b; }
        case 2u: { return a * b; }
        case 3u: { return max(a, b); }
        default: { return min(a, b); }
    }
}

fn reduced_int(a: i32, b: i32) -> i32 {
    switch REDUCTION {
        case 1u: { return a + b; }
        case 2u: { return a * b; }
        case 3u: { return max(a, b); }
        default: { return min(a, b); }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = flat_index(gid, groups);
    if n >= params.n {
        return;
    }
    let i = n % params.inner;
    let line = n / params.inner;
    let first = line / params.step * params.step * params.count + line % params.step;
    for (var t = 0u; t < params.count; t++) {
        let u = first + t * params.step;
        let at = slice_of(u) * params.inner + i;
        let update = updates[u * params.inner + i];
        if IS_FLOAT != 0u {
            y[at] = bitcast<u32>(reduced_float(bitcast<f32>(y[at]), bitcast<f32>(update)));
        } else {
            y[at] = bitcast<u32>(reduced_int(bitcast<i32>(y[at]), bitcast<i32>(update)));
        }
    }
}
