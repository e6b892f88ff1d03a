// Which scale belongs to which element (ops::linear::grain). HAS_ZERO: whether zero points are bound.
override HAS_ZERO: u32 = 0u;

struct Grain {
    n: u32,
    inner: u32,
    len: u32,
    block: u32,
    outer_step: u32,
    axis_step: u32,
    inner_step: u32,
    scales: u32,
}

// The index of the scale of element e; beyond the tensor that of some element.
fn scale_of(g: Grain, e: u32) -> u32 {
    let row = e / g.inner;
    let at = row / g.len * g.outer_step + row % g.len / g.block * g.axis_step + e % g.inner * g.inner_step;
    return min(at, g.scales - 1u);
}
