//! Tensors of points that pictures are sampled at.

use crate::graph::{AttrValue, Graph, Node, ValueId};
use std::collections::HashMap;

/// The tensors on the ways to the points of `GridSample`, through operators that pass codes through; and the number beyond
/// which every point is outside its picture, or at its border, where that is known and nothing else takes them.
/// `passes` says which nodes pass codes through, `float` which run in f32.
#[allow(clippy::cast_precision_loss, reason = "pictures are at most 2^24 pixels long")]
pub(super) fn grids(
    graph: &Graph,
    passes: impl Fn(usize) -> bool,
    float: impl Fn(usize) -> bool,
) -> HashMap<ValueId, Option<f32>> {
    let (producers, users) = (graph.producers(), graph.users());
    let mut out: HashMap<ValueId, Option<f32>> = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        if node.op.def().name != "GridSample" || float(i) {
            continue;
        }
        let (mut v, mut bound, mut taker) = (node.inputs[1], bound(graph, node), i);
        loop {
            if graph.outputs.contains(&v) || users.get(&v).is_some_and(|all| *all != [taker]) {
                bound = None;
            }
            out.insert(v, bound);
            match producers.get(&v) {
                Some(p) if passes(*p) => (v, taker) = (graph.nodes()[*p].inputs[0], *p),
                _ => break,
            }
        }
    }
    out
}

/// One pixel beyond the end of the shorter axis of the picture: 1 + 2 / size, or where the ends are the centres of pixels
/// 1 + 2 / (size - 1). Mirrored pictures have no end.
#[allow(clippy::cast_precision_loss, reason = "pictures are at most 2^24 pixels long")]
fn bound(graph: &Graph, node: &Node) -> Option<f32> {
    let attrs = node.op.attrs();
    let is = |name: &str, value: &AttrValue| attrs.0.iter().any(|(k, v)| k == name && v == value);
    if is("padding_mode", &AttrValue::Str("reflection".to_owned())) {
        return None;
    }
    let picture = &graph.value(node.inputs[0]).ty.shape;
    let size = picture[2].fixed()?.min(picture[3].fixed()?);
    let size = if is("align_corners", &AttrValue::Int(1)) { size.saturating_sub(1) } else { size };
    Some(1.0 + 2.0 / size.max(1) as f32)
}
