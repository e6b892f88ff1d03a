// What products are summed in: f32.
alias E = f32;
alias V = vec4<f32>;
alias Sum = vec4<f32>;

fn mul_add(a: V, b: V, s: Sum) -> Sum {
    return fma(a, b, s);
}
