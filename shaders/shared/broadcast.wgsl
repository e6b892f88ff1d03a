// Where the four elements of group i of an output lie in an operand that is broadcast to it.
// how = (mode, ..): SAME, the group itself; CYCLE, group i % how.z; SPLAT, one element for all four; RUN, an element
// each, in both cases by run_index; STRIDED, by how.y axes with the output's lengths `dims` and the operand's strides.
const SAME: u32 = 0u;
const CYCLE: u32 = 1u;
const SPLAT: u32 = 2u;
const RUN: u32 = 3u;

// An operand that repeats how.z elements, how.w apart, each how.y times.
fn run_index(how: vec4<u32>, e: u32) -> u32 {
    return ((e / how.y) % how.z) * how.w;
}

fn strided_index(how: vec4<u32>, dims: array<vec4<u32>, 2>, strides: array<vec4<u32>, 2>, e: u32) -> u32 {
    var d = dims;
    var s = strides;
    var rest = e;
    var at = 0u;
    for (var axis = how.y; axis > 0u; axis--) {
        let k = axis - 1u;
        let length = d[k >> 2u][k & 3u];
        at += (rest % length) * s[k >> 2u][k & 3u];
        rest /= length;
    }
    return at;
}

// Elements, of an operand that is neither SAME nor CYCLE, for group i of n elements; past the end, for the last one.
fn lane_indices(
    how: vec4<u32>, dims: array<vec4<u32>, 2>, strides: array<vec4<u32>, 2>, i: u32, n: u32
) -> vec4<u32> {
    if how.x == SPLAT {
        return vec4<u32>(run_index(how, 4u * i));
    }
    let e = min(4u * i + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(n - 1u));
    if how.x == RUN {
        return vec4<u32>(run_index(how, e.x), run_index(how, e.y), run_index(how, e.z), run_index(how, e.w));
    }
    return vec4<u32>(
        strided_index(how, dims, strides, e.x),
        strided_index(how, dims, strides, e.y),
        strided_index(how, dims, strides, e.z),
        strided_index(how, dims, strides, e.w),
    );
}
