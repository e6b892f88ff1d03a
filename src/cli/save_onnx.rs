//! `samebit save-onnx`: a graph as an ONNX model.

use super::model::ConversionArgs;
use super::{Outcome, output, show};
use crate::error::Error;
use crate::onnx::{OPSET, export};
use serde_json::json;

pub(super) fn run(args: &ConversionArgs) -> Result<Outcome, Error> {
    let shown = output::shown(&args.output);
    let shown = shown.display();
    let graph = args.load()?;
    if graph.stage.is_on_codes() {
        let what = "operators on codes have no form in ONNX that keeps their bits; save the calibrated graph instead";
        let stage = graph.stage.name();
        return Err(Error::Usage(format!("{}: is in stage {stage}: {what}", args.model.display())));
    }
    let exported = export(&graph).map_err(|e| Error::Usage(format!("{}: {e}", args.model.display())))?;
    output::save_bytes(&exported.model, &args.output)?;
    if !args.common.quiet {
        let (nodes, bytes) = (exported.nodes, exported.model.len());
        show::line(&format!("{shown}: {nodes} nodes, {bytes} bytes, operator set {OPSET}"));
        exported.warnings.iter().for_each(|w| show::remark(&format!("warning: {w}")));
    }
    Ok(Outcome::fine(json!({
        "file": shown.to_string(),
        "stage": graph.stage.name(),
        "opset": OPSET,
        "nodes": exported.nodes,
        "bytes": exported.model.len(),
        "warnings": exported.warnings,
    })))
}
