// Convolutions of codes, each multiplied by itself: elements of x and w. Needs shared/window_finish.wgsl. The zero points of
// weights are 0.
override X_FORM: u32 = 0u;
override W_FORM: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<i32>>;

// Padding lanes of x meet weights of 0.
fn load(p: Place, c: u32) -> V {
    let i = p.i + c;
    if X_FORM == WORDS {
        return select(V(), x[i] - params.finish.x_zero, p.inside);
    }
    return select(V(), unpacked(bitcast<u32>(x[i >> 2u][i & 3u]), X_FORM) - params.finish.x_zero, p.inside);
}

fn lane(p: Place, channel: u32) -> E {
    let i = p.i + channel / 4u;
    if X_FORM == WORDS {
        return select(E(), x[i][channel & 3u] - params.finish.x_zero, p.inside);
    }
    let code = code_in(bitcast<u32>(x[i >> 2u][i & 3u]), channel & 3u, X_FORM);
    return select(E(), code - params.finish.x_zero, p.inside);
}

fn weight(i: u32) -> V {
    if W_FORM == WORDS {
        return w[i];
    }
    return unpacked(bitcast<u32>(w[i >> 2u][i & 3u]), W_FORM);
}
