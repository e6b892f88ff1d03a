// Element types of a unary kernel: f32 to f32, where a NaN stays a NaN whatever f makes of it.
alias X = vec4<f32>;
alias Y = vec4<f32>;

fn keep_nan(x: X, y: Y) -> Y {
    return select(y, x, is_nan(x));
}
