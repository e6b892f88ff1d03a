//! What a graph lacks that others made: quantizers before nodes that give codes, and those inside composite operators.

use super::refused;
use crate::graph::{Graph, QuantRule};
use crate::ops::fake_quant;
use crate::passes::{PassError, from_qdq, internals};
use crate::quant::Role;

/// With the insides of composite operators declared where that was not done, as in models that come with their quantizers:
/// bounded ones have fixed scales.
pub(in crate::passes) fn with_taps(graph: &Graph) -> Result<Graph, PassError> {
    let all = graph.nodes().iter().filter(|n| n.op.has_integer_form()).map(|n| n.id).collect();
    let mut graph = graph.clone();
    internals::declare(&mut graph, &all, "minmax", false)?;
    Ok(graph)
}

/// With a quantizer before each node that gives codes: it changes no number, and ends what comes before it.
pub(super) fn with_quantizers(mut graph: Graph) -> Result<Graph, PassError> {
    let mut i = 0;
    while i < graph.nodes().len() {
        let node = graph.nodes()[i].clone();
        let x = node.inputs.first().copied();
        let quantizes = matches!(node.op.quant_rule(), QuantRule::Quantize(_));
        let params = from_qdq::constant_params(&graph, i).filter(|p| quantizes && p.scales().len() == 1);
        if let (Some(x), Some(params)) = (x.filter(|x| graph.value(*x).constant.is_none()), params) {
            let (name, value) =
                (graph.fresh_node(&node.name), graph.fresh_value(&graph.value(node.outputs[0]).name));
            let op = fake_quant(from_qdq::quantizer(params, Role::Output));
            let made = graph.insert_node(i, &name, op, &[x], &[value]).map_err(|e| refused(&node, e))?;
            i += 1;
            graph.replace_input(i, x, made[0]);
        }
        i += 1;
    }
    Ok(graph)
}
