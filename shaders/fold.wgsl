// y[o] = b[o] - zero * sum of w[o]: the bias of products of codes whose zero point is not taken off each.
// w: packed codes with a sign in n words, those of output channel o at o + i * o_padded. b: read where bias is 1. y: i32, one
// each of o_padded channels. One invocation computes one channel.
struct Params {
    n: u32,
    o_padded: u32,
    bias: u32,
    zero: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let o = flat_index(gid, groups);
    if o >= params.o_padded {
        return;
    }
    var sum = 0;
    for (var i = o; i < params.n; i += params.o_padded) {
        sum += dot4I8Packed(w[i], 0x01010101u);
    }
    var bias = 0;
    if params.bias == 1u {
        bias = b[o];
    }
    y[o] = bias - params.zero * sum;
}
