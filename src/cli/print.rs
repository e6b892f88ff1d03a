//! `samebit print`: a model as text.

use super::files::Files;
use super::import::summary;
use super::model::CutArgs;
use super::{Common, Outcome, show};
use crate::error::Error;
use crate::graph::{Graph, NodeId, text};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct PrintArgs {
    /// ONNX model or graph file
    model: PathBuf,
    /// One node with its neighbours: its id (12 or %12) or its name
    #[arg(long, value_name = "NODE")]
    at: Option<String>,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

impl PrintArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model)
    }
}

pub(super) fn run(args: &PrintArgs) -> Result<Outcome, Error> {
    let graph = args.cut.load_one(&args.model)?;
    let text = match &args.at {
        None => text::print(&graph),
        Some(at) => node(&graph, at).and_then(|id| text::around(&graph, id)).ok_or_else(|| {
            Error::Usage(format!("{}: no node {at}; `samebit print {0}` lists them", args.model.display()))
        })?,
    };
    show::line(text.trim_end());
    Ok(Outcome::fine(summary(&graph)))
}

/// The node that is meant: by id, by name, or by the name of an output.
fn node(graph: &Graph, at: &str) -> Option<NodeId> {
    let id = at.strip_prefix('%').unwrap_or(at).parse().ok().map(NodeId);
    let by_id = graph.nodes().iter().find(|n| Some(n.id) == id);
    let by_name = || graph.nodes().iter().find(|n| n.name == at);
    let by_output = || graph.nodes().iter().find(|n| n.outputs.iter().any(|v| graph.value(*v).name == at));
    by_id.or_else(by_name).or_else(by_output).map(|n| n.id)
}
