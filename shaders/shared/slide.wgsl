// Convolution: output pixel p meets under tap k the input pixel p * stride + k * dilation - pad.

// Where tap 0 of output pixel p lies in its image, and first plane of the image.
fn origin(p: u32) -> vec4<i32> {
    let q = min(p, params.pixels - 1u);
    let row = q / params.output.z;
    let plane = row / params.output.y;
    let o = vec3<u32>(plane % params.output.x, row % params.output.y, q % params.output.z);
    let n = plane / params.output.x;
    return vec4<i32>(vec3<i32>(o * params.stride.xyz) - vec3<i32>(params.pad.xyz), i32(n * params.input.x));
}

fn place(o: vec4<i32>, k: vec3<i32>) -> Place {
    let q = o.xyz + k;
    let inside = all(q >= vec3<i32>(0)) && all(q < vec3<i32>(params.input.xyz));
    let i = (u32(o.w + q.x) * params.input.y + u32(q.y)) * params.input.z + u32(q.z);
    return Place(select(0u, i * params.input.w, inside), inside);
}
