// What becomes of elements before they are stored: a clamp, then a quantizer of one scale (graph::epilogue).
// Needs shared/bits.wgsl, shared/quantize.wgsl, shared/nan_count.wgsl and a field `epilogue` of Params.
// EPILOGUE: 0 nothing, 1 the clamp, 2 both.
override EPILOGUE: u32 = 0u;

struct Epilogue {
    low: f32,
    high: f32,
    scale: f32,
    inverse: f32,
    zero_point: i32,
    code_low: i32,
    code_high: i32,
    slot: u32,
}

fn clamped(x: vec4<f32>, low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    // Not max and min, of which drivers may give either zero.
    let v = select(x, low, x < low);
    return select(select(v, high, v > high), x, is_nan(x));
}

// `used`: the lanes that are elements, and not padding.
fn epilogue(x: vec4<f32>, used: vec4<bool>) -> vec4<f32> {
    if EPILOGUE == 0u {
        return x;
    }
    let e = params.epilogue;
    let v = clamped(x, vec4<f32>(e.low), vec4<f32>(e.high));
    if EPILOGUE == 1u {
        return v;
    }
    count_nan(v, used, e.slot);
    let zero = vec4<i32>(e.zero_point);
    let q = Quantizer(vec4<f32>(e.scale), vec4<f32>(e.inverse), zero, e.code_low, e.code_high);
    return dequantize(quantize(v, q), q);
}
