// y = dequantize(quantize(x)) element by element (shared/quantize.wgsl); NaN becomes 0 and is counted in slot.
// x, y: n4 groups of four f32, any layout. One invocation computes one group.
// table: channels (at least 2) rows of scale, 1/scale (bits), zero point. Element e of the linear order belongs to row
// e / inner % channels, or where by_lane is 1, in a channels-last layout, to that of its lane.
// Rows of c elements, each in c4 groups (View::groups); lanes beyond c are kept at zero.
struct Params {
    n4: u32,
    c: u32,
    c4: u32,
    channels: u32,
    inner: u32,
    by_lane: u32,
    low: i32,
    high: i32,
    slot: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

fn quantizer(i: u32) -> Quantizer {
    var q = Quantizer(vec4<f32>(1.0), vec4<f32>(1.0), vec4<i32>(0), params.low, params.high);
    let lanes = vec4<u32>(0u, 1u, 2u, 3u);
    var row = min(lanes + 4u * (i % params.c4), vec4<u32>(params.channels - 1u));
    if params.by_lane == 0u {
        row = ((lanes + 4u * i) / params.inner) % params.channels;
    }
    for (var l = 0u; l < 4u; l += 1u) {
        q.scale[l] = bitcast<f32>(table[3u * row[l]]);
        q.inverse[l] = bitcast<f32>(table[3u * row[l] + 1u]);
        q.zero_point[l] = bitcast<i32>(table[3u * row[l] + 2u]);
    }
    return q;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.n4 {
        return;
    }
    let q = quantizer(i);
    let used = lanes_in_use(i, params.c, params.c4);
    count_nan(x[i], used, params.slot);
    y[i] = select(vec4<f32>(0.0), dequantize(quantize(x[i], q), q), used);
}
