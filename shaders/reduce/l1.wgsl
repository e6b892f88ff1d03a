fn enter(v: T) -> T {
    return abs(v);
}

fn join(a: T, b: T) -> T {
    return a + b;
}

fn leave(a: T) -> T {
    return a;
}
