//! Codes that come from floats, which may differ between devices: what is compared behind them starts from equal ones.

use super::tensors::layers;
use crate::error::Error;
use crate::exec::ExecError;
use crate::graph::{Graph, ValueId};

/// Tensors of codes that come from floats which the graph computes.
pub(super) fn behind_islands(graph: &Graph) -> Vec<ValueId> {
    let from_inputs = |v: &ValueId| graph.inputs.contains(v);
    let quantizes = graph.nodes().iter().filter(|n| n.op.def().name == "Quantize");
    quantizes.filter(|n| !from_inputs(&n.inputs[0])).map(|n| n.outputs[0]).collect()
}

/// A graph that computes these codes once more, under names of their own.
pub(super) fn with_own(mut graph: Graph, values: &[ValueId]) -> Result<(Graph, Vec<String>), Error> {
    let mut own = Vec::new();
    for v in values {
        let Some(node) = graph.nodes().iter().find(|n| n.outputs.contains(v)).cloned() else { continue };
        let name = graph.fresh_value(&format!("{}/own", graph.value(*v).name));
        let twin = graph.fresh_node(&format!("{}/own", node.name));
        let made = graph.add_node(twin, None, node.op.clone(), &node.inputs, std::slice::from_ref(&name));
        let inputs = String::new();
        made.map_err(|error| ExecError::Op { node: node.label(), inputs, error })?;
        own.push(name);
    }
    Ok((graph, own))
}

/// A graph that takes these values, with everything that is compared: what lies before a value is kept for its own sake.
pub(super) fn cut_at(mut graph: Graph, values: &[ValueId]) -> Result<Graph, Error> {
    if values.is_empty() {
        return Ok(graph);
    }
    for layer in layers(&graph) {
        if !values.contains(&layer.value) && !graph.outputs.contains(&layer.value) {
            graph.outputs.push(layer.value);
        }
    }
    Ok(graph.cut_at(values).map_err(ExecError::from)?)
}
