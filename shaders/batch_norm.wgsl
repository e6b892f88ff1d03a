// y = (x - mean) * (scale / sqrt(variance + epsilon)) + bias, the latter four by channel.
// x, y: f32, n elements, channel i % stride; channels from c on are padding and stay 0. The others: f32[c].
// One invocation computes one element.
struct Params {
    n: u32,
    stride: u32,
    c: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let k = i % params.stride;
    if k >= params.c {
        y[i] = 0.0;
        return;
    }
    y[i] = (x[i] - mean[k]) * (scale[k] / sqrt(variance[k] + params.epsilon)) + bias[k];
}
