// Where the taps of an element of y begin in x. y is dense over dims, the last axis fastest. slots[a] says which of
// up to three tables of taps axis a uses, 3 for a plain step. tables[s] is where table s begins; a row of it holds
// taps[s] pairs (offset in x, weight), OUTSIDE as first offset where the fill stands. A slot that no axis uses has
// one row of (0, 1). These are fields of Params, beside rank, dims and strides.
const OUTSIDE: u32 = 0xffffffffu;

@group(0) @binding(2) var<storage, read> table: array<u32>;

struct Taps {
    // Offset of the axes without taps.
    at: u32,
    // Where the row of each slot begins in the table.
    rows: vec3<u32>,
    inside: bool,
}

fn taps_of(i: u32) -> Taps {
    var rest = i;
    var out = Taps(0u, params.tables.xyz, true);
    for (var k = params.rank; k > 0u; k--) {
        let a = k - 1u;
        let d = params.dims[a / 4u][a % 4u];
        let c = rest % d;
        rest = rest / d;
        let slot = params.slots[a / 4u][a % 4u];
        if slot == 3u {
            out.at += c * params.strides[a / 4u][a % 4u];
        } else {
            out.rows[slot] += c * params.taps[slot] * 2u;
        }
    }
    let first = vec3<u32>(table[out.rows.x], table[out.rows.y], table[out.rows.z]);
    out.inside = all(first != vec3<u32>(OUTSIDE));
    return out;
}
