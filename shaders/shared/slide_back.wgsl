// Transposed convolution: output pixel p meets under tap k the input pixel (p + pad - k * dilation) / stride, if whole.

// Output pixel p with its padding, and first plane of its image.
fn origin(p: u32) -> vec4<i32> {
    let q = min(p, params.pixels - 1u);
    let row = q / params.output.z;
    let plane = row / params.output.y;
    let o = vec3<u32>(plane % params.output.x, row % params.output.y, q % params.output.z);
    let n = plane / params.output.x;
    return vec4<i32>(vec3<i32>(o + params.pad.xyz), i32(n * params.input.x));
}

fn place(o: vec4<i32>, k: vec3<i32>) -> Place {
    let ahead = o.xyz - k;
    let stride = vec3<i32>(params.stride.xyz);
    let q = ahead / stride;
    let whole = all(ahead >= vec3<i32>(0)) && all(q * stride == ahead);
    let inside = whole && all(q < vec3<i32>(params.input.xyz));
    let i = (u32(o.w + q.x) * params.input.y + u32(q.y)) * params.input.z + u32(q.z);
    return Place(select(0u, i * params.input.w, inside), inside);
}
