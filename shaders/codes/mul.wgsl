// The exact product of steps, requantized once.
fn combined(p: vec4<i32>, q: vec4<i32>) -> vec4<i32> {
    let none = vec4<u32>();
    let m = vec4<u32>(abs(p)) * vec4<u32>(abs(q));
    return finished(Wide(m, none, none, none, (p ^ q) < vec4<i32>(0)), 0u, vec4<i32>());
}
