// Matrix products of codes, each multiplied by itself: elements of a and b. Needs shared/product_finish.wgsl. The zero points of
// b are 0.
@group(0) @binding(1) var<storage, read> a: array<i32>;
@group(0) @binding(2) var<storage, read> b: array<i32>;

alias A = i32;
alias B = vec4<i32>;

fn a_at(i: u32) -> A {
    return a[i] - params.finish.x_zero;
}

fn b_at(at: vec4<u32>) -> B {
    return B(b[at.x], b[at.y], b[at.z], b[at.w]);
}

fn add_product(v: A, w: B, s: Sum) -> Sum {
    return mul_add(V(v), w, s);
}
