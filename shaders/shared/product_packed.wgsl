// Matrix products of packed codes, four of which along k are multiplied at a time: words of a and b, which k and the steps
// count. Needs shared/codes.wgsl and shared/product_finish.wgsl. The zero points of b are 0, and what that of a adds is part of
// the bias (fold.wgsl).
override X_FORM: u32 = 2u;

@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;

alias A = u32;
alias B = vec4<u32>;

// Codes with a sign: those that have none less 128. Padding meets zeros of b.
fn a_at(i: u32) -> A {
    if X_FORM == UNSIGNED {
        return a[i] ^ 0x80808080u;
    }
    return a[i];
}

fn b_at(at: vec4<u32>) -> B {
    return B(b[at.x], b[at.y], b[at.z], b[at.w]);
}

fn add_product(v: A, w: B, s: Sum) -> Sum {
    return s + vec4<i32>(
        dot4I8Packed(v, w.x),
        dot4I8Packed(v, w.y),
        dot4I8Packed(v, w.z),
        dot4I8Packed(v, w.w),
    );
}
