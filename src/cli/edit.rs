//! `samebit edit`: changes of single quantizers.

use super::files::Files;
use super::{Common, Outcome, output, show};
use crate::error::Error;
use crate::model;
use crate::onnx::ImportOptions;
use crate::passes::edit::{Edited, Edits, edit};
use crate::quant::Quantizer;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// Calibrated graph file, or an ONNX model with quantizers
    model: PathBuf,
    /// Edits. TOML: [[edit]] with ids = "12..20" or name = "conv*", and remove = true, or dtype, range, scale, state; or
    /// JSON: {"remove_fake_quant": [[1, 100], 102, "conv*"], "set": [{"id": 12, "dtype": "i16"}], "state": "validation"}
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Graph file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    pub(super) common: Common,
}

impl EditArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).reads(&self.config).writes_binary("-o", Some(&self.output))
    }
}

fn words(q: &Quantizer) -> String {
    let scales = q.params.as_ref().map_or(&[][..], |p| p.scales());
    let scale = match scales {
        [] => "no scale".to_owned(),
        [one] => format!("scale {one:e}"),
        more => format!("{} scales from {:e}", more.len(), more[0]),
    };
    format!("{} {scale} {}", q.spec.dtype, q.state)
}

fn fields(q: &Quantizer) -> Value {
    json!({
        "dtype": q.spec.dtype.name(),
        "scale": q.params.as_ref().map(|p| p.scales()),
        "zero_point": q.params.as_ref().map(|p| p.zero_points()),
        "state": q.state.name(),
        "origin": q.origin.name(),
    })
}

pub(super) fn run(args: &EditArgs) -> Result<Outcome, Error> {
    let edits = Edits::load(&args.config).map_err(|e| Error::Usage(e.to_string()))?;
    let graph = model::load(&args.model, &ImportOptions::default())?;
    let wrong = |e| Error::Usage(format!("{}: {}: {e}", args.model.display(), args.config.display()));
    let (graph, edited) = edit(graph, &edits).map_err(wrong)?;
    output::save_graph(&graph, &args.output)?;
    if !args.common.quiet {
        for e in &edited {
            let after = e.after.as_ref().map_or_else(|| "removed".to_owned(), words);
            show::line(&format!("{} {}: {} -> {after}", e.id, e.node, words(&e.before)));
        }
    }
    let (changed, removed): (Vec<&Edited>, Vec<&Edited>) = edited.iter().partition(|e| e.after.is_some());
    let entry = |e: &Edited| {
        let mut v = json!({ "id": e.id.0, "node": e.node, "tensor": e.tensor, "before": fields(&e.before) });
        if let Some(q) = &e.after {
            v["after"] = fields(q);
        }
        v
    };
    Ok(Outcome::fine(json!({
        "stage": graph.stage.name(),
        "removed": removed.into_iter().map(entry).collect::<Vec<_>>(),
        "changed": changed.into_iter().map(entry).collect::<Vec<_>>(),
    })))
}
