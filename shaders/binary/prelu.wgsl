fn f(a: A, b: B, p: f32) -> Y {
    return select(a, a * b, a < A());
}
