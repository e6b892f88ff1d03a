//! `samebit import`: an ONNX model into a graph file.

use super::model::ConversionArgs;
use super::{Outcome, output, show};
use crate::error::Error;
use crate::graph::{Graph, ValueId};
use crate::model;
use crate::tensor::Dim;
use serde_json::json;

pub(super) fn run(args: &ConversionArgs) -> Result<Outcome, Error> {
    let options = args.cut.options()?;
    let graph = model::import(&args.model, &options)?;
    output::save_graph(&graph, &args.output)?;
    if !args.common.quiet {
        let ops: Vec<String> = graph.op_counts().iter().map(|(k, v)| format!("{k} {v}")).collect();
        show::line(&format!(
            "{}: {} nodes ({})",
            output::shown(&args.output).display(),
            graph.nodes().len(),
            ops.join(", ")
        ));
        for (what, ids) in [("input", &graph.inputs), ("output", &graph.outputs)] {
            for id in ids {
                let v = graph.value(*id);
                show::line(&format!("  {what} {}: {}", v.name, v.ty));
            }
        }
    }
    Ok(Outcome::fine(summary(&graph)))
}

/// The JSON of a graph's outside.
pub(super) fn summary(graph: &Graph) -> serde_json::Value {
    let values = |ids: &[ValueId]| -> Vec<serde_json::Value> {
        let describe = |id: &ValueId| {
            let v = graph.value(*id);
            let dim = |d: &Dim| d.fixed().map_or_else(|| d.to_string().into(), serde_json::Value::from);
            let shape: Vec<serde_json::Value> = v.ty.shape.iter().map(dim).collect();
            json!({ "name": v.name, "dtype": v.ty.dtype.name(), "shape": shape })
        };
        ids.iter().map(describe).collect()
    };
    json!({
        "stage": graph.stage.name(),
        "nodes": graph.nodes().len(),
        "ops": graph.op_counts(),
        "inputs": values(&graph.inputs),
        "outputs": values(&graph.outputs),
    })
}
