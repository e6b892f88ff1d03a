// Convolutions of codes: parameters, what follows a sum, and the bindings of it. Needs shared/codes.wgsl,
// shared/store_codes.wgsl, shared/sums_i32.wgsl or shared/sums_i64.wgsl, and shared/finish.wgsl. What is not there is bound all the same, and not read.
struct Params {
    finish: Finish,
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

override ADDEND_FORM: u32 = 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> b: array<vec4<i32>>;
@group(0) @binding(4) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> addend: array<i32>;
@group(0) @binding(6) var<storage, read_write> y: array<i32>;

// What sums of four channels meet.
struct Tail {
    bias: V,
    factor: Factor,
}

fn tail_of(q: u32) -> Tail {
    var bias = V();
    if params.bias == 1u {
        bias = b[q];
    }
    return Tail(bias, factor_of(q));
}

// What follows the sum.
fn store(p: u32, q: u32, s: Sum, tail: Tail) {
    if p < params.pixels && q < params.output.w {
        let i = p * params.output.w + q;
        var added = V();
        if MODE == ADDED {
            if ADDEND_FORM == WORDS {
                added = V(addend[4u * i], addend[4u * i + 1u], addend[4u * i + 2u], addend[4u * i + 3u]);
            } else {
                added = unpacked(bitcast<u32>(addend[i]), ADDEND_FORM);
            }
        }
        let used = lanes_in_use(i, params.o, params.output.w);
        let v = select(V(), finished(whole(s, tail.bias), tail.factor, added), used);
        store4(i, v);
    }
}
