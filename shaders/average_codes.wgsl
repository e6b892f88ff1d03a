// y[n, o, c] = finished(sum of x[n, o * stride + t * dilation - begin, c] - zero point over taps t inside the input), with the
// factor of as many elements as are counted: taps inside the input or, where `padded` is 1, inside its padding.
// MEAN_IN_F32: numbers are summed and divided in f32 in the order of taps, as ONNX Runtime does; `none` is 0, which drivers do
// not know and cannot contract the product with the sum. factors: the scales of x and y.
// x, y: codes (four channels) channels-last, n4 groups of four in y. One invocation computes one group.
struct Params {
    finish: Finish,
    window: Window,
    n4: u32,
    c4: u32,
    c: u32,
    padded: u32,
    none: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

fn number(steps: vec4<i32>, scale: vec4<u32>) -> vec4<f32> {
    // Steps have 17 bits: any conversion is exact.
    let v = bitcast<vec4<u32>>(vec4<f32>(steps) * bitcast<vec4<f32>>(scale));
    return bitcast<vec4<f32>>(v ^ vec4<u32>(params.none));
}

fn mean_in_f32(total: vec4<f32>, counted: u32) -> vec4<i32> {
    let mean = float_quotient(float(bitcast<vec4<u32>>(total)), whole_float(i32(max(counted, 1u))));
    let q = float_quotient(mean, float(factor(1u).m));
    let none = vec4<u32>();
    let x = Wide(q.significand, none, none, none, q.negative);
    return nearest_code(float_sum(x, q.exponent, whole_float(params.finish.y_zero)));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let o = output_at(i, params.c4);
    let size = params.window.input.xyz;
    var total = Sum();
    var total_f32 = vec4<f32>(0.0);
    var counted = 0u;
    for (var d = 0u; d < params.window.kernel.x; d++) {
        for (var h = 0u; h < params.window.kernel.y; h++) {
            for (var w = 0u; w < params.window.kernel.z; w++) {
                let p = tap_at(o.at, vec3<u32>(d, h, w));
                let inside = all(p < size);
                if inside {
                    let at = ((o.n * size.x + p.x) * size.y + p.y) * size.z + p.z;
                    let steps = load4(at * params.c4 + o.group) - params.finish.x_zero;
                    if MODE == MEAN_IN_F32 {
                        total_f32 += number(steps, factor(0u).m);
                    } else {
                        total = add_to(total, steps);
                    }
                }
                if inside || (params.padded == 1u && all(p + params.window.begin.xyz < params.window.limit.xyz)) {
                    counted++;
                }
            }
        }
    }
    var code = vec4<i32>();
    if MODE == MEAN_IN_F32 {
        code = mean_in_f32(total_f32, counted);
    } else {
        code = finished(whole(total, V()), factor_of(counted), vec4<i32>());
    }
    store4(i, select(vec4<i32>(), code, lanes_in_use(i, params.c, params.c4)));
}
