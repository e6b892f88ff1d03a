//! Models from files, as every command takes them.

use crate::error::Error;
use crate::graph::Graph;
use crate::onnx::{self, ImportError, ImportOptions};
use crate::passes::from_qdq::from_qdq;
use crate::passes::from_qoperator::from_qoperator;
use std::path::Path;

/// Reads an ONNX model or a graph file, told apart by content. ONNX's own quantizers become ours: a model that has them
/// comes in stage `fake-quant`, one with ONNX's operators on codes in stage `quantized`.
///
/// # Errors
/// See [`ImportError`].
pub fn load(path: &Path, options: &ImportOptions) -> Result<Graph, Error> {
    with_quantizers(path, onnx::load_model(path, options))
}

/// Reads an ONNX model, likewise.
///
/// # Errors
/// See [`ImportError`].
pub fn import(path: &Path, options: &ImportOptions) -> Result<Graph, Error> {
    with_quantizers(path, onnx::import(path, options))
}

fn with_quantizers(path: &Path, graph: Result<Graph, ImportError>) -> Result<Graph, Error> {
    let graph = graph.map_err(|source| Error::Model { path: path.to_owned(), source: Box::new(source) })?;
    from_qoperator(graph)
        .and_then(from_qdq)
        .map_err(|source| Error::Pass { path: path.to_owned(), source: Box::new(source) })
}
