// As max_pool.wgsl, and the index of the first largest tap: (n * c + channel) * pixels + dot(position, step).
// x, y: V (four channels of T), indices: vec4<i32>, channels-last, n4 groups of four in y. One invocation computes one group.
struct Params {
    window: Window,
    step: vec4<u32>,
    n4: u32,
    c4: u32,
    c: u32,
    lowest: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> indices: array<vec4<i32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let o = output_at(i, params.c4);
    let size = params.window.input.xyz;
    let pixels = size.x * size.y * size.z;
    let lane = vec4<u32>(0u, 1u, 2u, 3u) + 4u * o.group;
    let plane = (vec4<u32>(o.n * params.c) + lane) * pixels;
    var best = V(bitcast<T>(params.lowest));
    var index = vec4<i32>(-1);
    for (var d = 0u; d < params.window.kernel.x; d++) {
        for (var h = 0u; h < params.window.kernel.y; h++) {
            for (var w = 0u; w < params.window.kernel.z; w++) {
                let p = tap_at(o.at, vec3<u32>(d, h, w));
                if all(p < size) {
                    let at = ((o.n * size.x + p.x) * size.y + p.y) * size.z + p.z;
                    let v = x[at * params.c4 + o.group];
                    let s = params.step.xyz;
                    let here = vec4<i32>(plane + vec4<u32>(p.x * s.x + p.y * s.y + p.z * s.z));
                    let better = v > best;
                    index = select(index, here, better);
                    best = select(best, v, better);
                }
            }
        }
    }
    let inside = lane < vec4<u32>(params.c);
    y[i] = select(V(), best, inside);
    indices[i] = select(vec4<i32>(0), index, inside);
}
