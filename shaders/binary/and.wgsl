fn f(a: A, b: B, p: f32) -> Y {
    return a & b;
}
