//! A graph on codes whose inputs and outputs are codes.

use super::PassError;
use crate::graph::{Graph, Node, ValueId};

/// Takes inputs as codes, where only quantizers take them, and gives outputs as codes, where numbers are made of these at
/// the end. Names stay. What the codes stand for is [`Graph::code_params`] of the graph.
///
/// # Errors
/// A rule of the graph that does not hold.
pub fn with_code_io(mut graph: Graph) -> Result<Graph, PassError> {
    let mut renamed: Vec<(ValueId, String)> = Vec::new();
    let (mut cut, mut inputs) = (Vec::new(), Vec::new());
    let users = graph.users();
    let made_from = |graph: &Graph, v: ValueId| -> Option<ValueId> {
        let [only] = *users.get(&v)?.as_slice() else { return None };
        let node = &graph.nodes()[only];
        (node.op.def().name == "Quantize" && !graph.outputs.contains(&v)).then(|| node.outputs[0])
    };
    for v in std::mem::take(&mut graph.inputs) {
        match made_from(&graph, v) {
            Some(codes) => {
                renamed.push((codes, graph.value(v).name.clone()));
                cut.push(codes);
                inputs.push(codes);
            }
            None => inputs.push(v),
        }
    }
    let producers = graph.producers();
    let outputs = graph.outputs.clone();
    for (i, v) in outputs.iter().enumerate() {
        let node: Option<&Node> = producers.get(v).map(|p| &graph.nodes()[*p]);
        let Some(codes) = node.filter(|n| n.op.def().name == "Dequantize").map(|n| n.inputs[0]) else {
            continue;
        };
        let inner = graph.value(codes).constant.is_none() && !outputs.contains(&codes);
        if inner && !renamed.iter().any(|(r, _)| *r == codes) {
            renamed.push((codes, graph.value(*v).name.clone()));
            graph.outputs[i] = codes;
        }
    }
    for (v, name) in renamed {
        let old = graph.find_value(&name);
        if let Some(old) = old {
            let spare = graph.fresh_value(&format!("{name}/number"));
            graph.rename_value(old, spare);
        }
        graph.rename_value(v, name);
    }
    // Values are moved when the graph is tidied, so that inputs are put into their order before.
    graph.inputs = inputs.iter().copied().filter(|v| !cut.contains(v)).collect();
    let order: Vec<String> = inputs.iter().map(|v| graph.value(*v).name.clone()).collect();
    let mut out = graph.cut_at(&cut)?;
    out.inputs = order.iter().filter_map(|name| out.find_value(name)).collect();
    out.verify()?;
    Ok(out)
}
