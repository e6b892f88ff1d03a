// An index over `rank` axes, the last one fastest, and where it lies in x and in y. Offsets wrap, so a stride or
// a base may be the two's complement of a negative number as long as the sum is an element.
struct Params {
    n: u32,
    rank: u32,
    x0: u32,
    y0: u32,
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    y_strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;

struct Offsets {
    x: u32,
    y: u32,
}

fn offsets(i: u32) -> Offsets {
    var rest = i;
    var at = Offsets(params.x0, params.y0);
    for (var k = params.rank; k > 0u; k--) {
        let a = k - 1u;
        let d = params.dims[a / 4u][a % 4u];
        let c = rest % d;
        rest = rest / d;
        at.x += c * params.x_strides[a / 4u][a % 4u];
        at.y += c * params.y_strides[a / 4u][a % 4u];
    }
    return at;
}
