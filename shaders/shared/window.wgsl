// A window over the spatial axes of x, channels last, missing axes of length 1: what the convolutions share.
// A pixel of x: index of its first group of four, and whether it lies inside.
struct Place {
    i: u32,
    inside: bool,
}

// Offset of tap t, counted in the order kd, kh, kw.
fn tap_offset(t: u32) -> vec3<i32> {
    let line = t / params.kernel.z;
    let tap = vec3<u32>(line / params.kernel.y, line % params.kernel.y, t % params.kernel.z);
    return vec3<i32>(tap * params.dilation.xyz);
}
