// y = x in another element type, as Rust's `as` converts; a bool is whether x is not 0. PRECISION: what an f32 y is rounded to.
// x, y: words, n4 groups of four, any layout. One invocation computes one group. FROM, TO: the types, numbered as below.
// Rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
struct Params {
    n4: u32,
    c: u32,
    c4: u32,
}

override FROM: u32 = 0u;
override TO: u32 = 0u;
const F32: u32 = 0u;
const I32: u32 = 1u;
const BOOL: u32 = 2u;
const I8: u32 = 3u;
const U8: u32 = 4u;
const I16: u32 = 5u;
const U16: u32 = 6u;
const I4: u32 = 7u;
const U4: u32 = 8u;

override PRECISION: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

// Toward zero, within low..=high; 0 of NaN. Bounds are compared as floats before the conversion, which is not
// defined beyond them.
fn saturate_i32(v: vec4<f32>, low: i32, high: i32) -> vec4<i32> {
    let below = v <= vec4<f32>(f32(low));
    let above = v >= vec4<f32>(f32(high));
    let bounded = clamp(v, vec4<f32>(-2147483648.0), vec4<f32>(2147483520.0));
    let inside = vec4<i32>(select(bounded, vec4<f32>(0.0), is_nan(v) | below | above));
    let out = select(select(inside, vec4<i32>(high), above), vec4<i32>(low), below);
    return select(out, vec4<i32>(0), is_nan(v));
}

fn from_f32(bits: vec4<u32>) -> vec4<u32> {
    if TO == F32 {
        return bits;
    }
    let v = bitcast<vec4<f32>>(bits);
    if TO == BOOL {
        return vec4<u32>((bits & vec4<u32>(0x7fffffffu)) != vec4<u32>(0u));
    }
    var low = -2147483647 - 1;
    var high = 2147483647;
    switch TO {
        case I16: { low = -32768; high = 32767; }
        case U16: { low = 0; high = 65535; }
        case I8: { low = -128; high = 127; }
        case U8: { low = 0; high = 255; }
        case I4: { low = -8; high = 7; }
        case U4: { low = 0; high = 15; }
        default: {}
    }
    return bitcast<vec4<u32>>(saturate_i32(v, low, high));
}

// All but the highest `cut` bits, with their sign.
fn signed_bits(v: vec4<i32>, cut: u32) -> vec4<u32> {
    return bitcast<vec4<u32>>((v << vec4<u32>(cut)) >> vec4<u32>(cut));
}

fn from_integer(v: vec4<i32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    if TO == F32 {
        return bitcast<vec4<u32>>(vec4<f32>(v));
    }
    if TO == BOOL {
        return vec4<u32>(v != vec4<i32>(0));
    }
    switch TO {
        case I16: { return signed_bits(v, 16u); }
        case U16: { return bits & vec4<u32>(0xffffu); }
        case I8: { return signed_bits(v, 24u); }
        case U8: { return bits & vec4<u32>(0xffu); }
        case I4: { return signed_bits(v, 28u); }
        case U4: { return bits & vec4<u32>(0xfu); }
        default: { return bits; }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    var out = x[i];
    if FROM == F32 {
        out = from_f32(out);
    } else {
        out = from_integer(bitcast<vec4<i32>>(out));
    }
    if PRECISION == F16 {
        out = to_f16(out);
    }
    if PRECISION == BF16 {
        out = to_bf16(out);
    }
    y[i] = select(vec4<u32>(0u), out, lanes_in_use(i, params.c, params.c4));
}
