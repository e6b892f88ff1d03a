// Groups of four codes, for shared/load_codes.wgsl and shared/store_codes.wgsl.
@group(0) @binding(1) var<storage, read> x: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read_write> y: array<i32>;
