// p: 1, and in the last of a chain the number of operands.
fn f(a: A, b: B, p: f32) -> Y {
    return (a + b) / p;
}
