//! `samebit compile`: a deployment file from a graph on codes.

use super::files::Files;
use super::{Common, Outcome, output, show};
use crate::error::Error;
use crate::exec::compile;
use crate::graph::{Graph, Stage, ValueId, file};
use crate::model;
use crate::onnx::ImportOptions;
use crate::passes::code_io::with_code_io;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    /// Inputs and outputs as codes, where the model makes codes of inputs first and numbers of codes last
    Codes,
    /// Inputs and outputs as numbers
    Float,
}

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    /// Graph file in stage quantized (see `samebit convert`), or an ONNX model with operators on codes
    model: PathBuf,
    /// Deployment file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What goes in and comes out
    #[arg(long, value_enum, default_value = "float")]
    io: Io,
    #[command(flatten)]
    pub(super) common: Common,
}

impl CompileArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).writes_binary("-o", Some(&self.output))
    }
}

/// A tensor of the outside, with what its codes stand for.
fn outside(graph: &Graph, v: ValueId) -> Value {
    let value = graph.value(v);
    let params = graph.code_params();
    let params = params.get(&v).filter(|p| p.scales().len() == 1);
    json!({
        "name": value.name,
        "dtype": value.ty.dtype.name(),
        "shape": value.ty.to_string(),
        "scale": params.map(|p| p.scales()),
        "zero_point": params.map(|p| p.zero_points()),
    })
}

pub(super) fn run(args: &CompileArgs) -> Result<Outcome, Error> {
    let wrong = |e: String| Error::Usage(format!("{}: {e}", args.model.display()));
    let graph = model::load(&args.model, &ImportOptions::default())?;
    if graph.stage != Stage::Quantized {
        let how = match graph.stage {
            Stage::Float => "`samebit calibrate` and `samebit convert` make a graph on codes of it",
            Stage::FakeQuant | Stage::Export => "`samebit convert` makes a graph on codes of it",
            Stage::Quantized | Stage::Compiled => "it is compiled already",
        };
        return Err(wrong(format!("is in stage {}: {how}", graph.stage.name())));
    }
    let graph = match args.io {
        Io::Codes => with_code_io(graph).map_err(|e| wrong(e.to_string()))?,
        Io::Float => graph,
    };
    let graph = compile(graph)?;
    let mut bytes = Vec::new();
    file::write(&graph, &mut bytes).map_err(|e| wrong(e.to_string()))?;
    output::save_graph(&graph, &args.output)?;
    let placed = graph.placed.as_ref().expect("just placed");
    let arena: u64 = placed.arenas.iter().sum();
    let weights = file::constant_bytes(&graph);
    if !args.common.quiet {
        show::line(&format!(
            "{}: {} bytes, {weights} of them weights; {} kernels, {arena} bytes of memory a frame",
            output::shown(&args.output).display(),
            bytes.len(),
            placed.kernels.len(),
        ));
    }
    Ok(Outcome::fine(json!({
        "stage": graph.stage.name(),
        "target": graph.target.as_ref().map(|t| &t.profile.name),
        "bytes": bytes.len(),
        "weight_bytes": weights,
        "arena_bytes": arena,
        "kernels": placed.kernels,
        "inputs": graph.inputs.iter().map(|v| outside(&graph, *v)).collect::<Vec<_>>(),
        "outputs": graph.outputs.iter().map(|v| outside(&graph, *v)).collect::<Vec<_>>(),
    })))
}
