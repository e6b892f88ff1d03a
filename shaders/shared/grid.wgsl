// A flat index over workgroups that the host folds into y where x would pass its limit (graph::lower::flat_grid).
override WG: u32 = 64u;

fn flat_index(gid: vec3<u32>, groups: vec3<u32>) -> u32 {
    return gid.x + gid.y * groups.x * WG;
}
