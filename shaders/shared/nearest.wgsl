// An integer as the nearest float, ties to even: integers of up to 24 bits are exact in any conversion, longer ones are
// rounded to 24 bits before it.
fn nearest_float(v: i32) -> f32 {
    let negative = v < 0;
    let m = select(u32(v), 0u - u32(v), negative);
    var rounded = m;
    if m >= 0x1000000u {
        let cut = 8u - countLeadingZeros(m);
        let half = 1u << (cut - 1u);
        let rest = m & ((1u << cut) - 1u);
        var kept = m >> cut;
        if rest > half || (rest == half && (kept & 1u) == 1u) {
            kept += 1u;
        }
        rounded = kept << cut;
    }
    return select(f32(rounded), -f32(rounded), negative);
}
