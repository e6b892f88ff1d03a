// The nearest integer, halves to even, from operations that are exact everywhere; keeps the sign of zero.
fn round_even(x: vec4<f32>) -> vec4<f32> {
    let down = floor(x);
    let rest = x - down;
    let odd = floor(down * 0.5) * 2.0 != down;
    let up = (rest > vec4<f32>(0.5)) | ((rest == vec4<f32>(0.5)) & odd);
    return with_sign(select(down, down + 1.0, up), x);
}
