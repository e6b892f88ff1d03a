// y[n, c, i, j] = x[n, c] sampled at the point grid[n, i, j] = (horizontal, vertical), -1..1 being the whole picture.
// x: f32 [n, c, h, w], channels-last. grid: f32 [n, oh, ow, 2], linear. y: f32 [n, c, oh, ow], channels-last.
// One invocation computes four channels of one pixel: a weighted sum of taps * taps pixels, row after row.
// taps: 1 is the nearest pixel, 2 linear, 4 cubic. padding: 0 zeros, 1 border, 2 reflection.
struct Params {
    groups: u32,
    c4: u32,
    h: u32,
    w: u32,
    pixels: u32,
    taps: u32,
    padding: u32,
    align_corners: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> grid: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

const BORDER: u32 = 1u;
const REFLECTION: u32 = 2u;

// The pixel coordinate of a point, on an axis of d pixels.
fn unnormalize(v: f32, d: f32) -> f32 {
    if params.align_corners != 0u {
        return (v + 1.0) * 0.5 * (d - 1.0);
    }
    return ((v + 1.0) * d - 1.0) * 0.5;
}

// A whole coordinate mirrored at the ends of the axis until it lies inside.
fn reflected(v: f32, d: f32) -> f32 {
    let low = select(-0.5, 0.0, params.align_corners != 0u);
    let span = d - 1.0 - 2.0 * low;
    if span <= 0.0 {
        return 0.0;
    }
    let beyond = abs(v - low);
    let turns = floor(beyond / span);
    let rest = beyond - turns * span;
    let is_odd = turns - 2.0 * floor(turns * 0.5) > 0.5;
    return select(low + rest, low + span - rest, is_odd);
}

// The pixel that stands at a whole coordinate, -1 for none.
fn pixel(v: f32, d: f32) -> i32 {
    var at = v;
    if params.padding == BORDER {
        at = clamp(v, 0.0, d - 1.0);
    }
    if params.padding == REFLECTION {
        at = clamp(reflected(v, d), 0.0, d - 1.0);
    }
    if !(at >= 0.0 && at <= d - 1.0) {
        return -1;
    }
    return min(i32(at), i32(d) - 1);
}

// Weights of the taps for a point s behind the second (cubic), the first (linear) or the only pixel.
fn weights(s: f32) -> vec4<f32> {
    if params.taps == 1u {
        return vec4<f32>(1.0, 0.0, 0.0, 0.0);
    }
    if params.taps == 2u {
        return vec4<f32>(1.0 - s, s, 0.0, 0.0);
    }
    let a = -0.75;
    let far = vec2<f32>(1.0 + s, 2.0 - s);
    let near = vec2<f32>(s, 1.0 - s);
    let f = ((a * far - 5.0 * a) * far + 8.0 * a) * far - 4.0 * a;
    let n = ((a + 2.0) * near - (a + 3.0)) * near * near + 1.0;
    return vec4<f32>(f.x, n.x, n.y, f.y);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.groups {
        return;
    }
    let group = i % params.c4;
    let p = i / params.c4;
    let first = p / params.pixels * params.h * params.w;
    let size = vec2<f32>(f32(params.w), f32(params.h));
    let at = vec2<f32>(unnormalize(grid[2u * p], size.x), unnormalize(grid[2u * p + 1u], size.y));
    var low = floor(at);
    if params.taps == 1u {
        low = round_even(vec4<f32>(at, at)).xy;
    }
    let wx = weights(at.x - low.x);
    let wy = weights(at.y - low.y);
    if params.taps == 4u {
        low -= 1.0;
    }
    var acc = vec4<f32>(0.0);
    for (var r = 0u; r < params.taps; r++) {
        let row = pixel(low.y + f32(r), size.y);
        for (var q = 0u; q < params.taps; q++) {
            let column = pixel(low.x + f32(q), size.x);
            if row >= 0 && column >= 0 {
                let source = first + u32(row) * params.w + u32(column);
                acc += (wy[r] * wx[q]) * x[source * params.c4 + group];
            }
        }
    }
    y[i] = acc;
}
