// Rows of a tensor (ops::rows): `rows: Rows` is the first field of `Params`. LANES invocations share a row;
// lane l takes the elements l, l + LANES, .. of it, so that the order of a sum follows from the row's length alone.
override LANES: u32 = 1u;
// Whether neighbouring invocations are the same lane of neighbouring rows, instead of neighbouring lanes of a row.
override ACROSS: u32 = 0u;
const ROW_WG: u32 = 128u;

struct Rows {
    kept: array<vec4<u32>, 2>,
    kept_step: array<vec4<u32>, 2>,
    within: array<vec4<u32>, 2>,
    within_step: array<vec4<u32>, 2>,
    kept_rank: u32,
    within_rank: u32,
    count: u32,
    len: u32,
}

struct Place {
    row: u32,
    lane: u32,
}

fn place(local: u32, group: vec3<u32>, groups: vec3<u32>) -> Place {
    let per_group = ROW_WG / LANES;
    let first = (group.x + group.y * groups.x) * per_group;
    if ACROSS == 1u {
        return Place(first + local % per_group, local / per_group);
    }
    return Place(first + local / LANES, local % LANES);
}

// The invocation that is `lane` of the row of invocation `local`.
fn invocation_of(lane: u32, local: u32) -> u32 {
    if ACROSS == 1u {
        let per_group = ROW_WG / LANES;
        return lane * per_group + local % per_group;
    }
    return local - local % LANES + lane;
}

fn row_offset(row: u32) -> u32 {
    var rest = row;
    var at = 0u;
    for (var a = params.rows.kept_rank; a > 0u; a--) {
        let d = params.rows.kept[(a - 1u) / 4u][(a - 1u) % 4u];
        at += rest % d * params.rows.kept_step[(a - 1u) / 4u][(a - 1u) % 4u];
        rest /= d;
    }
    return at;
}

fn within_offset(j: u32) -> u32 {
    if params.rows.within_rank == 1u {
        return j * params.rows.within_step[0].x;
    }
    var rest = j;
    var at = 0u;
    for (var a = params.rows.within_rank; a > 0u; a--) {
        let d = params.rows.within[(a - 1u) / 4u][(a - 1u) % 4u];
        at += rest % d * params.rows.within_step[(a - 1u) / 4u][(a - 1u) % 4u];
        rest /= d;
    }
    return at;
}
