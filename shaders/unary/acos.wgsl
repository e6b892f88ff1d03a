fn f(x: X, a: f32, b: f32) -> Y {
    let m = abs(x);
    let far = 2.0 * asin_near_0(sqrt(max(0.5 - 0.5 * m, X())));
    let near = 1.5707964 - with_sign(asin_near_0(m), x);
    let y = select(near, select(far, 3.1415927 - far, x < X()), m > X(0.5));
    return select(y, not_a_number(), m > X(1.0));
}
