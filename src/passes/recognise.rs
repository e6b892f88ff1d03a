//! Operators that exporters take apart are put together again, so that they are calibrated as one: layer
//! normalisation and Gelu. The result differs from the parts by rounding only. Attention stays apart, as a product, a
//! softmax and a product; the tensors inside it are found here.

use super::PassError;
use crate::graph::{Attrs, Graph, Node, QuantRule, ValueId};
use crate::ops;
use std::collections::{HashMap, HashSet};

/// Puts together what is recognised.
///
/// # Errors
/// A graph that does not verify afterwards.
pub fn recognise(mut graph: Graph) -> Result<Graph, PassError> {
    for pattern in [gelu, layer_norm] {
        let matcher = Matcher::new(&graph);
        let nodes = graph.nodes().iter().enumerate();
        let found: Vec<(usize, Found)> =
            nodes.filter_map(|(at, node)| Some((at, pattern(&matcher, node)?))).collect();
        for (at, found) in found {
            found.apply(&mut graph, at)?;
        }
        graph = graph.tidied()?;
    }
    Ok(graph)
}

/// What the node at which a pattern ends is replaced by.
struct Found {
    op: &'static str,
    attrs: Attrs,
    inputs: Vec<ValueId>,
}

impl Found {
    fn apply(self, graph: &mut Graph, at: usize) -> Result<(), PassError> {
        let label = graph.nodes()[at].label();
        let types: Vec<_> = self.inputs.iter().map(|v| graph.value(*v).ty.clone()).collect();
        let op = ops::build(self.op, self.attrs, &types);
        let op = op.map_err(|error| PassError::Op { node: label, error })?;
        graph.set_op(at, op);
        graph.set_inputs(at, self.inputs);
        Ok(())
    }
}

/// Softmax over scores that a product of two runtime tensors makes, before another such product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Index of the softmax.
    pub softmax: usize,
    /// From what the first product makes to what the softmax takes: scores, scaled and masked.
    pub scores: Vec<ValueId>,
    /// What the softmax gives.
    pub probabilities: ValueId,
}

/// Every attention of a graph.
pub fn attention(graph: &Graph) -> Vec<Attention> {
    let m = Matcher::new(graph);
    let runtime = |v: &ValueId| graph.value(*v).constant.is_none();
    let is_product = |n: &Node| n.op.def().name == "MatMul" && n.inputs.iter().all(runtime);
    let moves = |n: &Node| matches!(n.op.quant_rule(), QuantRule::Codes);
    let scores = |from: ValueId| -> Option<Vec<ValueId>> {
        let (mut seen, mut open) = (vec![from], vec![from]);
        let mut found = false;
        while let Some(v) = open.pop() {
            let Some(node) = m.producers.get(&v).map(|i| &graph.nodes()[*i]) else { continue };
            let scales = ["Add", "Sub", "Mul", "Div", "Where"].contains(&node.op.def().name);
            if is_product(node) {
                found = true;
            } else if scales || moves(node) {
                let whole = |i: &&ValueId| graph.value(**i).ty.elements() == graph.value(from).ty.elements();
                let inputs = node.inputs.iter().filter(|i| runtime(i)).filter(whole);
                let new: Vec<ValueId> = inputs.filter(|i| !seen.contains(i)).copied().collect();
                seen.extend(&new);
                open.extend(new);
            }
        }
        // Masks that are computed are no scores.
        seen.retain(|v| behind_product(&m, *v, &is_product));
        found.then_some(seen)
    };
    let feeds = |from: ValueId| {
        let mut open = vec![from];
        while let Some(v) = open.pop() {
            for i in m.users.get(&v).into_iter().flatten() {
                let node = &graph.nodes()[*i];
                if is_product(node) {
                    return true;
                }
                if moves(node) {
                    open.extend(&node.outputs);
                }
            }
        }
        false
    };
    let nodes = graph.nodes().iter().enumerate().filter(|(_, n)| n.op.def().name == "Softmax");
    let found = nodes.filter_map(|(softmax, n)| {
        let scores = scores(n.inputs[0])?;
        feeds(n.outputs[0]).then(|| Attention { softmax, scores, probabilities: n.outputs[0] })
    });
    found.collect()
}

/// Whether a product is among what makes a value of the same size.
fn behind_product(m: &Matcher, v: ValueId, is_product: &impl Fn(&Node) -> bool) -> bool {
    let (mut seen, mut open) = (HashSet::from([v]), vec![v]);
    while let Some(at) = open.pop() {
        let Some(node) = m.producers.get(&at).map(|i| &m.graph.nodes()[*i]) else { continue };
        if is_product(node) {
            return true;
        }
        let same = |i: &&ValueId| m.graph.value(**i).ty.elements() == m.graph.value(v).ty.elements();
        open.extend(node.inputs.iter().filter(same).filter(|i| seen.insert(**i)));
    }
    false
}

struct Matcher<'a> {
    graph: &'a Graph,
    producers: HashMap<ValueId, usize>,
    users: HashMap<ValueId, Vec<usize>>,
}

impl<'a> Matcher<'a> {
    fn new(graph: &'a Graph) -> Matcher<'a> {
        Matcher { graph, producers: graph.producers(), users: graph.users() }
    }

    /// The node of an operator that produces a value, which only `times` inputs of nodes take and which is no output.
    fn inner(&self, v: ValueId, op: &str, times: usize) -> Option<&'a Node> {
        let node = &self.graph.nodes()[*self.producers.get(&v)?];
        let private = self.users.get(&v).map_or(0, Vec::len) == times && !self.graph.outputs.contains(&v);
        (node.op.def().name == op && private).then_some(node)
    }

    /// The number that a constant of one element holds.
    fn number(&self, v: ValueId) -> Option<f32> {
        match self.graph.value(v).constant.as_ref()?.as_f32()? {
            [x] => Some(*x),
            _ => None,
        }
    }

    /// The operand beside a constant number, and that number.
    fn with_number(&self, node: &Node) -> Option<(ValueId, f32)> {
        let [a, b] = *node.inputs.as_slice() else { return None };
        self.number(b).map(|n| (a, n)).or_else(|| self.number(a).map(|n| (b, n)))
    }
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-4 * b.abs()
}

/// x / sqrt 2 (or x * sqrt 1/2), through erf.
fn erf_of(m: &Matcher, v: ValueId) -> Option<ValueId> {
    let one = m.inner(v, "Add", 1)?;
    let (e, 1.0) = m.with_number(one)? else { return None };
    let scaled = m.inner(e, "Erf", 1)?.inputs[0];
    let node = m.inner(scaled, "Div", 1).or_else(|| m.inner(scaled, "Mul", 1))?;
    let (x, n) = m.with_number(node)?;
    let divides = node.op.def().name == "Div";
    let wanted = if divides { std::f32::consts::SQRT_2 } else { std::f32::consts::FRAC_1_SQRT_2 };
    (near(n, wanted) && (!divides || node.inputs[0] == x)).then_some(x)
}

/// x / 2 * (1 + erf(x / sqrt 2)), its three factors in any order.
fn gelu(m: &Matcher, last: &Node) -> Option<Found> {
    if last.op.def().name != "Mul" {
        return None;
    }
    let found =
        |x: ValueId| Found { op: "Gelu", attrs: Attrs::new().str("approximate", "none"), inputs: vec![x] };
    if let Some((v, 0.5)) = m.with_number(last) {
        // (x * (1 + erf)) * 0.5
        let product = m.inner(v, "Mul", 1)?;
        let [a, b] = *product.inputs.as_slice() else { return None };
        return [(a, b), (b, a)].into_iter().find(|(x, e)| erf_of(m, *e) == Some(*x)).map(|(x, _)| found(x));
    }
    let [a, b] = *last.inputs.as_slice() else { return None };
    for (half, e) in [(a, b), (b, a)] {
        // (x * 0.5) * (1 + erf), or x * ((1 + erf) * 0.5)
        if let Some(x) = erf_of(m, e)
            && let Some(product) = m.inner(half, "Mul", 1)
            && m.with_number(product) == Some((x, 0.5))
        {
            return Some(found(x));
        }
        if let Some(product) = m.inner(e, "Mul", 1)
            && let Some((inner, 0.5)) = m.with_number(product)
            && erf_of(m, inner) == Some(half)
        {
            return Some(found(half));
        }
    }
    None
}

/// The axis of a mean over the last axis that keeps it.
fn is_last_mean(m: &Matcher, node: &Node) -> bool {
    let rank = m.graph.value(node.inputs[0]).ty.rank();
    let (input, output) = (&m.graph.value(node.inputs[0]).ty, &m.graph.value(node.outputs[0]).ty);
    output.rank() == rank
        && rank > 0
        && output.shape[..rank - 1] == input.shape[..rank - 1]
        && output.shape[rank - 1].fixed() == Some(1)
        && input.shape[rank - 1].fixed().is_some_and(|d| d > 1)
}

/// (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gamma + beta over the last axis.
fn layer_norm(m: &Matcher, last: &Node) -> Option<Found> {
    if last.op.def().name != "Add" {
        return None;
    }
    let [a, b] = *last.inputs.as_slice() else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(scaled, beta)| {
        let scale = m.inner(scaled, "Mul", 1)?;
        let [c, d] = *scale.inputs.as_slice() else { return None };
        [(c, d), (d, c)].into_iter().find_map(|(normal, gamma)| {
            let (x, epsilon) = normalized(m, normal)?;
            let width = m.graph.value(x).ty.shape.last()?.fixed()?;
            let vector = |v: ValueId| {
                let t = m.graph.value(v).constant.as_ref();
                t.is_some_and(|t| t.shape() == [width] && t.as_f32().is_some())
            };
            let attrs = Attrs::new().int("axis", -1).float("epsilon", epsilon);
            (vector(gamma) && vector(beta)).then(|| Found {
                op: "LayerNormalization",
                attrs,
                inputs: vec![x, gamma, beta],
            })
        })
    })
}

fn normalized(m: &Matcher, v: ValueId) -> Option<(ValueId, f32)> {
    let quotient = m.inner(v, "Div", 1)?;
    let (centred, root) = (quotient.inputs[0], *quotient.inputs.get(1)?);
    let sum = m.inner(m.inner(root, "Sqrt", 1)?.inputs[0], "Add", 1)?;
    let (variance, epsilon) = m.with_number(sum)?;
    let mean = m.inner(variance, "ReduceMean", 1).filter(|n| is_last_mean(m, n))?;
    let squares = m.graph.nodes().get(*m.producers.get(&mean.inputs[0])?)?;
    let times = match squares.op.def().name {
        "Pow" if m.number(squares.inputs[1]) == Some(2.0) && squares.inputs[0] == centred => 2,
        "Mul" if squares.inputs == [centred, centred] => 3,
        _ => return None,
    };
    m.inner(mean.inputs[0], squares.op.def().name, 1)?;
    let difference = m.inner(centred, "Sub", times)?;
    let x = difference.inputs[0];
    let mean = m.inner(*difference.inputs.get(1)?, "ReduceMean", 1)?;
    (mean.inputs[0] == x && is_last_mean(m, mean)).then_some((x, epsilon))
}
