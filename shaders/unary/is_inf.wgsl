// a, b: whether positive, negative infinities count.
fn f(x: X, a: f32, b: f32) -> Y {
    let wanted = select(vec4<bool>(a != 0.0), vec4<bool>(b != 0.0), is_negative(x));
    return vec4<u32>(is_inf(x) & wanted);
}
