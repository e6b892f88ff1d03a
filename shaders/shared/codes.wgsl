// How codes lie in memory (View::form): a word each, or four to a word, the first in its lowest byte, without a sign or
// with one.
const WORDS: u32 = 0u;
const UNSIGNED: u32 = 1u;
const SIGNED: u32 = 2u;

fn unpacked(word: u32, form: u32) -> vec4<i32> {
    if form == UNSIGNED {
        return vec4<i32>(unpack4xU8(word));
    }
    return unpack4xI8(word);
}

// Code number i of four, where codes are packed.
fn code_in(word: u32, i: u32, form: u32) -> i32 {
    let above = word << (24u - 8u * i);
    if form == UNSIGNED {
        return i32(above >> 24u);
    }
    return bitcast<i32>(above) >> 24u;
}
