// resample_codes in groups of four words channels-last: dims, steps and offsets count groups; of 4*c4 lanes c are in use, and
// the others are kept at zero. x, y: codes as i32 in groups of four. One invocation computes one group. Guarantees as in
// resample_codes.
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<i32>>;

fn load(i: u32) -> V {
    return x[i];
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i < params.n {
        y[i] = select(vec4<i32>(), resampled(taps_of(i)), lanes_in_use(i, params.c, params.c4));
    }
}
