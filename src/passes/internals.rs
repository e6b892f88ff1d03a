//! The tensors inside composite operators: softmax, layer normalisation and quotients have integer forms of several
//! steps, with numbers between them that have quantizers of their own. They stand beside the operator, as a computation
//! on its inputs and outputs, named after it; a run computes them only where they are asked for. What an operator has
//! inside is said by [`crate::graph::Op::internals`].
//!
//! A quotient by a constant is a product, and Gelu one table: neither has anything inside.

use super::PassError;
use crate::graph::{Graph, NodeId, Part, QuantRule, Tap, ValueId};
use crate::ops::fake_quant;
use crate::quant::{Origin, QParams, QuantError, Quantizer, Role, Scheme, Spec, State};
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// A float graph with the insides of all its composite operators computed beside them, and the values to observe. Ids of
/// values stay.
///
/// # Errors
/// An operator that refuses what it is made of.
pub fn exposed(graph: &Graph) -> Result<(Graph, Vec<ValueId>), PassError> {
    let mut out = graph.clone();
    let owned = owners(graph);
    let mut watched = Vec::new();
    for id in layers(graph).filter(|id| !owned.contains(id)) {
        let i = index(&out, id);
        watched.extend(compute(&mut out, i)?.into_iter().map(|(_, v)| v));
    }
    watched.retain(|v| out.value(*v).constant.is_none());
    watched.sort_unstable();
    watched.dedup();
    out.verify()?;
    Ok((out, watched))
}

/// An operator, or a few that belong together, with quantizers inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composite {
    /// `attention`, or the operator in small letters.
    pub kind: String,
    /// The node; of attention its softmax.
    pub node: NodeId,
    /// Names of the tensors inside that have quantizers.
    pub internals: Vec<String>,
}

/// What [`declare`] did.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Each quantizer of a runtime tensor, with the name under which [`exposed`] has it.
    pub(super) observed: HashMap<NodeId, String>,
    pub(super) composites: Vec<Composite>,
}

/// Puts quantizers on what composite operators among these nodes have inside.
///
/// # Errors
/// As [`exposed`].
pub(super) fn declare(
    graph: &mut Graph,
    nodes: &HashSet<NodeId>,
    observer: &str,
    power_of_two: bool,
) -> Result<Declared, PassError> {
    let owned = owners(graph);
    let mut out = Declared::default();
    let all: Vec<NodeId> = layers(graph).filter(|id| nodes.contains(id) && !owned.contains(id)).collect();
    for owner in all {
        let i = index(graph, owner);
        let node = graph.nodes()[i].name.clone();
        let kind = graph.nodes()[i].op.def().name.to_lowercase();
        let mut internals = Vec::new();
        for (tap, v) in compute(graph, i)? {
            let constant = graph.value(v).constant.is_some();
            let name = format!("{node}/{}", tap.name);
            let label = graph.fresh_node(&format!("{name}/quantizer"));
            let mut q = quantizer(&tap, constant, observer, power_of_two)
                .map_err(|error| PassError::Quant { node: label.clone(), error })?;
            q.spec.owner = Some(owner.0);
            let quantized = graph.fresh_value(&format!("{name}/quantized"));
            // Behind what computes the tensor, and not before the operator.
            let at = graph.producers().get(&v).map_or(i, |p| i.max(*p)) + 1;
            graph
                .insert_node(at, &label, fake_quant(q), &[v], &[quantized])
                .map_err(|error| PassError::Op { node: label, error })?;
            if !constant {
                out.observed.insert(graph.nodes()[at].id, graph.value(v).name.clone());
            }
            internals.push(graph.value(v).name.clone());
        }
        if !internals.is_empty() {
            out.composites.push(Composite { kind, node: owner, internals });
        }
    }
    Ok(out)
}

/// Puts quantizers on the constant parameters of composite operators among these nodes - the scale and the bias of a layer
/// normalisation - which their integer forms take as codes: inputs that are taps, of the type that the tap says.
///
/// # Errors
/// As [`exposed`].
pub(super) fn quantize_parameters(
    graph: &mut Graph,
    nodes: &HashSet<NodeId>,
    power_of_two: bool,
) -> Result<(), PassError> {
    let owned = owners(graph);
    let all: Vec<NodeId> = layers(graph).filter(|id| nodes.contains(id) && !owned.contains(id)).collect();
    for id in all {
        let first = index(graph, id);
        let node = graph.nodes()[first].clone();
        let types: Vec<_> = node.inputs.iter().map(|v| graph.value(*v).ty.clone()).collect();
        let internals =
            node.op.internals(&types).map_err(|error| PassError::Op { node: node.label(), error })?;
        let (mut at, mut inputs) = (first, node.inputs.clone());
        for tap in internals.taps {
            let Part::Input(input) = tap.of else { continue };
            let v = inputs[input];
            if graph.value(v).constant.is_none() {
                continue;
            }
            let name = format!("{}/{}", node.name, tap.name);
            let label = graph.fresh_node(&format!("{name}/quantizer"));
            let q = quantizer(&tap, true, "minmax", power_of_two)
                .map_err(|error| PassError::Quant { node: label.clone(), error })?;
            let out = graph.fresh_value(&format!("{name}/quantized"));
            let made = graph
                .insert_node(at, &label, fake_quant(q), &[v], &[out])
                .map_err(|error| PassError::Op { node: label, error })?;
            (at, inputs[input]) = (at + 1, made[0]);
        }
        if at > first {
            graph.set_inputs(at, inputs);
        }
    }
    Ok(())
}

/// Nodes that an output needs, so that those inside composite operators are none.
fn layers(graph: &Graph) -> impl Iterator<Item = NodeId> {
    let needed = graph.needed_nodes(graph.outputs.iter().copied());
    graph.nodes().iter().enumerate().filter(move |(i, _)| needed.contains(i)).map(|(_, n)| n.id)
}

fn index(graph: &Graph, id: NodeId) -> usize {
    graph.nodes().iter().position(|n| n.id == id).expect("a node of the graph")
}

/// Nodes whose insides have quantizers.
fn owners(graph: &Graph) -> HashSet<NodeId> {
    graph.nodes().iter().filter_map(|n| n.quantizer()?.spec.owner).map(NodeId).collect()
}

/// Nodes that take codes, directly or through operators on codes: those of a graph that has its quantizers.
pub(super) fn on_codes(graph: &Graph) -> HashSet<NodeId> {
    let mut codes: HashSet<ValueId> = HashSet::new();
    let mut out = HashSet::new();
    for node in graph.nodes() {
        let rule = node.op.quant_rule();
        let takes = node.inputs.first().is_some_and(|v| codes.contains(v));
        if takes && !rule.is_float() {
            out.insert(node.id);
        }
        let passes = takes && matches!(rule, QuantRule::Codes | QuantRule::Clamp { .. });
        if passes || matches!(rule, QuantRule::Quantizer(_)) {
            codes.extend(&node.outputs);
        }
    }
    out
}

/// Adds what a node computes inside, right behind it. What depends on constants alone is left out.
fn compute(graph: &mut Graph, index: usize) -> Result<Vec<(Tap, ValueId)>, PassError> {
    let node = &graph.nodes()[index];
    let (name, label, inputs) = (node.name.clone(), node.label(), node.inputs.clone());
    let results = node.outputs.clone();
    let op_error = |error| PassError::Op { node: label.clone(), error };
    let types: Vec<_> = inputs.iter().map(|v| graph.value(*v).ty.clone()).collect();
    let internals = node.op.internals(&types).map_err(op_error)?;
    let producers = graph.producers();
    let behind_quantizer = |v: &ValueId| {
        let node = producers.get(v).map(|i| &graph.nodes()[*i]).filter(|n| n.quantizer().is_some());
        node.map_or(*v, |n| n.inputs[0])
    };
    let quantized: Vec<bool> = inputs.iter().map(|v| behind_quantizer(v) != *v).collect();
    let constant: Vec<bool> =
        inputs.iter().map(|v| graph.value(behind_quantizer(v)).constant.is_some()).collect();
    let mut made: Vec<Option<Vec<ValueId>>> = Vec::new();
    let mut at = index + 1;
    for (k, (op, parts)) in internals.steps.into_iter().enumerate() {
        let runtime = |part: &Part| match part {
            Part::Input(i) => !constant[*i],
            Part::Output(_) => constant.contains(&false),
            Part::Step(s, _) => made[*s].is_some(),
            Part::Constant(_) => false,
        };
        if !parts.iter().any(runtime) {
            made.push(None);
            continue;
        }
        let mut takes = Vec::new();
        for part in parts {
            match part {
                Part::Input(i) => takes.push(inputs[i]),
                Part::Output(o) => takes.push(results[o]),
                Part::Step(s, o) => takes.extend(made[s].as_ref().map(|v| v[o])),
                Part::Constant(t) => takes.push(graph.new_constant(&format!("{name}/constant"), t)),
            }
        }
        let of_step = |part: &Part| matches!(part, Part::Step(s, _) if *s == k);
        let takes_types: Vec<_> = takes.iter().map(|v| graph.value(*v).ty.clone()).collect();
        let outputs = op.infer(&takes_types).map_err(op_error)?.len();
        let mut names: Vec<String> = Vec::new();
        for o in 0..outputs {
            let tap =
                internals.taps.iter().find(|t| of_step(&t.of) && matches!(t.of, Part::Step(_, i) if i == o));
            let own =
                tap.map_or_else(|| format!("{}{o}", op.def().name.to_lowercase()), |t| t.name.to_owned());
            names.push(graph.fresh_value(&format!("{name}/{own}")));
        }
        let node = graph.fresh_node(&format!("{name}/{}", op.def().name));
        made.push(Some(graph.insert_node(at, &node, op, &takes, &names).map_err(op_error)?));
        at += 1;
    }
    let of = |part: &Part| match part {
        // What has a quantizer needs no other.
        Part::Input(i) => (!quantized[*i]).then_some(inputs[*i]),
        Part::Step(s, o) => made[*s].as_ref().map(|v| v[*o]),
        Part::Output(_) | Part::Constant(_) => None,
    };
    Ok(internals.taps.iter().filter_map(|t| Some((t.clone(), of(&t.of)?))).collect())
}

fn quantizer(tap: &Tap, constant: bool, observer: &str, power_of_two: bool) -> Result<Quantizer, QuantError> {
    let mut spec = Spec::new(tap.dtype, Role::Tap, if constant { "minmax" } else { observer });
    spec.power_of_two = power_of_two;
    if constant {
        spec.scheme = Scheme::SymmetricNarrow;
    }
    let Some(bound) = tap.bound else { return Ok(Quantizer::new(spec)) };
    spec.observer = "fixed".to_owned();
    let mut q = Quantizer::with_params(spec, bounded(tap.dtype, bound)?, Origin::Fixed);
    q.state = State::Calibration;
    Ok(q)
}

/// Parameters for numbers from 0 to a bound: the bound itself is one step beyond the codes, so that a power of two gives
/// a power of two.
pub(super) fn bounded(dtype: DType, bound: f32) -> Result<QParams, QuantError> {
    let steps = dtype.limits().map_or(1.0, |(_, high)| high as f32 + 1.0);
    QParams::per_tensor(dtype, bound / steps, 0)
}
