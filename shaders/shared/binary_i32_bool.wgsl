// Element types of a binary kernel: i32 and i32 to bool (0 or 1).
alias A = vec4<i32>;
alias B = vec4<i32>;
alias Y = vec4<u32>;

fn less(a: A, b: A) -> vec4<bool> {
    return a < b;
}

fn equal(a: A, b: A) -> vec4<bool> {
    return a == b;
}
