// Keeps the padding lanes of a channels-last tensor at zero: lane l of group i holds channel 4 * (i % c4) + l.
fn mask_lanes(v: vec4<f32>, i: u32, c: u32, c4: u32) -> vec4<f32> {
    if c == 0u {
        return v;
    }
    let lane = vec4<u32>(0u, 1u, 2u, 3u) + 4u * (i % c4);
    return select(vec4<f32>(0.0), v, lane < vec4<u32>(c));
}

// Which lanes of group i hold channels; all of them where the layout has no padding (c is 0).
fn lanes_in_use(i: u32, c: u32, c4: u32) -> vec4<bool> {
    let lane = vec4<u32>(0u, 1u, 2u, 3u) + 4u * (i % max(c4, 1u));
    return (lane < vec4<u32>(c)) | vec4<bool>(c == 0u);
}
