// y = f(a, b) with both operands broadcast to y; f comes from a file under binary/, the element types from
// shared/binary_*.wgsl. One invocation computes one group of four elements of y.
// y: n elements in n4 groups, in rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
// a, b: in y's layout, addressed as shared/broadcast.wgsl says. dims: axes of y as they lie in memory.
struct Params {
    epilogue: Epilogue,
    n4: u32,
    n: u32,
    c: u32,
    c4: u32,
    dims: array<vec4<u32>, 2>,
    a_how: vec4<u32>,
    a_strides: array<vec4<u32>, 2>,
    b_how: vec4<u32>,
    b_strides: array<vec4<u32>, 2>,
    p: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> b: array<B>;
@group(0) @binding(3) var<storage, read_write> y: array<Y>;

fn load_a(i: u32) -> A {
    let how = params.a_how;
    if how.x == SAME {
        return a[i];
    }
    if how.x == CYCLE {
        return a[i % how.z];
    }
    let k = lane_indices(how, params.dims, params.a_strides, i, params.n);
    return A(a[k.x >> 2u][k.x & 3u], a[k.y >> 2u][k.y & 3u], a[k.z >> 2u][k.z & 3u], a[k.w >> 2u][k.w & 3u]);
}

fn load_b(i: u32) -> B {
    let how = params.b_how;
    if how.x == SAME {
        return b[i];
    }
    if how.x == CYCLE {
        return b[i % how.z];
    }
    let k = lane_indices(how, params.dims, params.b_strides, i, params.n);
    return B(b[k.x >> 2u][k.x & 3u], b[k.y >> 2u][k.y & 3u], b[k.z >> 2u][k.z & 3u], b[k.w >> 2u][k.w & 3u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let used = lanes_in_use(i, params.c, params.c4);
    y[i] = select(Y(), epilogue(f(load_a(i), load_b(i), params.p), used), used);
}
