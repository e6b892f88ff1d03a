// The exact product of steps, requantized once; in f32 the zero point is added before codes are rounded.
fn combined(p: vec4<i32>, q: vec4<i32>) -> vec4<i32> {
    let none = vec4<u32>();
    let m = vec4<u32>(abs(p)) * vec4<u32>(abs(q));
    let x = Wide(m, none, none, none, (p ^ q) < vec4<i32>(0));
    if MODE == FLOAT {
        let y = float_product(x, factor(0u).m);
        let zero = whole_float(params.finish.y_zero);
        return nearest_code(float_sum(Wide(y.significand, none, none, none, x.negative), y.exponent, zero));
    }
    return finished(x, factor(0u), vec4<i32>());
}
