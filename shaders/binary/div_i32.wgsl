// Toward zero; 0 where b is 0.
fn f(a: A, b: B, p: f32) -> Y {
    let zero = b == B();
    return select(a / select(b, B(1), zero), Y(), zero);
}
