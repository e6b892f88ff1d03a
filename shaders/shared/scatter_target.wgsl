// Which slice of the data an update goes to. With an axis, updates have the shape dims, and the coordinate on the
// axis is replaced by the index; without (axis = NO_AXIS), k indices stand for each update.
// lengths and strides: of the data's axes, in slices of `inner` elements.
struct Params {
    n: u32,
    updates: u32,
    inner: u32,
    k: u32,
    axis: u32,
    count: u32,
    step: u32,
    pad0: u32,
    dims: array<vec4<u32>, 2>,
    lengths: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}

const NO_AXIS: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<i32>;

fn slice_of(u: u32) -> u32 {
    var rest = u;
    var at = 0u;
    for (var t = params.k; t > 0u; t--) {
        let a = t - 1u;
        let length = params.lengths[a / 4u][a % 4u];
        let stride = params.strides[a / 4u][a % 4u];
        if params.axis == NO_AXIS {
            at += element_of(indices[u * params.k + a], length) * stride;
        } else {
            let d = params.dims[a / 4u][a % 4u];
            let c = rest % d;
            rest = rest / d;
            if a == params.axis {
                at += element_of(indices[u], length) * stride;
            } else {
                at += c * stride;
            }
        }
    }
    return at;
}
