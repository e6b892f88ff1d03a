// Statistics of frames from those of their runs.
// part: as shaders/observe.wgsl leaves it; result: 8 words a frame: key of the greatest number, key of the negated
// least one, zeros, NaNs, infinities, sum, sum of squares, 0.
// A workgroup computes one frame. Lane t adds runs t, t + 64, ..; then lane t adds lane t + 32, then t + 16, .. t + 1.
struct Params {
    frames: u32,
    runs: u32,
    first: u32,
    part_runs: u32,
    row: u32,
}

// The order of additions is defined with 64 lanes.
override LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> part: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<u32>;

var<workgroup> lane_sums: array<vec2<f32>, LANES>;
var<workgroup> lane_ends: array<vec2<u32>, LANES>;
var<workgroup> lane_counts: array<vec3<u32>, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let frame = group.x + group.y * groups.x;
    let live = frame < params.frames;
    let runs = select(0u, params.runs, live);
    let base = params.first + frame * params.part_runs;
    var sums = vec2<f32>(0.0);
    var ends = vec2<u32>(0u);
    var counts = vec3<u32>(0u);
    for (var r = lane; r < runs; r += LANES) {
        let at = base + r;
        sums += vec2<f32>(bitcast<f32>(part[at]), bitcast<f32>(part[params.row + at]));
        ends = max(ends, vec2<u32>(part[2u * params.row + at], part[3u * params.row + at]));
        counts += (vec3<u32>(part[4u * params.row + at]) >> vec3<u32>(0u, 8u, 16u)) & vec3<u32>(0xffu);
    }
    lane_sums[lane] = sums;
    lane_ends[lane] = ends;
    lane_counts[lane] = counts;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            lane_sums[lane] += lane_sums[lane + half];
            lane_ends[lane] = max(lane_ends[lane], lane_ends[lane + half]);
            lane_counts[lane] += lane_counts[lane + half];
        }
        workgroupBarrier();
    }
    if live && lane == 0u {
        let to = 8u * frame;
        result[to] = lane_ends[0].x;
        result[to + 1u] = lane_ends[0].y;
        result[to + 2u] = lane_counts[0].x;
        result[to + 3u] = lane_counts[0].y;
        result[to + 4u] = lane_counts[0].z;
        result[to + 5u] = bitcast<u32>(lane_sums[0].x);
        result[to + 6u] = bitcast<u32>(lane_sums[0].y);
        result[to + 7u] = 0u;
    }
}
