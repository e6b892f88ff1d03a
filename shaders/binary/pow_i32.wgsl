// Wraps. A negative exponent gives 0 but for bases of 1 and -1.
fn f(a: A, b: B, p: f32) -> Y {
    var y = Y(1);
    var square = a;
    var rest = vec4<u32>(max(b, B()));
    for (var i = 0u; i < 31u; i++) {
        y = select(y, y * square, (rest & vec4<u32>(1u)) != vec4<u32>(0u));
        square *= square;
        rest >>= vec4<u32>(1u);
    }
    let odd = (b & B(1)) != B();
    let unit = (a == A(1)) | (a == A(-1));
    let inverse = select(Y(), select(Y(1), a, odd), unit);
    return select(y, inverse, b < B());
}
