// y[row] = finished(sum of x[row, j] - zero point over j) (shared/finish.wgsl).
// x: codes as X_FORM says, rows as in shared/rows.wgsl; y: i32[rows]. LANES invocations compute one element.
// Where c is not 0 rows run over channels padded to c4 groups of four, of which those from c on are kept at zero.
struct Params {
    finish: Finish,
    rows: Rows,
    c: u32,
    c4: u32,
}

override X_FORM: u32 = 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<i32>;
@group(0) @binding(2) var<storage, read> factors: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

fn code_at(i: u32) -> i32 {
    if X_FORM == WORDS {
        return x[i];
    }
    return code_in(bitcast<u32>(x[i >> 2u]), i & 3u, X_FORM);
}

// Low and high word of sums of 64 bits.
var<workgroup> part: array<vec2<u32>, ROW_WG>;

fn plus_words(s: vec2<u32>, v: vec2<u32>) -> vec2<u32> {
    let low = s.x + v.x;
    return vec2<u32>(low, s.y + v.y + select(0u, 1u, low < v.x));
}

@compute @workgroup_size(ROW_WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = place(local, group, groups);
    let live = at.row < params.rows.count;
    var sum = vec2<u32>();
    if live {
        let base = row_offset(at.row);
        for (var j = at.lane; j < params.rows.len; j += LANES) {
            let v = code_at(base + within_offset(j)) - params.finish.x_zero;
            sum = plus_words(sum, vec2<u32>(bitcast<u32>(v), select(0u, 0xffffffffu, v < 0)));
        }
    }
    if LANES > 1u {
        part[local] = sum;
        workgroupBarrier();
        for (var s = LANES / 2u; s > 0u; s /= 2u) {
            if at.lane < s {
                part[local] = plus_words(part[local], part[invocation_of(at.lane + s, local)]);
            }
            workgroupBarrier();
        }
        sum = part[local];
    }
    if live && at.lane == 0u {
        let total = Sum(vec4<u32>(sum.x), vec4<u32>(sum.y));
        let code = finished(whole(total, V()), factor(0u), vec4<i32>()).x;
        let pads = params.c != 0u && at.row % (4u * params.c4) >= params.c;
        y[at.row] = select(code, 0, pads);
    }
}
