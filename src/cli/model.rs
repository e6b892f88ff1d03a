//! What every command that takes a MODEL has in common.

use super::Common;
use super::files::Files;
use crate::error::Error;
use crate::graph::Graph;
use crate::model;
use crate::onnx::{self, ImportOptions};
use crate::passes::convert::as_profile;
use crate::quant::Profile;
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which part of an ONNX model is taken, and the sizes that it leaves open.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct CutArgs {
    /// Cut the graph at these tensors: they become its inputs, what lies before them is left out
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    inputs: Vec<String>,
    /// Cut the graph at these tensors: they become its outputs, what lies behind them is left out
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    outputs: Vec<String>,
    /// Shape of an input whose dimensions the model leaves open: image=Nx3x224x224, N is the batch
    #[arg(long, value_name = "NAME=DxDx..")]
    shape: Vec<String>,
}

/// A model that is turned into another file.
#[derive(Clone, Debug, Args)]
pub(super) struct ConversionArgs {
    /// Model to read: ONNX or, except by `import`, a graph file
    pub(super) model: PathBuf,
    /// File to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ConversionArgs {
    /// Its files, of which the one that is written is binary.
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).writes_binary("-o", Some(&self.output))
    }

    /// Loads the model.
    pub(super) fn load(&self) -> Result<Graph, Error> {
        self.cut.load_one(&self.model)
    }
}

impl CutArgs {
    /// Loads models, each ONNX or a graph file. Where there is ONNX, graph files beside it are taken as they are.
    pub(super) fn load(&self, paths: &[PathBuf]) -> Result<Vec<Graph>, Error> {
        let options = self.options()?;
        let plain = ImportOptions::default();
        let is_graph = |path: &PathBuf| onnx::is_graph_file(path).unwrap_or(false);
        let mixed = !paths.iter().all(is_graph);
        let load = |path: &PathBuf| {
            let options = if mixed && is_graph(path) { &plain } else { &options };
            model::load(path, options)
        };
        paths.iter().map(load).collect()
    }

    /// Loads one model.
    pub(super) fn load_one(&self, path: &Path) -> Result<Graph, Error> {
        model::load(path, &self.options()?)
    }

    /// As the importer takes it.
    pub(super) fn options(&self) -> Result<ImportOptions, Error> {
        let (mut shapes, mut wrong) = (BTreeMap::new(), Vec::new());
        for text in &self.shape {
            match onnx::parse_shape(text) {
                Ok((name, dims)) => {
                    if shapes.insert(name.clone(), dims).is_some() {
                        wrong.push(format!("{name:?} is given twice; give each input one shape"));
                    }
                }
                Err(e) => wrong.push(e),
            }
        }
        if !wrong.is_empty() {
            return Err(Error::Usage(format!("--shape: {}", wrong.join("; "))));
        }
        Ok(ImportOptions { inputs: self.inputs.clone(), outputs: self.outputs.clone(), shapes })
    }
}

/// Another target whose arithmetic a graph on codes is run with.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ProfileArg {
    /// Run operators on codes as another target would, with the scales that they have: a profile that comes with the
    /// engine, or a TOML file of one
    #[arg(long, value_name = "PROFILE")]
    pub(super) profile: Option<String>,
}

impl ProfileArg {
    /// The graph with that arithmetic, or as it is.
    pub(super) fn apply(&self, label: &str, graph: Graph) -> Result<Graph, Error> {
        let Some(name) = &self.profile else { return Ok(graph) };
        let profile = target_profile(name)?;
        let own = graph.target.as_ref().map_or("no target", |t| &t.profile.name);
        super::show::remark(&format!("{label}: made for {own}, runs as {}", profile.name));
        as_profile(graph, &profile).map_err(|e| Error::Usage(format!("{label}: --profile {name}: {e}")))
    }
}

/// A profile by name, or from a file.
pub(super) fn target_profile(name: &str) -> Result<Profile, Error> {
    let path = Path::new(name);
    let wrong = |e: &dyn std::fmt::Display| Error::Usage(format!("profile {name}: {e}"));
    if !Profile::names().contains(&name) && path.extension().is_some_and(|e| e == "toml") {
        let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
        return Profile::parse(&text).map_err(|e| wrong(&e));
    }
    Profile::builtin(name).map_err(|e| wrong(&e))
}
