// Element types of a unary kernel: bool (0 or 1) to bool.
alias X = vec4<u32>;
alias Y = vec4<u32>;

fn keep_nan(x: X, y: Y) -> Y {
    return y;
}
