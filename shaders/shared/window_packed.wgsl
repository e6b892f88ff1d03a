// Convolutions of packed codes, four of which are multiplied at a time: elements of x and w. Needs
// shared/window_finish.wgsl. The zero points of weights are 0, and what that of x adds is part of the bias (fold.wgsl).
override X_FORM: u32 = 2u;

@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;

// Codes with a sign: those that have none less 128. Outside lies the zero point. Padding lanes of x meet weights of 0.
fn load(p: Place, c: u32) -> u32 {
    let outside = (bitcast<u32>(params.finish.x_zero) & 0xffu) * 0x01010101u;
    let codes = select(outside, x[p.i + c], p.inside);
    if X_FORM == UNSIGNED {
        return codes ^ 0x80808080u;
    }
    return codes;
}
