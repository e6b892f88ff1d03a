// y[i] = x[source(i)], or fill where the source is outside.
// x, y: one 32-bit word an element. table: words. One invocation computes one word.
// The caller guarantees that every offset is an element of x.
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let at = source(i);
    if at == OUTSIDE {
        y[i] = params.fill;
    } else {
        y[i] = x[at];
    }
}
