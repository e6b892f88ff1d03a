// Tiles of 16 output channels (conv.wgsl) of products of elements: four input channels at a time, of which each meets its
// own weights.

// 16 channels of one pixel.
struct Sums {
    a: V,
    b: V,
    c: V,
    d: V,
}

// The weights of four input channels for 16 output channels.
struct Weights {
    w0: Sums,
    w1: Sums,
    w2: Sums,
    w3: Sums,
}

// Groups of four words of w from one group of input channels to the next, in those of output channels.
const STEP: u32 = 4u;

fn row(i: u32, q: vec4<u32>) -> Sums {
    return Sums(weight(i + q.x), weight(i + q.y), weight(i + q.z), weight(i + q.w));
}

fn weights(i: u32, q: vec4<u32>) -> Weights {
    let o4 = params.output.w;
    return Weights(row(i, q), row(i + o4, q), row(i + 2u * o4, q), row(i + 3u * o4, q));
}

fn add(s: Sums, v: V, w: Weights) -> Sums {
    return Sums(
        mul_add(v.wwww, w.w3.a, mul_add(v.zzzz, w.w2.a, mul_add(v.yyyy, w.w1.a, mul_add(v.xxxx, w.w0.a, s.a)))),
        mul_add(v.wwww, w.w3.b, mul_add(v.zzzz, w.w2.b, mul_add(v.yyyy, w.w1.b, mul_add(v.xxxx, w.w0.b, s.b)))),
        mul_add(v.wwww, w.w3.c, mul_add(v.zzzz, w.w2.c, mul_add(v.yyyy, w.w1.c, mul_add(v.xxxx, w.w0.c, s.c)))),
        mul_add(v.wwww, w.w3.d, mul_add(v.zzzz, w.w2.d, mul_add(v.yyyy, w.w1.d, mul_add(v.xxxx, w.w0.d, s.d)))),
    );
}
