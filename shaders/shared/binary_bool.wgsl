// Element types of a binary kernel: bool (0 or 1) and bool to bool.
alias A = vec4<u32>;
alias B = vec4<u32>;
alias Y = vec4<u32>;

fn less(a: A, b: A) -> vec4<bool> {
    return a < b;
}

fn equal(a: A, b: A) -> vec4<bool> {
    return a == b;
}
