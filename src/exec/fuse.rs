//! Which nodes can run as the epilogue of the node before them.

use crate::graph::{Epilogue, Graph, ValueId};
use std::collections::{BTreeSet, HashMap};

/// A node by index, and what it does to each element.
pub(super) type Tail = (usize, Epilogue);

/// For each node, the nodes that only change the elements of its one result, one behind the other, where nobody else
/// wants what lies between: no other of the `needed` nodes, and none of `kept`.
pub(super) fn tails(
    graph: &Graph,
    needed: impl Fn(usize) -> bool,
    kept: &BTreeSet<ValueId>,
) -> Vec<Vec<Tail>> {
    let mut users: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| needed(*i)) {
        node.inputs.iter().for_each(|v| users.entry(*v).or_default().push(i));
    }
    let after = |i: usize| -> Option<Tail> {
        let [v] = *graph.nodes()[i].outputs.as_slice() else { return None };
        let [user] = *users.get(&v)?.as_slice() else { return None };
        let epilogue = Epilogue::of(&*graph.nodes()[user].op)?;
        (!kept.contains(&v)).then_some((user, epilogue))
    };
    (0..graph.nodes().len())
        .map(|i| std::iter::successors(after(i), |(tail, _)| after(*tail)).collect())
        .collect()
}
