//! Values whose statistics follow from those of others: a `Concat` of channels has the planes of its inputs, in order.

use crate::exec::Frames;
use crate::graph::attrs::AttrValue;
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::Dim;
use std::collections::{HashMap, HashSet};

/// For each of these values the values, as indices into the list, whose frames one behind the other are its frames;
/// none for one that has to be looked at. Those that are named have to be.
pub(super) fn joins(graph: &Graph, values: &[ValueId], separable: bool) -> Vec<Vec<usize>> {
    let index: HashMap<ValueId, usize> = values.iter().enumerate().map(|(i, v)| (*v, i)).collect();
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); values.len()];
    for node in graph.nodes().iter().filter(|n| joins_channels(graph, n, separable)) {
        let Some(i) = index.get(&node.outputs[0]) else { continue };
        let parts = node.inputs.iter().map(|v| {
            let part = *index.get(v)?;
            Some(if out[part].is_empty() { vec![part] } else { out[part].clone() })
        });
        out[*i] = parts.collect::<Option<Vec<_>>>().unwrap_or_default().concat();
    }
    out
}

/// Leaves of these joins those with parts that no other names, nor the same one twice: a device keeps the statistics of a
/// value's runs at one place.
pub(super) fn once(joins: &mut [Vec<usize>]) {
    let mut taken = HashSet::new();
    for parts in joins {
        let own: HashSet<usize> = parts.iter().copied().collect();
        if own.len() < parts.len() || !own.is_disjoint(&taken) {
            parts.clear();
        } else {
            taken.extend(own);
        }
    }
}

/// Whether a node puts the channels of whole frames one behind the other.
fn joins_channels(graph: &Graph, node: &Node, separable: bool) -> bool {
    let on_channels = node.op.def().name == "Concat"
        && node.op.attrs().0.iter().any(|(name, v)| name == "axis" && *v == AttrValue::Int(1));
    let whole = |v: &ValueId| {
        let ty = &graph.value(*v).ty;
        // Of two axes both are one plane, which the inputs would share.
        let frames = Frames::of(ty, 1, separable).filter(|_| ty.rank() >= 3);
        frames.is_some_and(|f| match f.axis {
            Some(axis) => axis == 0 && ty.shape[0] == Dim::Batch(1),
            None => ty.shape[0] == Dim::Fixed(1),
        })
    };
    on_channels && node.inputs.iter().chain(&node.outputs).all(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::text::parse;
    use std::collections::BTreeMap;

    #[test]
    fn only_whole_planes_of_watched_values_join() {
        let text = "graph \"g\" float
input v0 \"x\" f32[N,2,5]
input v1 \"y\" f32[N,2,5]
input v5 \"f\" f32[N,10]
%0 \"channels\" Concat(v0, v1) {axis = 1} -> v2 \"c\" f32[N,4,5]
%1 \"again\" Concat(v2, v0) {axis = 1} -> v3 \"a\" f32[N,6,5]
%2 \"rows\" Concat(v0, v1) {axis = 2} -> v4 \"r\" f32[N,2,10]
%3 \"pairs\" Concat(v5, v5) {axis = 1} -> v6 \"p\" f32[N,20]
output v3
output v4
output v6
";
        let graph = parse(text, crate::ops::by_name, &BTreeMap::default()).unwrap_or_else(|e| panic!("{e}"));
        let of =
            |values: &[u32]| joins(&graph, &values.iter().map(|v| ValueId(*v)).collect::<Vec<_>>(), true);
        let mut want = vec![vec![]; 7];
        (want[2], want[3]) = (vec![0, 1], vec![0, 1, 0]);
        assert_eq!(of(&[0, 1, 2, 3, 4, 5, 6]), want);
        // In any order of the list; what joins a value that nobody watches is looked at.
        assert_eq!(of(&[3, 1, 0, 2]), [vec![2, 1, 2], vec![], vec![], vec![2, 1]]);
        assert_eq!(of(&[3, 1, 0]), [const { Vec::<usize>::new() }; 3]);
        assert_eq!(of(&[3, 2, 0]), [vec![1, 2], vec![], vec![]]);
        let mut all = of(&[0, 1, 2, 3, 4]);
        once(&mut all);
        assert_eq!(all, [vec![], vec![], vec![0, 1], vec![], vec![]]);
    }
}
