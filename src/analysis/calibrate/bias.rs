//! Scales of weights that leave room for the bias.
//!
//! A bias is added to sums in units of s_x * s_w. Where all weights of a channel are almost zero, as those of dead channels
//! are, a scale that is made for them is so small that the bias is beyond 32 bits in its units, and the channel would lose
//! it. Such a channel gets a larger scale: what its weights lose is far below a step of the bias.

use crate::graph::{Graph, Node, NodeId, QuantRule, ValueId};
use crate::ops::fake_quant;
use crate::passes::fuse::channel_axis;
use crate::quant::{Origin, QParams, Quantizer, power_of_two};
use std::collections::HashMap;

/// What a bias may come to in units of the sums: half of what 32 bits hold, the other half is left to the products.
const MOST: f64 = (1u64 << 30) as f64;

/// Raises the scales of weights that were observed until the bias fits; the quantizers that changed.
pub(super) fn make_room(graph: &mut Graph) -> Vec<(NodeId, Quantizer)> {
    let (producers, users) = (graph.producers(), graph.users());
    let mut changed: HashMap<usize, Quantizer> = HashMap::new();
    for node in graph.nodes() {
        let QuantRule::Gemm { .. } = node.op.quant_rule() else { continue };
        let Some(s_x) = scale_of(graph, &producers, node.inputs[0]) else { continue };
        let Some(bias) = bias(graph, &users, node) else { continue };
        let Some(at) = producers.get(&node.inputs[1]).copied() else { continue };
        let Some(q) = graph.nodes()[at].quantizer().filter(|q| q.origin == Origin::Observed) else {
            continue;
        };
        let q = changed.get(&at).unwrap_or(q);
        let rank = graph.value(node.inputs[1]).ty.rank();
        let Some(params) =
            q.params.as_ref().filter(|p| p.axis().is_none() || p.axis() == channel_axis(node, rank))
        else {
            continue;
        };
        if let Some(params) = raised(params, &bias, s_x, q.spec.power_of_two) {
            changed.insert(at, Quantizer { params: Some(params), ..q.clone() });
        }
    }
    let mut out: Vec<_> = changed.into_iter().collect();
    out.sort_by_key(|(at, _)| *at);
    out.into_iter()
        .map(|(at, q)| {
            graph.set_op(at, fake_quant(q.clone()));
            (graph.nodes()[at].id, q)
        })
        .collect()
}

/// The scale of the codes that a value is, perhaps moved or clamped.
fn scale_of(graph: &Graph, producers: &HashMap<ValueId, usize>, mut v: ValueId) -> Option<f64> {
    loop {
        let node = &graph.nodes()[*producers.get(&v)?];
        match node.op.quant_rule() {
            QuantRule::Quantizer(q) => {
                return match q.params.as_ref()?.scales() {
                    [s] => Some(f64::from(*s)),
                    _ => None,
                };
            }
            QuantRule::Codes | QuantRule::Clamp { .. } => v = *node.inputs.first()?,
            _ => return None,
        }
    }
}

/// The numbers that are added to a product's channels: its own, or those of the addition that follows it.
fn bias(graph: &Graph, users: &HashMap<ValueId, Vec<usize>>, node: &Node) -> Option<Vec<f32>> {
    let constant =
        |v: ValueId| graph.value(v).constant.as_ref().and_then(|t| t.as_f32().map(<[f32]>::to_vec));
    if let Some(b) = node.inputs.get(2) {
        return constant(*b);
    }
    let y = node.outputs[0];
    let [next] = users.get(&y)?[..] else { return None };
    let add = &graph.nodes()[next];
    let other = *add.inputs.iter().find(|v| **v != y)?;
    let fits = add.op.def().name == "Add" && graph.value(other).ty.rank() == 1;
    constant(other).filter(|_| fits)
}

/// Scales under which the bias fits; `None` where it does already.
fn raised(params: &QParams, bias: &[f32], s_x: f64, powers: bool) -> Option<QParams> {
    let scales = params.scales();
    let least = |c: usize| {
        // More channels than scales are those of groups that share them.
        let of_channel = bias.iter().enumerate().filter(|(i, _)| bias.len() == 1 || *i % scales.len() == c);
        let b = of_channel.fold(0f64, |m, (_, b)| m.max(f64::from(b.abs())));
        #[allow(clippy::cast_possible_truncation, reason = "the next one up is not below")]
        let scale = (b / (s_x * MOST)) as f32;
        if powers { power_of_two(scale.next_up()) } else { scale.next_up() }
    };
    let enough: Vec<f32> = scales.iter().enumerate().map(|(c, s)| s.max(least(c))).collect();
    if enough == scales {
        return None;
    }
    let zeros = params.zero_points().to_vec();
    let new = QParams::new(params.dtype(), params.narrow(), enough, zeros, params.axis()).ok()?;
    Some(new.rounded(params.rounding).divided(params.division))
}
