// erf to 1.5e-7: x + x p(x^2) below 1, above it 1 - e^q(x), where q is a fit of log(erfc) good to 1.3e-8 of 1.
fn erf_f32(x: vec4<f32>) -> vec4<f32> {
    let a = min(abs(x), vec4<f32>(4.0));
    let z = a * a;
    var p = z * 7.889123e-5 - 0.0008020842;
    p = p * z + 0.0051895357;
    p = p * z - 0.026854444;
    p = p * z + 0.112836;
    p = p * z - 0.37612626;
    p = p * z + 0.12837917;
    let near = a + a * p;
    var q = 0.0004413351 - a * 2.1686750e-5;
    q = q * a - 0.0042045554;
    q = q * a + 0.025208239;
    q = q * a - 0.10841855;
    q = q * a - 0.6332199;
    q = q * a - 1.1295784;
    q = q * a + 0.00018803633;
    let far = 1.0 - exp_f32(q);
    return with_sign(select(far, near, a < vec4<f32>(1.0)), x);
}
