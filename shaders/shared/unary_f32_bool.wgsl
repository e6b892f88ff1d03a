// Element types of a unary kernel: f32 to bool (0 or 1).
alias X = vec4<f32>;
alias Y = vec4<u32>;

fn keep_nan(x: X, y: Y) -> Y {
    return y;
}
