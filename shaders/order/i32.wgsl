// Order of i32 words.
fn key(word: u32) -> i32 {
    return i32(word);
}
