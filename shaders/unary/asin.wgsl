fn f(x: X, a: f32, b: f32) -> Y {
    let m = abs(x);
    let far = 1.5707964 - 2.0 * asin_near_0(sqrt(max(0.5 - 0.5 * m, X())));
    let y = with_sign(select(asin_near_0(m), far, m > X(0.5)), x);
    return select(y, not_a_number(), m > X(1.0));
}
