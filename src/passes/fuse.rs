//! Fusion: batch normalisation is folded into the weights before it; a convolution or matrix product, an addition and
//! a clamp behind it are one group, whose inner tensors keep the accumulator's precision.
//!
//! *Folding*: W' = W * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta.

use super::PassError;
use crate::graph::{AttrValue, Graph, Node, NodeId, QuantRule, ValueId};
use crate::tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// Why nodes that could be one group are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Something else takes the tensor between them, too.
    Shared,
    /// The tensor between them is an output of the graph.
    GraphOutput,
    /// The kinds would fit, but not in this order.
    Order,
    /// Types or parameters do not fit: shapes that broadcast, parameters that are not constant.
    Type,
}

impl Reason {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Shared => "the tensor between them is used elsewhere, too",
            Reason::GraphOutput => "the tensor between them is an output of the graph",
            Reason::Order => "they are not in the order product, normalisation, addition, clamp",
            Reason::Type => "shapes or parameters do not fit",
        }
    }
}

/// Nodes that are computed as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// In order; the first is a convolution, a matrix product or another operator with an integer form.
    pub nodes: Vec<NodeId>,
    /// What the last one produces.
    pub output: ValueId,
}

/// A group that is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfused {
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Why not.
    pub reason: Reason,
}

/// The groups of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// In the order of their last nodes; a node of no group with others is not listed.
    pub groups: Vec<Group>,
    /// What could have been more.
    pub unfused: Vec<Unfused>,
}

impl Groups {
    /// Tensors inside groups, which get no quantizer.
    pub fn inner(&self, graph: &Graph) -> HashSet<ValueId> {
        let ids: HashSet<NodeId> =
            self.groups.iter().flat_map(|g| &g.nodes[..g.nodes.len() - 1]).copied().collect();
        let nodes = graph.nodes().iter().filter(|n| ids.contains(&n.id));
        nodes.filter_map(|n| n.outputs.first().copied()).collect()
    }

    /// The node whose rule speaks for the output of each group: its first.
    pub fn anchors(&self, graph: &Graph) -> HashMap<ValueId, usize> {
        let index: HashMap<NodeId, usize> =
            graph.nodes().iter().enumerate().map(|(i, n)| (n.id, i)).collect();
        self.groups.iter().map(|g| (g.output, index[&g.nodes[0]])).collect()
    }
}

fn is_gemm(node: &Node) -> bool {
    matches!(node.op.quant_rule(), QuantRule::Gemm { .. })
}

fn is_clamp(node: &Node) -> bool {
    matches!(node.op.quant_rule(), QuantRule::Clamp { .. })
}

fn named(node: &Node, name: &str) -> bool {
    node.op.def().name == name
}

/// Folds every batch normalisation that follows a product with constant weights.
///
/// # Errors
/// A graph that does not verify afterwards.
pub fn fold_batch_norm(mut graph: Graph) -> Result<Graph, PassError> {
    let mut at = 0;
    while at < graph.nodes().len() {
        if named(&graph.nodes()[at], "BatchNormalization")
            && let Some(folded) = Folding::of(&graph, at)
        {
            folded.apply(&mut graph, at);
        } else {
            at += 1;
        }
    }
    Ok(graph.tidied()?)
}

/// A batch normalisation that can be folded, with the product before it.
struct Folding {
    gemm: usize,
    weights: Tensor,
    bias: Tensor,
}

impl Folding {
    #[allow(clippy::cast_possible_truncation, reason = "computed in f64 and rounded once")]
    fn of(graph: &Graph, at: usize) -> Option<Folding> {
        let norm = &graph.nodes()[at];
        let constant = |v: &ValueId| graph.value(*v).constant.as_ref()?.as_f32();
        let x = norm.inputs[0];
        let gemm = *graph.producers().get(&x)?;
        let node = &graph.nodes()[gemm];
        let users = graph.users();
        if !is_gemm(node) || users[&x].len() != 1 || graph.outputs.contains(&x) {
            return None;
        }
        // A matrix product of more than two axes puts its channels on another axis than the normalisation.
        if named(node, "MatMul") || graph.value(x).ty.rank() < 2 {
            return None;
        }
        let weights = graph.value(node.inputs[1]).constant.as_ref()?;
        let axis = channel_axis(node, weights.rank())?;
        let [scale, shift, mean, var] = [1, 2, 3, 4].map(|i| norm.inputs.get(i).and_then(constant));
        let (scale, shift, mean, var) = (scale?, shift?, mean?, var?);
        let channels = graph.value(x).ty.shape[1].fixed()?;
        if weights.shape()[axis] != channels || [scale, shift, mean, var].iter().any(|v| v.len() != channels)
        {
            return None;
        }
        let attrs = norm.op.attrs();
        let epsilon = attrs.0.iter().find(|(k, _)| k == "epsilon");
        let Some((_, AttrValue::Float(epsilon))) = epsilon else { return None };
        let bias = match node.inputs.get(2) {
            Some(b) => Some(constant(b).filter(|b| b.len() == channels)?),
            None => None,
        };
        let factor = |c: usize| f64::from(scale[c]) / (f64::from(var[c]) + f64::from(*epsilon)).sqrt();
        let inner: usize = weights.shape()[axis + 1..].iter().product();
        let w = weights.as_f32()?.iter().enumerate();
        let w = w.map(|(i, w)| (f64::from(*w) * factor(i / inner % channels)) as f32).collect();
        let b = (0..channels).map(|c| {
            let b = bias.map_or(0.0, |b| f64::from(b[c]));
            ((b - f64::from(mean[c])) * factor(c) + f64::from(shift[c])) as f32
        });
        let bias = Tensor::from_f32([channels], b.collect());
        Some(Folding { gemm, weights: Tensor::from_f32(weights.shape(), w), bias })
    }

    fn apply(self, graph: &mut Graph, at: usize) {
        let node = &graph.nodes()[self.gemm];
        let (old, name) = (node.inputs.clone(), node.name.clone());
        let weights = graph.value(old[1]).name.clone();
        let w = graph.new_constant(&format!("{weights}.folded"), self.weights);
        let b = graph.new_constant(&format!("{name}.bias.folded"), self.bias);
        graph.set_inputs(self.gemm, vec![old[0], w, b]);
        let output = graph.nodes()[at].outputs[0];
        graph.remove_node(at);
        graph.set_output(self.gemm, output);
    }
}

/// The axis of constant weights along which output channels lie.
pub(crate) fn channel_axis(node: &Node, rank: usize) -> Option<usize> {
    node.op.quant_rule().channel_axis(rank)
}

/// The groups of a graph.
pub fn groups(graph: &Graph) -> Groups {
    let users = graph.users();
    let mut out = Groups::default();
    let mut claimed: HashSet<usize> = HashSet::new();
    // Products first, and from the back, so that of two products that are added the later one takes the addition.
    let all = graph.nodes().iter().enumerate().rev();
    let products = all.clone().filter(|(_, n)| is_gemm(n));
    let others = all.filter(|(_, n)| matches!(n.op.quant_rule(), QuantRule::Compute | QuantRule::Mean));
    for (first, node) in products.chain(others) {
        if claimed.contains(&first) {
            continue;
        }
        let mut members = vec![first];
        let mut added = false;
        while let Some(v) = graph.nodes()[*members.last().expect("one at least")].outputs.first() {
            let takers: &[usize] = users.get(v).map_or(&[], Vec::as_slice);
            let fits = |i: usize| -> Option<bool> {
                let next = &graph.nodes()[i];
                if is_clamp(next) || (is_gemm(node) && named(next, "BatchNormalization")) {
                    return Some(is_clamp(next));
                }
                let free = is_gemm(node) && named(next, "Add") && !claimed.contains(&i);
                let bias = free && members.len() == 1 && node.inputs.len() == 2 && is_bias(graph, next, *v);
                (bias || (free && !added)).then(|| bias || is_addend(graph, next, *v))
            };
            let candidates: Vec<(usize, bool)> =
                takers.iter().filter_map(|i| Some((*i, fits(*i)?))).collect();
            let Some((next, legal)) = candidates.first().copied() else { break };
            let reason = if graph.outputs.contains(v) {
                Some(Reason::GraphOutput)
            } else if takers.len() > 1 {
                Some(Reason::Shared)
            } else if !legal {
                Some(Reason::Type)
            } else {
                None
            };
            let id = |i: &usize| graph.nodes()[*i].id;
            if let Some(reason) = reason {
                let nodes = members.iter().chain(std::iter::once(&next)).map(id).collect();
                out.unfused.push(Unfused { nodes, reason });
                break;
            }
            added |= !is_bias(graph, &graph.nodes()[next], *v);
            members.push(next);
            claimed.insert(next);
            if is_clamp(&graph.nodes()[next]) {
                out.unfused.extend(late(graph, &users, &members));
                break;
            }
        }
        if members.len() > 1 {
            let output = graph.nodes()[*members.last().expect("two at least")].outputs[0];
            let nodes = members.iter().map(|i| graph.nodes()[*i].id).collect();
            out.groups.push(Group { nodes, output });
        }
    }
    let place: HashMap<NodeId, usize> = graph.nodes().iter().enumerate().map(|(i, n)| (n.id, i)).collect();
    out.groups.sort_by_key(|g| g.nodes.last().map(|id| place[id]));
    out.unfused.sort_by_key(|u| u.nodes.first().map(|id| place[id]));
    out
}

/// Whether an addition adds a constant to each channel of the last axis: the bias of a matrix product.
pub(super) fn is_bias(graph: &Graph, add: &Node, v: ValueId) -> bool {
    let ty = &graph.value(v).ty;
    let other = add.inputs.iter().find(|i| **i != v).map(|i| graph.value(*i));
    named(add, "Add")
        && other.is_some_and(|o| {
            o.constant.is_some() && o.ty.shape.len() == 1 && o.ty.shape.last() == ty.shape.last()
        })
}

/// Whether an addition can be part of the group that produces `v`: both operands have its shape, none is constant.
fn is_addend(graph: &Graph, add: &Node, v: ValueId) -> bool {
    let ty = &graph.value(v).ty;
    let other = add.inputs.iter().filter(|i| **i != v);
    let mut other = other.map(|i| graph.value(*i));
    add.inputs[0] != add.inputs[1]
        && ty.dtype == DType::F32
        && other.all(|o| o.ty == *ty && o.constant.is_none())
}

/// A normalisation behind the clamp of a group.
fn late(graph: &Graph, users: &HashMap<ValueId, Vec<usize>>, members: &[usize]) -> Option<Unfused> {
    let v = graph.nodes()[*members.last()?].outputs.first()?;
    if !is_gemm(&graph.nodes()[members[0]]) {
        return None;
    }
    let next = users.get(v)?.iter().find(|i| named(&graph.nodes()[**i], "BatchNormalization"))?;
    let nodes = members.iter().chain(std::iter::once(next)).map(|i| graph.nodes()[*i].id).collect();
    Some(Unfused { nodes, reason: Reason::Order })
}
