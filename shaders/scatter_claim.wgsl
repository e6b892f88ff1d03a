// owner[slice of u] = max over the updates u of that slice of u + 1; 0 stays where there is none.
// indices: i32. owner: u32, one a slice of the data, zero before. One invocation handles one update.
@group(0) @binding(2) var<storage, read_write> owner: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let u = flat_index(gid, groups);
    if u >= params.updates {
        return;
    }
    atomicMax(&owner[slice_of(u)], u + 1u);
}
