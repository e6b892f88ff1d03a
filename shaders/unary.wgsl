// y = f(x) element by element; f comes from a file under unary/, the element types from shared/unary_*.wgsl.
// x, y: n4 groups of four, any layout. One invocation computes one group.
// Rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
struct Params {
    epilogue: Epilogue,
    n4: u32,
    c: u32,
    c4: u32,
    a: f32,
    b: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read_write> y: array<Y>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let v = x[i];
    let used = lanes_in_use(i, params.c, params.c4);
    y[i] = select(Y(), epilogue(keep_nan(v, f(v, params.a, params.b)), used), used);
}
