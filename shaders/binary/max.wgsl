fn f(a: A, b: B, p: f32) -> Y {
    return keep_nan(a, b, select(b, a, less(b, a)));
}
