fn enter(v: T) -> T {
    return v;
}

fn join(a: T, b: T) -> T {
    return a + b;
}

fn leave(a: T) -> T {
    return a / T(params.rows.len);
}
