fn f(x: X, a: f32, b: f32) -> Y {
    let m = abs(x);
    let z = m * m;
    var p = z * 2.8174395e-6 + 0.00019836066;
    p = p * z + 0.0083333505;
    p = p * z + 0.16666667;
    let near = m + m * z * p;
    // Half the argument first: e^m overflows before sinh does.
    let h = exp_f32(0.5 * m);
    let far = (0.5 * h) * h - 0.5 / (h * h);
    return with_sign(select(far, near, m < X(1.0)), x);
}
