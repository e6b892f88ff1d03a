// The remainder of a division toward zero (p is 1), or downward (p is 0); 0 where b is 0.
fn f(a: A, b: B, p: f32) -> Y {
    let zero = b == B();
    let r = a % select(b, B(1), zero);
    // Of the sign of a; p == 0 asks for the sign of b.
    let wrong = vec4<bool>(p == 0.0) & (r != A()) & ((r < A()) != (b < B()));
    return select(select(r, r + b, wrong), Y(), zero);
}
