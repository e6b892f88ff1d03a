//! From ONNX's operators on codes to a graph in stage `quantized`.
//!
//! They are read as operators on codes one by one. What is between them follows here: `QuantizeLinear` and
//! `DequantizeLinear` of one constant scale become `Quantize` and `Dequantize`, functions of one number become tables, and
//! a concatenation of codes of several scales becomes tables that bring them to the scale of the output, and a plain
//! concatenation.

use super::PassError;
use super::from_qdq::constant_params;
use crate::graph::{CodeOutput, CodeParams, Graph, Node, Op, OpError, QuantRule, Stage, ValueId};
use crate::ops::{dequantize, identity, quantize, table};
use std::sync::Arc;

/// Makes the graph one on codes where it has operators on codes; any other comes back as it is.
///
/// # Errors
/// Parameters that an operator cannot compute with, and a graph that does not verify afterwards.
pub fn from_qoperator(mut graph: Graph) -> Result<Graph, PassError> {
    let on_codes = graph.nodes().iter().any(|n| n.op.integer_of().is_some());
    if graph.stage != Stage::Float || !on_codes {
        return Ok(graph);
    }
    graph.stage = Stage::Quantized;
    for i in 0..graph.nodes().len() {
        let node = graph.nodes()[i].clone();
        match node.op.quant_rule() {
            QuantRule::Quantize(_) => {
                if let Some(p) = constant_params(&graph, i).filter(|p| p.axis().is_none()) {
                    graph.set_op(i, quantize(p));
                    graph.set_inputs(i, node.inputs[..1].to_vec());
                }
            }
            QuantRule::Dequantize(_) => {
                if let Some(p) = constant_params(&graph, i).filter(|p| p.axis().is_none()) {
                    graph.set_op(i, dequantize(p));
                    graph.set_inputs(i, node.inputs[..1].to_vec());
                }
            }
            _ => {
                if let Some((op, params)) = node.op.integer_of() {
                    tabled(&mut graph, i, &node, op, params)?;
                }
            }
        }
    }
    graph.reorder();
    Ok(graph.tidied()?)
}

fn refused(node: &Node, error: OpError) -> PassError {
    PassError::Op { node: node.label(), error }
}

/// Puts tables in place of an operator that is one, or before one that joins codes of several scales.
fn tabled(
    graph: &mut Graph,
    i: usize,
    node: &Node,
    op: &Arc<dyn Op>,
    params: &CodeParams,
) -> Result<(), PassError> {
    if op.def().name != "Concat" {
        if let Some((op, entries)) = table(op.as_ref(), params).map_err(|e| refused(node, e))? {
            let entries = graph.new_constant(&format!("{}/table", node.name), entries);
            graph.set_op(i, op);
            graph.set_inputs(i, vec![node.inputs[0], entries]);
        }
        return Ok(());
    }
    let CodeOutput::Codes { params: output, .. } = &params.output else { return Ok(()) };
    let mut inputs: Vec<ValueId> = Vec::new();
    for (v, from) in node.inputs.iter().zip(params.inputs.iter().flatten()) {
        if from.same_codes(output) {
            inputs.push(*v);
            continue;
        }
        let mut to = CodeParams::new([from.clone()], output.clone(), Vec::new());
        to.arithmetic = params.arithmetic;
        let made = table(identity().as_ref(), &to).map_err(|e| refused(node, e))?;
        let (op, entries) = made.expect("the identity is a function of one number");
        let name = format!("{}/{}", node.name, graph.value(*v).name);
        let entries = graph.new_constant(&format!("{name}/table"), entries);
        let (at, out) = (graph.fresh_node(&name), graph.fresh_value(&name));
        let made = graph.add_node(at, node.source.clone(), op, &[*v, entries], &[out]);
        inputs.push(made.map_err(|e| refused(node, e))?[0]);
    }
    graph.set_op(i, Arc::clone(op));
    graph.set_inputs(i, inputs);
    Ok(())
}
