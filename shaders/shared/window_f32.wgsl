// Convolutions of f32: parameters, bindings, loads and stores. Needs shared/sums_f32.wgsl and shared/epilogue.wgsl.
struct Params {
    epilogue: Epilogue,
    input: vec4<u32>,    // id, ih, iw, c4
    output: vec4<u32>,   // od, oh, ow, o4
    kernel: vec4<u32>,   // kd, kh, kw, cg4
    stride: vec4<u32>,
    dilation: vec4<u32>,
    pad: vec4<u32>,
    pixels: u32,         // n * od * oh * ow
    o: u32,
    cg: u32,             // channels of a group: inputs, outputs
    og: u32,
    bias: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

fn load(p: Place, c: u32) -> V {
    return select(V(), x[p.i + c], p.inside);
}

fn lane(p: Place, channel: u32) -> E {
    return select(E(), x[p.i + channel / 4u][channel % 4u], p.inside);
}

fn weight(i: u32) -> V {
    return w[i];
}

// What sums of four channels meet: the bias.
alias Tail = V;

fn tail_of(q: u32) -> Tail {
    if params.bias == 0u {
        return vec4<f32>(0.0);
    }
    return b[q];
}

// What follows the sum.
fn store(p: u32, q: u32, s: Sum, bias: Tail) {
    if p < params.pixels && q < params.output.w {
        let i = p * params.output.w + q;
        let used = lanes_in_use(i, params.o, params.output.w);
        y[i] = select(V(), epilogue(s + bias, used), used);
    }
}
