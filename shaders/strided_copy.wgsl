// y[y0 + sum i_a * y_strides_a] = x[x0 + sum i_a * x_strides_a] for every index i of dims.
// x, y: one 32-bit word an element, whatever its type. One invocation copies one word.
// The caller guarantees that every offset is an element of its binding and that no two indices share one of y.
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let at = offsets(i);
    y[at.y] = x[at.x];
}
