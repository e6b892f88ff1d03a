fn enter(v: T) -> T {
    return v * v;
}

fn join(a: T, b: T) -> T {
    return a + b;
}

fn leave(a: T) -> T {
    return sqrt(a);
}
