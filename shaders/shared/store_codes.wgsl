// Four codes to `y`, which the kernel declares as array<i32>. Needs shared/codes.wgsl.
override Y_FORM: u32 = 0u;

fn store4(i: u32, v: vec4<i32>) {
    if Y_FORM != WORDS {
        y[i] = bitcast<i32>(pack4xI8(v));
        return;
    }
    y[4u * i] = v.x;
    y[4u * i + 1u] = v.y;
    y[4u * i + 2u] = v.z;
    y[4u * i + 3u] = v.w;
}
