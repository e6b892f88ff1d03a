// Which lanes of group i are elements: groups are rows of c elements, each padded to 4 * c4 lanes. A row is a pixel of a
// channels-last tensor, or all of a linear one.
fn lanes_in_use(i: u32, c: u32, c4: u32) -> vec4<bool> {
    let lane = vec4<u32>(0u, 1u, 2u, 3u) + 4u * (i % c4);
    return lane < vec4<u32>(c);
}
