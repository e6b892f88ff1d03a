// y[n, c, i, j] = x[n, c] sampled at the point grid[n, i, j] = (horizontal, vertical), all of them codes; -1..1 is the whole
// picture. A point is round(steps * m * 2^-by) + 128 * (size - 1) in steps of 2^-8 pixels; y is finished (shared/finish.wgsl)
// from the exact sum of four pixels, or of the nearest one, with weights in these steps.
// x: codes as i32 [n, c, h, w], channels-last. grid: codes as i32 [n, oh, ow, 2], linear. y: as x, channels-last, c of
// 4*c4 lanes in use. padding: 0 zeros, 1 border, 2 reflection. One invocation computes four channels of one pixel.
// The caller guarantees pictures of at most 2^20 pixels in height and width.
struct Params {
    finish: Finish,
    groups: u32,
    c: u32,
    c4: u32,
    pixels: u32,
    // Width, height; multipliers and shifts of both.
    size: vec2<i32>,
    m: vec2<u32>,
    by: vec2<i32>,
    grid_zero: i32,
    padding: u32,
    align_corners: u32,
    nearest: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> grid: array<i32>;
@group(0) @binding(3) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<i32>>;

const BORDER: u32 = 1u;
const REFLECTION: u32 = 2u;
// Beyond every picture.
const FAR_STEPS: u32 = 0x20000000u;

// A whole coordinate mirrored at the ends of an axis of d pixels until it lies inside, counted in halves of pixels.
fn reflected(v: i32, d: i32) -> i32 {
    let low = select(-1, 0, params.align_corners != 0u);
    let span = 2 * (d - 1) - 2 * low;
    if span == 0 {
        return 0;
    }
    let beyond = abs(2 * v - low);
    let rest = beyond % span;
    return select(low + rest, low + span - rest, (beyond / span) % 2 == 1) / 2;
}

// The pixel that stands at a whole coordinate, -1 for none.
fn pixel(v: i32, d: i32) -> i32 {
    var at = v;
    if params.padding == BORDER {
        at = clamp(v, 0, d - 1);
    }
    if params.padding == REFLECTION {
        at = clamp(reflected(v, d), 0, d - 1);
    }
    return select(-1, at, at >= 0 && at < d);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.groups {
        return;
    }
    let group = i % params.c4;
    let p = i / params.c4;
    let first = p / params.pixels * u32(params.size.x * params.size.y);
    let steps = wide(vec4<i32>(grid[2u * p], grid[2u * p + 1u], 0, 0) - vec4<i32>(params.grid_zero));
    let by = vec4<i32>(params.by, params.by);
    let moved = rounded_shift(times(steps, vec4<u32>(params.m, params.m)), by, ROUNDING, vec4<bool>());
    let near = vec4<i32>(min(moved, vec4<u32>(FAR_STEPS)));
    let at = select(near, -near, steps.negative).xy + 128 * (params.size - vec2<i32>(1));
    var low = at >> vec2<u32>(8u);
    var rest = at & vec2<i32>(255);
    var taps = 2;
    if params.nearest == 1u {
        let up = (rest > vec2<i32>(128)) | ((rest == vec2<i32>(128)) & ((low & vec2<i32>(1)) == vec2<i32>(1)));
        low += select(vec2<i32>(0), vec2<i32>(1), up);
        rest = vec2<i32>(0);
        taps = 1;
    }
    var sum = Sum();
    for (var r = 0; r < taps; r++) {
        let row = pixel(low.y + r, params.size.y);
        for (var q = 0; q < taps; q++) {
            let column = pixel(low.x + q, params.size.x);
            if row >= 0 && column >= 0 {
                let weight = select(256 - rest.y, rest.y, r == 1) * select(256 - rest.x, rest.x, q == 1);
                let source = first + u32(row * params.size.x + column);
                sum = mul_add(x[source * params.c4 + group] - params.finish.x_zero, V(weight), sum);
            }
        }
    }
    let code = finished(whole(sum, V()), factor(0u), vec4<i32>());
    y[i] = select(vec4<i32>(), code, lanes_in_use(i, params.c, params.c4));
}
