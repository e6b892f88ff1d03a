// Groups of four f32.
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn load4(i: u32) -> vec4<f32> {
    return x[i];
}

fn store4(i: u32, v: vec4<f32>) {
    y[i] = v;
}
