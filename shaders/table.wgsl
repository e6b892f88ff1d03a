// y = table[x - low].
// x, table, y: codes, x and y in n4 groups of four, any layout; the table a word each. One invocation computes one group.
// Rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
struct Params {
    n4: u32,
    c: u32,
    c4: u32,
    low: i32,
    last: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> table: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    // Lanes that hold no code still read within the table.
    let at = clamp(load4(i) - vec4<i32>(params.low), vec4<i32>(0), vec4<i32>(params.last));
    let codes = vec4<i32>(table[at.x], table[at.y], table[at.z], table[at.w]);
    store4(i, select(vec4<i32>(0), codes, lanes_in_use(i, params.c, params.c4)));
}
