// Statistics of runs of at most 64 consecutive elements of a plane, and a histogram of all elements
// (src/observers/frame.rs says what they mean, bit for bit).
// x: bits of f32 in any layout; element j of a plane lies at j * step, plane (row, channel) of a frame at
// row * row_step + channel * channel_step, a frame at frame * frame_step. histogram: counts, added to.
// part: 5 rows of `row` words, one word for each run in logical order, those of a frame `part_runs` after those of the one
// before it and the first at `first`: sum, sum of squares, key of the greatest number, key of the
// negated least one (0 for none), and in a byte each zeros, NaNs and infinities.
// One invocation computes one run. The caller guarantees frames * runs = total and that zero is 0.
struct Params {
    total: u32,
    runs: u32,
    per_plane: u32,
    plane: u32,
    channels: u32,
    step: u32,
    channel_step: u32,
    row_step: u32,
    frame_step: u32,
    zero: u32,
    first: u32,
    part_runs: u32,
    row: u32,
}

const RUN: u32 = 64u;
const LEAST: u32 = 0x2b800000u;
const MOST: u32 = 0x4b800000u;
const UNBOUNDED: u32 = 0x57800000u;
const INFINITY: u32 = 0x7f800000u;
const DROPPED: u32 = 17u;
const SIDE: u32 = 4098u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> histogram: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> part: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(gid, groups);
    if i >= params.total {
        return;
    }
    let frame = i / params.runs;
    let within = i % params.runs;
    // Neighbouring invocations read neighbouring elements where they can.
    var run = within % params.per_plane;
    var plane = within / params.per_plane;
    if params.step != 1u {
        let channel = within % params.channels;
        let rest = within / params.channels;
        run = rest % params.per_plane;
        plane = (rest / params.per_plane) * params.channels + channel;
    }
    let row = plane / params.channels;
    let channel = plane % params.channels;
    let base = frame * params.frame_step + row * params.row_step + channel * params.channel_step
        + run * RUN * params.step;
    let len = min(RUN, params.plane - run * RUN);
    var sum = 0.0;
    var squares = 0.0;
    var greatest = 0u;
    var least = 0u;
    var counts = 0u;
    for (var j = 0u; j < len; j += 1u) {
        let bits = x[base + j * params.step];
        let a = bits & 0x7fffffffu;
        let negative = bits >> 31u;
        if a < INFINITY {
            // 0 and -0 are one number.
            let key = select(bits | 0x80000000u, ~bits, negative == 1u && a != 0u);
            greatest = max(greatest, key);
            least = max(least, ~key);
            if a != 0u {
                let below = LEAST - (1u << DROPPED);
                let bin = (clamp(a, below, MOST) - below) >> DROPPED;
                atomicAdd(&histogram[bin + negative * SIDE], 1u);
            } else {
                counts += 1u;
            }
        } else {
            counts += select(1u << 16u, 1u << 8u, a > INFINITY);
        }
        let v = bitcast<f32>(select(0u, bits, a >= LEAST && a < UNBOUNDED));
        sum += v;
        // The square is to be rounded before it is added: through bits, so that no compiler fuses the two.
        squares += bitcast<f32>(bitcast<u32>(v * v) ^ params.zero);
    }
    let at = params.first + frame * params.part_runs + plane * params.per_plane + run;
    part[at] = bitcast<u32>(sum);
    part[params.row + at] = bitcast<u32>(squares);
    part[2u * params.row + at] = greatest;
    part[3u * params.row + at] = least;
    part[4u * params.row + at] = counts;
}
