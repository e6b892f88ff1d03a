// Four codes of `x`, which the kernel declares as array<vec4<i32>>. Needs shared/codes.wgsl.
override X_FORM: u32 = 0u;

fn load4(i: u32) -> vec4<i32> {
    if X_FORM == WORDS {
        return x[i];
    }
    return unpacked(bitcast<u32>(x[i >> 2u][i & 3u]), X_FORM);
}
