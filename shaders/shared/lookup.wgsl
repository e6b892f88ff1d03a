// Where an element of y comes from: per axis of y a step in x, or a table of offsets with OUTSIDE for none.
// y is dense over dims, the last axis fastest. tables[a] is where axis a's offsets begin, OUTSIDE for a plain step.
struct Params {
    n: u32,
    rank: u32,
    fill: u32,
    c: u32,
    c4: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
    tables: array<vec4<u32>, 2>,
}

const OUTSIDE: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> table: array<u32>;

// The offset in x, or OUTSIDE.
fn source(i: u32) -> u32 {
    var rest = i;
    var at = 0u;
    var inside = true;
    for (var k = params.rank; k > 0u; k--) {
        let a = k - 1u;
        let d = params.dims[a / 4u][a % 4u];
        let c = rest % d;
        rest = rest / d;
        let start = params.tables[a / 4u][a % 4u];
        if start == OUTSIDE {
            at += c * params.strides[a / 4u][a % 4u];
        } else {
            let offset = table[start + c];
            inside = inside && offset != OUTSIDE;
            at += offset;
        }
    }
    return select(OUTSIDE, at, inside);
}
