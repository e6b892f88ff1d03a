//! `samebit fingerprint`: which target's arithmetic a black box obeys.

mod probes;
mod read;

use super::files::Files;
use super::model::target_profile;
use super::{Common, Outcome, show};
use crate::analysis::calibrate::refuse_unfit;
use crate::analysis::fingerprint::{Candidates, candidates};
use crate::error::Error;
use crate::graph::{Graph, file};
use crate::model;
use crate::onnx::ImportOptions;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::Path;

/// The file that says what probes are.
const MANIFEST: &str = "probes.json";

#[derive(Debug, Args)]
pub(super) struct FingerprintArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write inputs on which profiles disagree
    Probes(probes::ProbesArgs),
    /// From a black box's answers: the profiles that are still possible, for the model and for each operator
    Read(read::ReadArgs),
}

impl FingerprintArgs {
    pub(super) fn common(&self) -> &Common {
        match &self.command {
            Command::Probes(a) => &a.common,
            Command::Read(a) => &a.common,
        }
    }

    pub(super) fn files(&self) -> Files<'_> {
        match &self.command {
            Command::Probes(a) => a.files(),
            Command::Read(a) => a.files(),
        }
    }
}

pub(super) fn run(args: &FingerprintArgs) -> Result<Outcome, Error> {
    match &args.command {
        Command::Probes(a) => probes::run(a),
        Command::Read(a) => read::run(a),
    }
}

/// A model, as candidates and as the hash that tells it from others.
fn load(path: &Path, profiles: &[String]) -> Result<(Candidates, String), Error> {
    let graph = model::load(path, &ImportOptions::default())?;
    let label = path.display().to_string();
    refuse_unfit(&label, &graph)?;
    let more = profiles.iter().map(|p| target_profile(p)).collect::<Result<Vec<_>, _>>()?;
    let found = candidates(&graph, &more).map_err(|e| Error::Usage(format!("{label}: {e}")))?;
    Ok((found, hash(path, &graph)?))
}

fn hash(path: &Path, graph: &Graph) -> Result<String, Error> {
    file::digest(graph).map_err(|source| Error::Save { path: path.to_owned(), source: Box::new(source) })
}

/// Profiles that compute a model by the same rules.
fn alike(candidates: &Candidates) -> Vec<&[String]> {
    let groups = candidates.fit.iter().map(|c| c.profiles.as_slice());
    groups.filter(|g| g.len() > 1).collect()
}

fn unfit(candidates: &Candidates) -> Vec<Value> {
    let one = |u: &crate::analysis::fingerprint::Unfit| json!({ "profile": u.profile, "reason": u.reason });
    candidates.unfit.iter().map(one).collect()
}

/// What the candidates are not.
fn remarks(candidates: &Candidates) {
    for u in &candidates.unfit {
        show::remark(&format!("not a candidate: {}: {}", u.profile, u.reason));
    }
    if let Some(note) = &candidates.note {
        show::remark(&format!("note: {note}"));
    }
}

/// The end of a long name, which is what differs.
fn short(name: &str) -> String {
    const MOST: usize = 44;
    let count = name.chars().count();
    if count <= MOST {
        return name.to_owned();
    }
    let end: String = name.chars().skip(count - MOST + 2).collect();
    format!("..{end}")
}
