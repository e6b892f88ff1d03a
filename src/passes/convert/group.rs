//! What follows an operator and becomes part of its integer form.

use super::for_codes;
use crate::graph::{Graph, NodeId, QuantRule, ValueId};
use crate::quant::QParams;
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// A quantizer at the end of a chain.
#[derive(Clone, Debug)]
pub(in crate::passes) struct End {
    /// The tensor that it quantizes.
    pub tensor: ValueId,
    /// What it gives.
    pub value: ValueId,
    /// Its parameters.
    pub params: QParams,
    /// The clamp before it.
    pub clamp: Option<(f32, f32)>,
    /// The clamp, where there is one, and the quantizer.
    pub nodes: Vec<usize>,
}

/// An operator with what is computed together with it.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The operator.
    pub first: usize,
    /// Where it can be computed: its last node.
    pub last: usize,
    /// All nodes but the first.
    pub members: Vec<usize>,
    /// A constant that is added to each channel.
    pub bias: Option<ValueId>,
    /// A tensor that has codes, which is added.
    pub addend: Option<ValueId>,
    /// What it gives where no quantizer ends it.
    pub output: ValueId,
    /// The quantizer at its end.
    pub end: Option<End>,
}

/// The quantizers of a tensor, or of what a clamp makes of it, where nothing else takes it.
pub(in crate::passes) fn ends(graph: &Graph, users: &HashMap<ValueId, Vec<usize>>, v: ValueId) -> Vec<End> {
    let none: &[usize] = &[];
    let takers = |v: ValueId| users.get(&v).map_or(none, Vec::as_slice);
    let quantizers = |tensor: ValueId, clamp: Option<(f32, f32)>, before: &[usize]| -> Option<Vec<End>> {
        let all = takers(tensor);
        if all.is_empty() || graph.outputs.contains(&tensor) {
            return None;
        }
        all.iter()
            .map(|i| {
                let node = &graph.nodes()[*i];
                let params = node.quantizer()?.params.clone().filter(|p| p.scales().len() == 1)?;
                let nodes = before.iter().copied().chain([*i]).collect();
                Some(End { tensor, value: node.outputs[0], params, clamp, nodes })
            })
            .collect()
    };
    if let Some(all) = quantizers(v, None, &[]) {
        return all;
    }
    if let [i] = *takers(v)
        && !graph.outputs.contains(&v)
        && let QuantRule::Clamp { low, high } = graph.nodes()[i].op.quant_rule()
    {
        return quantizers(graph.nodes()[i].outputs[0], Some((low, high)), &[i]).unwrap_or_default();
    }
    Vec::new()
}

/// The chains that begin with node `i`, one for each quantizer at the end; one that gives numbers where there is none.
pub(super) fn chain(
    graph: &Graph,
    users: &HashMap<ValueId, Vec<usize>>,
    i: usize,
    coded: &dyn Fn(&ValueId) -> Option<QParams>,
    preserve: &HashSet<NodeId>,
) -> Vec<Chain> {
    let node = &graph.nodes()[i];
    let mut chain = Chain {
        first: i,
        last: i,
        members: Vec::new(),
        bias: None,
        addend: None,
        output: node.outputs[0],
        end: None,
    };
    let with = |chain: &Chain, ends: Vec<End>| -> Vec<Chain> {
        ends.into_iter()
            .map(|end| {
                let mut c = chain.clone();
                c.last = c.last.max(*end.nodes.iter().max().unwrap_or(&i));
                c.members.extend(&end.nodes);
                c.end = Some(end);
                c
            })
            .collect()
    };
    let found = ends(graph, users, chain.output);
    match node.op.quant_rule() {
        QuantRule::Mean if found.is_empty() => return vec![chain],
        QuantRule::Gemm { .. } if found.is_empty() => {}
        _ => return with(&chain, found),
    }
    // Additions behind a product: of a constant for each channel, of a tensor of its shape.
    let mut plain = chain.clone();
    while let [next] = *users.get(&chain.output).map_or(&[][..], Vec::as_slice) {
        let add = &graph.nodes()[next];
        if add.op.def().name != "Add" || graph.outputs.contains(&chain.output) || preserve.contains(&add.id) {
            break;
        }
        let Some(other) = add.inputs.iter().find(|v| **v != chain.output) else { break };
        let (value, ty) = (graph.value(*other), &graph.value(chain.output).ty);
        let is_bias = value.constant.is_some()
            && value.ty.dtype == DType::F32
            && value.ty.rank() == 1
            && value.ty.shape.last() == ty.shape.last();
        let first = chain.bias.is_none() && chain.addend.is_none();
        let last_axis = ["MatMul", "Gemm"].contains(&node.op.def().name);
        if is_bias && first && last_axis && node.inputs.len() == 2 {
            chain.bias = Some(*other);
        } else if chain.addend.is_none() && value.ty == *ty && addend(graph, *other, coded, preserve) {
            chain.addend = Some(*other);
        } else {
            break;
        }
        chain.members.push(next);
        chain.last = chain.last.max(next);
        chain.output = add.outputs[0];
        if chain.addend.is_none() {
            plain = chain.clone();
        }
        let found = ends(graph, users, chain.output);
        if !found.is_empty() {
            return with(&chain, found);
        }
    }
    // Without a quantizer only a bias is part of it.
    vec![plain]
}

/// Whether a tensor has codes of one scale, or will have them.
fn addend(
    graph: &Graph,
    v: ValueId,
    coded: &dyn Fn(&ValueId) -> Option<QParams>,
    preserve: &HashSet<NodeId>,
) -> bool {
    graph.value(v).constant.is_none()
        && future_codes(graph, v, coded, preserve).is_some_and(|p| p.scales().len() == 1)
}

/// The parameters of a tensor that has codes, or will have them once its quantizer is reached and what passes them on.
fn future_codes(
    graph: &Graph,
    v: ValueId,
    coded: &dyn Fn(&ValueId) -> Option<QParams>,
    preserve: &HashSet<NodeId>,
) -> Option<QParams> {
    if let Some(p) = coded(&v) {
        return Some(p);
    }
    let producer = graph.nodes().iter().find(|n| n.outputs.contains(&v))?;
    match producer.op.quant_rule() {
        QuantRule::Quantizer(q) => q.params.clone(),
        QuantRule::Codes if !preserve.contains(&producer.id) => {
            let params = future_codes(graph, producer.inputs[0], coded, preserve)?;
            let mut types: Vec<_> = producer.inputs.iter().map(|v| graph.value(*v).ty.clone()).collect();
            types[0].dtype = params.dtype();
            for_codes(producer, &params, &types).map(|_| params)
        }
        _ => None,
    }
}
