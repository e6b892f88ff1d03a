// y = combined(a, b) on codes with both operands broadcast to y; combined comes from a file under codes/ and takes steps:
// codes less a_zero and b_zero, those of b times `sign`. One invocation computes one group of four elements of y.
// y: n elements in n4 groups. Linear, or channels-last with c of 4*c4 lanes in use (c is 0 when linear).
// a, b: as A_FORM and B_FORM say, in y's layout, addressed as shared/broadcast.wgsl says. dims: axes of y as they lie in memory.
struct Params {
    finish: Finish,
    n4: u32,
    n: u32,
    c: u32,
    c4: u32,
    dims: array<vec4<u32>, 2>,
    a_how: vec4<u32>,
    a_strides: array<vec4<u32>, 2>,
    b_how: vec4<u32>,
    b_strides: array<vec4<u32>, 2>,
    a_zero: i32,
    b_zero: i32,
    sign: i32,
}

override A_FORM: u32 = 0u;
override B_FORM: u32 = 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<i32>>;
@group(0) @binding(3) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<i32>;

fn group_a(i: u32) -> vec4<i32> {
    if A_FORM == WORDS {
        return a[i];
    }
    return unpacked(bitcast<u32>(a[i >> 2u][i & 3u]), A_FORM);
}

fn element_a(i: u32) -> i32 {
    if A_FORM == WORDS {
        return a[i >> 2u][i & 3u];
    }
    return code_in(bitcast<u32>(a[i >> 4u][(i >> 2u) & 3u]), i & 3u, A_FORM);
}

fn load_a(i: u32) -> vec4<i32> {
    let how = params.a_how;
    if how.x == SAME {
        return group_a(i);
    }
    if how.x == CYCLE {
        return group_a(i % how.z);
    }
    let k = lane_indices(how, params.dims, params.a_strides, i, params.n);
    return vec4<i32>(element_a(k.x), element_a(k.y), element_a(k.z), element_a(k.w));
}

fn group_b(i: u32) -> vec4<i32> {
    if B_FORM == WORDS {
        return b[i];
    }
    return unpacked(bitcast<u32>(b[i >> 2u][i & 3u]), B_FORM);
}

fn element_b(i: u32) -> i32 {
    if B_FORM == WORDS {
        return b[i >> 2u][i & 3u];
    }
    return code_in(bitcast<u32>(b[i >> 4u][(i >> 2u) & 3u]), i & 3u, B_FORM);
}

fn load_b(i: u32) -> vec4<i32> {
    let how = params.b_how;
    if how.x == SAME {
        return group_b(i);
    }
    if how.x == CYCLE {
        return group_b(i % how.z);
    }
    let k = lane_indices(how, params.dims, params.b_strides, i, params.n);
    return vec4<i32>(element_b(k.x), element_b(k.y), element_b(k.z), element_b(k.w));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let p = load_a(i) - params.a_zero;
    let q = (load_b(i) - params.b_zero) * params.sign;
    store4(i, select(vec4<i32>(), combined(p, q), lanes_in_use(i, params.c, params.c4)));
}
