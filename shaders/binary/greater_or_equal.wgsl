fn f(a: A, b: B, p: f32) -> Y {
    return Y(less(b, a) | equal(a, b));
}
