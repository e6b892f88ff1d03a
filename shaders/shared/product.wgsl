// Batches of matrix products: what their kernels share. Strides are in elements.

// First elements of a and b in product z.
fn batch_start(z: u32) -> vec2<u32> {
    let z2 = z / params.batch.w;
    let z1 = z2 / params.batch.z;
    let at = vec4<u32>(z1 / params.batch.y, z1 % params.batch.y, z2 % params.batch.z, z % params.batch.w);
    let i = at * params.a_batch;
    let j = at * params.b_batch;
    return vec2<u32>(i.x + i.y + i.z + i.w, j.x + j.y + j.z + j.w);
}

// Stores columns j to j + 3 of row i, as many as there are.
fn put(z: u32, i: u32, j: u32, v: V) {
    let first = (z * params.m + i) * params.n + j;
    y[first] = v.x;
    if j + 1u < params.n {
        y[first + 1u] = v.y;
    }
    if j + 2u < params.n {
        y[first + 2u] = v.z;
    }
    if j + 3u < params.n {
        y[first + 3u] = v.w;
    }
}
