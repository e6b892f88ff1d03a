// Long rows: only the elements that top_k_cutoff.wgsl has found to be among the k best are ranked.
@group(0) @binding(4) var<storage, read> cutoff: array<vec2<u32>>;

fn candidate(row: u32, mine: u32, j: u32) -> bool {
    let c = cutoff[row];
    return mine > c.x || (mine == c.x && j <= c.y);
}
