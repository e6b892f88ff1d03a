// y = x / (bias + alpha / size * s)^beta, s the sum of squares over the channels from `before` in front to `after` behind.
// x, y: f32, n elements; channel i / step % width, neighbours `step` apart; channels from c on are padding, which stays 0.
// One invocation computes one element.
struct Params {
    n: u32,
    c: u32,
    width: u32,
    step: u32,
    before: u32,
    after: u32,
    scale: f32,
    beta: f32,
    bias: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n {
        return;
    }
    let k = i / params.step % params.width;
    if k >= params.c {
        y[i] = 0.0;
        return;
    }
    let first = i - k * params.step;
    var s = 0.0;
    for (var l = k - min(k, params.before); l < min(k + params.after + 1u, params.c); l++) {
        let v = x[first + l * params.step];
        s += v * v;
    }
    y[i] = x[i] / pow(params.bias + params.scale * s, params.beta);
}
