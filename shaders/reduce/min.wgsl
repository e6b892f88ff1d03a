fn enter(v: T) -> T {
    return v;
}

fn join(a: T, b: T) -> T {
    return min(a, b);
}

fn leave(a: T) -> T {
    return a;
}
