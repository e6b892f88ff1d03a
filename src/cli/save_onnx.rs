//! `samebit save-onnx`: a graph as an ONNX model.

use super::files::Files;
use super::model::CutArgs;
use super::{Common, Outcome, show};
use crate::error::{Error, write_file};
use crate::onnx::{OPSET, export};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct SaveOnnxArgs {
    /// Graph file or ONNX model, float or with calibrated quantizers
    model: PathBuf,
    /// ONNX file to write, of operator set 21: float, or with QuantizeLinear and DequantizeLinear
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

impl SaveOnnxArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).writes("-o", Some(&self.output))
    }
}

pub(super) fn run(args: &SaveOnnxArgs) -> Result<Outcome, Error> {
    let shown = args.output.display();
    let graph = args.cut.load_one(&args.model)?;
    let exported = export(&graph).map_err(|e| Error::Usage(format!("{}: {e}", args.model.display())))?;
    write_file(&args.output, &exported.model)?;
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
