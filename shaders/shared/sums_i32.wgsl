// What products of codes are summed in: 32 bits, which hold every sum (CodeParams::bound).
alias E = i32;
alias V = vec4<i32>;
alias Sum = vec4<i32>;

fn mul_add(a: V, b: V, s: Sum) -> Sum {
    return s + a * b;
}

fn whole(s: Sum, bias: V) -> Wide {
    return wide(s + bias);
}
