// A window over the spatial axes of x, channels last, missing axes of length 1: what the convolutions share.
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

// A pixel of x: index of its first group of four, and whether it lies inside.
struct Place {
    i: u32,
    inside: bool,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

// Offset of tap t, counted in the order kd, kh, kw.
fn tap_offset(t: u32) -> vec3<i32> {
    let line = t / params.kernel.z;
    let tap = vec3<u32>(line / params.kernel.y, line % params.kernel.y, t % params.kernel.z);
    return vec3<i32>(tap * params.dilation.xyz);
}

fn load(p: Place, c: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), x[p.i + c], p.inside);
}

fn bias_of(q: u32) -> vec4<f32> {
    if params.bias == 0u {
        return vec4<f32>(0.0);
    }
    return b[q];
}

// What follows the sum.
fn store(p: u32, q: u32, s: vec4<f32>, bias: vec4<f32>) {
    if p < params.pixels && q < params.output.w {
        let i = p * params.output.w + q;
        let used = lanes_in_use(i, params.o, params.output.w);
        y[i] = select(vec4<f32>(0.0), epilogue(s + bias, used), used);
    }
}
