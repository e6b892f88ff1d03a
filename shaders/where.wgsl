// out = x where cond, else y, all broadcast to out. One invocation computes one group of four elements.
// cond: bool (0 or 1). x, y, out: words of any one type. out: n elements in n4 groups, in rows of c elements, each in c4
// groups (View::groups); lanes beyond c are kept at zero. The others in its layout, addressed as shared/broadcast.wgsl says.
struct Params {
    n4: u32,
    n: u32,
    c: u32,
    c4: u32,
    dims: array<vec4<u32>, 2>,
    cond_how: vec4<u32>,
    cond_strides: array<vec4<u32>, 2>,
    x_how: vec4<u32>,
    x_strides: array<vec4<u32>, 2>,
    y_how: vec4<u32>,
    y_strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> cond: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> y: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<u32>>;

fn load_cond(i: u32) -> vec4<u32> {
    let how = params.cond_how;
    if how.x == SAME {
        return cond[i];
    }
    if how.x == CYCLE {
        return cond[i % how.z];
    }
    let k = lane_indices(how, params.dims, params.cond_strides, i, params.n);
    return vec4<u32>(
        cond[k.x >> 2u][k.x & 3u], cond[k.y >> 2u][k.y & 3u], cond[k.z >> 2u][k.z & 3u], cond[k.w >> 2u][k.w & 3u]
    );
}

fn load_x(i: u32) -> vec4<u32> {
    let how = params.x_how;
    if how.x == SAME {
        return x[i];
    }
    if how.x == CYCLE {
        return x[i % how.z];
    }
    let k = lane_indices(how, params.dims, params.x_strides, i, params.n);
    return vec4<u32>(x[k.x >> 2u][k.x & 3u], x[k.y >> 2u][k.y & 3u], x[k.z >> 2u][k.z & 3u], x[k.w >> 2u][k.w & 3u]);
}

fn load_y(i: u32) -> vec4<u32> {
    let how = params.y_how;
    if how.x == SAME {
        return y[i];
    }
    if how.x == CYCLE {
        return y[i % how.z];
    }
    let k = lane_indices(how, params.dims, params.y_strides, i, params.n);
    return vec4<u32>(y[k.x >> 2u][k.x & 3u], y[k.y >> 2u][k.y & 3u], y[k.z >> 2u][k.z & 3u], y[k.w >> 2u][k.w & 3u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let picked = select(load_y(i), load_x(i), load_cond(i) != vec4<u32>(0u));
    out[i] = select(vec4<u32>(0u), picked, lanes_in_use(i, params.c, params.c4));
}
