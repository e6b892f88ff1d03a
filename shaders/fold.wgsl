// y[o] = b[o * b_step] - zero * sum of w[o]: the bias of products of codes whose zero point is not taken off each.
// w: packed codes with a sign, those of output channel o in `count` words at o * o_step + i * step. b: read where bias is 1.
// y: i32, one each of `channels`. One invocation computes one channel.
struct Params {
    channels: u32,
    count: u32,
    o_step: u32,
    step: u32,
    bias: u32,
    b_step: u32,
    zero: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let o = flat_index(gid, groups);
    if o >= params.channels {
        return;
    }
    var sum = 0;
    for (var i = 0u; i < params.count; i++) {
        sum += dot4I8Packed(w[o * params.o_step + i * params.step], 0x01010101u);
    }
    var bias = 0;
    if params.bias == 1u {
        bias = b[o * params.b_step];
    }
    y[o] = bias - params.zero * sum;
}
