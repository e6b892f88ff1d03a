//! `samebit import`: an ONNX model into a graph file.

use super::files::Files;
use super::model::CutArgs;
use super::{Common, Outcome, show};
use crate::error::Error;
use crate::graph::file::{self, FileError};
use crate::graph::{Graph, ValueId};
use crate::model;
use crate::tensor::Dim;
use clap::Args;
use serde_json::json;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// ONNX model, opset 9 to 21
    model: PathBuf,
    /// Graph file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ImportArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).writes("-o", Some(&self.output))
    }
}

pub(super) fn run(args: &ImportArgs) -> Result<Outcome, Error> {
    let options = args.cut.options()?;
    let to_stdout = args.output == Path::new("-");
    let graph = model::import(&args.model, &options)?;
    let shown = if to_stdout { Path::new("standard output") } else { args.output.as_path() };
    let saved = if to_stdout {
        show::results_to_stderr();
        to_stdout_unless_closed(&graph)
    } else {
        file::save(&graph, &args.output)
    };
    saved.map_err(|source| Error::Save { path: shown.to_owned(), source: Box::new(source) })?;
    if !args.common.quiet {
        let ops: Vec<String> = graph.op_counts().iter().map(|(k, v)| format!("{k} {v}")).collect();
        show::line(&format!("{}: {} nodes ({})", shown.display(), graph.nodes().len(), ops.join(", ")));
        for (what, ids) in [("input", &graph.inputs), ("output", &graph.outputs)] {
            for id in ids {
                let v = graph.value(*id);
                show::line(&format!("  {what} {}: {}", v.name, v.ty));
            }
        }
    }
    Ok(Outcome::fine(summary(&graph)))
}

/// A closed pipe (`| head`) is the reader's choice, not an error.
fn to_stdout_unless_closed(graph: &Graph) -> Result<(), FileError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = file::write(graph, &mut out).and_then(|()| Ok(out.flush()?));
    match written {
        Err(FileError::Io(e)) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
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
