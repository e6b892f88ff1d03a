//! Values whose statistics follow from those of others: a `Concat` of channels has the planes of its inputs, in order.

use crate::exec::Frames;
use crate::graph::attrs::AttrValue;
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::Dim;
use std::collections::HashMap;

/// For each of these values the values, as indices into the list, whose frames one behind the other are its frames;
/// `None` for one that has to be looked at. Those that are named have to be.
pub(super) fn joins(graph: &Graph, values: &[ValueId], separable: bool) -> Vec<Option<Vec<usize>>> {
    let index: HashMap<ValueId, usize> = values.iter().enumerate().map(|(i, v)| (*v, i)).collect();
    let mut out: Vec<Option<Vec<usize>>> = vec![None; values.len()];
    for node in graph.nodes().iter().filter(|n| joins_channels(graph, n, separable)) {
        let Some(i) = index.get(&node.outputs[0]) else { continue };
        let parts = node.inputs.iter().map(|v| {
            let part = *index.get(v)?;
            Some(out[part].clone().unwrap_or_else(|| vec![part]))
        });
        out[*i] = parts.collect::<Option<Vec<_>>>().map(|p| p.concat());
    }
    out
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
