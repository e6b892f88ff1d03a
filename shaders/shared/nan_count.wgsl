// Counts of the NaN that quantizers were given, one counter a quantizer of the plan. Needs shared/bits.wgsl.
// In group 1, so that it is bound once for all dispatches, whatever else a kernel binds.
@group(1) @binding(0) var<storage, read_write> nan_counts: array<atomic<u32>>;

fn count_nan(x: vec4<f32>, used: vec4<bool>, slot: u32) {
    let found = is_nan(x) & used;
    if any(found) {
        let ones = select(vec4<u32>(0u), vec4<u32>(1u), found);
        atomicAdd(&nan_counts[slot], ones.x + ones.y + ones.z + ones.w);
    }
}
