// The element of an axis of d that an index means: negative ones count from the end, those outside are clamped.
fn element_of(index: i32, d: u32) -> u32 {
    let from_front = select(index, index + i32(d), index < 0);
    return u32(clamp(from_front, 0, i32(d) - 1));
}
