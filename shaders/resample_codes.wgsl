// y = what shared/resample_codes.wgsl says. x, y: codes as i32. One invocation computes one element.
// The caller guarantees that every sum of offsets is an element of x.
@group(0) @binding(1) var<storage, read> x: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<i32>;

fn load(i: u32) -> V {
    return V(x[i]);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i < params.n {
        y[i] = resampled(taps_of(i)).x;
    }
}
