//! `samebit export`: integer forms in place of what they are not equal to.

use super::files::Files;
use super::{Common, Outcome, output, show};
use crate::error::Error;
use crate::model;
use crate::onnx::ImportOptions;
use crate::passes::export::export;
use clap::Args;
use globset::Glob;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Calibrated graph file, or an ONNX model with quantizers
    model: PathBuf,
    /// Graph file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace only the nodes whose names this pattern finds
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ExportArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).writes_binary("-o", Some(&self.output))
    }
}

pub(super) fn run(args: &ExportArgs) -> Result<Outcome, Error> {
    let graph = model::load(&args.model, &ImportOptions::default())?;
    let glob = args.only.as_deref().map(|text| {
        let glob = Glob::new(text).map_err(|e| Error::Usage(format!("--only {text}: {e}")))?;
        Ok::<_, Error>(glob.compile_matcher())
    });
    let only = glob.transpose()?;
    let wrong = |e| Error::Usage(format!("{}: {e}", args.model.display()));
    let exported = export(&graph, only.as_ref()).map_err(wrong)?;
    output::save_graph(&exported.graph, &args.output)?;
    if !args.common.quiet {
        let shown = output::shown(&args.output);
        show::line(&format!("{}: {} nodes replaced", shown.display(), exported.replaced.len()));
        for r in &exported.replaced {
            let error = r.error.map_or_else(String::new, |e| {
                let (worst, mean) = (e.worst / e.step, e.mean / e.step);
                format!(" of {} entries, error at most {worst:.2} steps, {mean:.2} on average", e.entries)
            });
            show::line(&format!("  {} ({}): {} {}{error}", r.node, r.op, r.rule, r.by));
        }
        for k in &exported.kept {
            show::line(&format!("  kept: {} ({}): {}", k.node, k.op, k.reason));
        }
    }
    let tables = exported.replaced.iter().filter_map(|r| Some((r, r.error?)));
    Ok(Outcome::fine(json!({
        "stage": exported.graph.stage.name(),
        "replaced": exported.replaced.iter().map(|r| json!({
            "node": r.node, "op": r.op, "rule": r.rule, "by": r.by.0,
        })).collect::<Vec<_>>(),
        "kept": exported.kept.iter().map(|k| json!({ "node": k.node, "op": k.op, "reason": k.reason })).collect::<Vec<_>>(),
        "tables": tables.map(|(r, e)| json!({
            "node": r.node, "entries": e.entries, "worst": e.worst, "mean": e.mean, "step": e.step,
        })).collect::<Vec<_>>(),
    })))
}
