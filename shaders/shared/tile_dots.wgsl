// Tiles of 16 output channels (conv.wgsl) of products of packed codes: four input channels at a time in one word.

// 16 channels of one pixel.
struct Sums {
    a: vec4<i32>,
    b: vec4<i32>,
    c: vec4<i32>,
    d: vec4<i32>,
}

// The weights of four input channels for 16 output channels.
struct Weights {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Groups of four words of w from one group of input channels to the next, in those of output channels.
const STEP: u32 = 1u;

fn weights(i: u32, q: vec4<u32>) -> Weights {
    return Weights(w[i + q.x], w[i + q.y], w[i + q.z], w[i + q.w]);
}

fn dots(v: u32, w: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(
        dot4I8Packed(v, w.x),
        dot4I8Packed(v, w.y),
        dot4I8Packed(v, w.z),
        dot4I8Packed(v, w.w),
    );
}

fn add(s: Sums, v: u32, w: Weights) -> Sums {
    return Sums(s.a + dots(v, w.a), s.b + dots(v, w.b), s.c + dots(v, w.c), s.d + dots(v, w.d));
}
