// Parameters of shared/resample.wgsl for numbers.
struct Params {
    n: u32,
    rank: u32,
    fill: f32,
    pad0: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
    slots: array<vec4<u32>, 2>,
    tables: vec4<u32>,
    taps: vec4<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
