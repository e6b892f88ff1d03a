//! Passes: from graph to graph. Each ends with a verified graph.

pub mod code_io;
pub mod config;
pub mod convert;
pub mod edit;
pub mod export;
pub mod from_qdq;
pub mod from_qoperator;
pub mod fuse;
pub mod internals;
pub mod prepare;
pub mod recognise;
mod rules;
mod split;

use crate::graph::{GraphError, OpError};

/// Why a pass did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The graph is in another stage than the pass takes.
    #[error("the graph is in stage {got}, {wanted} is needed")]
    Stage {
        /// The stage it is in.
        got: &'static str,
        /// The stage that is needed.
        wanted: &'static str,
    },
    /// A rule that touched nothing.
    #[error("rule {index} ({rule}) matches nothing{}{}", taken_in(fused), list("; near: ", near))]
    Unmatched {
        /// Its position, from 1.
        index: usize,
        /// What it looks for.
        rule: String,
        /// Nodes that took in what it looks for.
        fused: Vec<String>,
        /// Names that are near.
        near: Vec<String>,
    },
    /// A rule asks for what cannot be.
    #[error("rule {index}: {message}")]
    Rule {
        /// Its position, from 1.
        index: usize,
        /// What is wrong.
        message: String,
    },
    /// Replacements that cannot be.
    #[error("{message}")]
    Export {
        /// Which, and why.
        message: String,
    },
    /// An edit asks for what cannot be.
    #[error("edit {index}: {message}")]
    Edit {
        /// Its position, from 1.
        index: usize,
        /// What is wrong.
        message: String,
    },
    /// Parameters that no quantizer can have.
    #[error("{node}: {error}")]
    Quant {
        /// The node.
        node: String,
        /// What is wrong.
        error: crate::quant::QuantError,
    },
    /// An operator refuses what a pass gives it.
    #[error("{node}: {error}")]
    Op {
        /// The node.
        node: String,
        /// What it says.
        error: OpError,
    },
    /// A target profile that does not fit.
    #[error("{message}")]
    Profile {
        /// What does not.
        message: String,
    },
    /// Quantizers that have no parameters, or do not quantize.
    #[error("{} quantizers have no parameters or do not quantize, among them {}: calibrate first", quantizers.len(), quantizers[..quantizers.len().min(5)].join(", "))]
    Unfit {
        /// Their names.
        quantizers: Vec<String>,
    },
    /// The graph breaks a rule.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

fn list(title: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{title}{}", names.join(", ")) }
}

fn taken_in(nodes: &[String]) -> String {
    const NAMED: usize = 5;
    let more = nodes.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match list("; what it looks for was taken in by ", &nodes[..nodes.len().min(NAMED)]) {
        text if text.is_empty() => text,
        text => format!("{text}{more}: name that"),
    }
}
