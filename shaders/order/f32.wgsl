// Order of f32 words as integers: -0 equals 0, and NaN stands above infinity.
fn key(word: u32) -> i32 {
    if (word & 0x7fffffffu) > 0x7f800000u {
        return 0x7fffffff;
    }
    if word == 0x80000000u {
        return 0;
    }
    return i32(select(word, word ^ 0x7fffffffu, (word >> 31u) == 1u));
}
