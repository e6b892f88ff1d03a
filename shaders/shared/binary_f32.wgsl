// Element types of a binary kernel: f32 and f32 to f32.
alias A = vec4<f32>;
alias B = vec4<f32>;
alias Y = vec4<f32>;

// NaN is less than nothing; the order of bits, because drivers may flush denormals.
fn less(a: A, b: A) -> vec4<bool> {
    return (order_key(a) < order_key(b)) & !is_nan(a) & !is_nan(b);
}

fn equal(a: A, b: A) -> vec4<bool> {
    return (order_key(a) == order_key(b)) & !is_nan(a) & !is_nan(b);
}

// y, or NaN where a or b is.
fn keep_nan(a: A, b: B, y: Y) -> Y {
    return select(y, not_a_number(), is_nan(a) | is_nan(b));
}
