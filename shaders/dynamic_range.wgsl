// The range of x with zero in it, as ordered keys (shared/bits.wgsl); NaN and subnormal numbers do not count.
// x: n f32; range: lowest and highest key of each invocation's share, elements i, i + seekers, i + 2 * seekers, ...
struct Params {
    n: u32,
    seekers: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> range: array<vec2<i32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.seekers {
        return;
    }
    var found = vec2<i32>(0);
    for (var e = i; e < params.n; e += params.seekers) {
        let magnitude = i32(x[e] & 0x7fffffffu);
        if magnitude >= 0x00800000 && magnitude <= 0x7f800000 {
            let key = select(magnitude, -magnitude, x[e] >= 0x80000000u);
            found = vec2<i32>(min(found.x, key), max(found.y, key));
        }
    }
    range[i] = found;
}
