//! The error of the library's top-level calls, and how files are written.

use std::path::{Path, PathBuf};

/// What went wrong: one message that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Arguments that contradict each other or the model.
    #[error("{0}")]
    Usage(String),
    /// A model could not be loaded.
    #[error("{}: {}", path.display(), without_path(source))]
    Model {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: Box<crate::onnx::ImportError>,
    },
    /// A pass does not take a model.
    #[error("{}: {source}", path.display())]
    Pass {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: Box<crate::passes::PassError>,
    },
    /// A graph file could not be written.
    #[error("{}: {source}", path.display())]
    Save {
        /// The graph file.
        path: PathBuf,
        /// Why.
        source: Box<crate::graph::file::FileError>,
    },
    /// A data set could not be used.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// A scorer of the user's own failed.
    #[error(transparent)]
    Scorer(#[from] crate::data::scorer::ScorerError),
    /// A run failed.
    #[error("{0}")]
    Exec(Box<crate::exec::ExecError>),
    /// A device could not be had.
    #[error(transparent)]
    Gpu(#[from] crate::gpu::GpuError),
}

impl From<crate::exec::ExecError> for Error {
    fn from(e: crate::exec::ExecError) -> Self {
        Error::Exec(Box::new(e))
    }
}

/// Writes a file so that it is there whole or not at all: beside it, synced, renamed.
///
/// # Errors
/// What the system says, with the path.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    crate::atomic::write_atomic(path, |w| w.write_all(bytes))
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// What an import says, where its message does not begin with the path anyway.
fn without_path(e: &crate::onnx::ImportError) -> String {
    match e {
        crate::onnx::ImportError::Io { error, .. } => error.to_string(),
        crate::onnx::ImportError::GraphFile { error, .. } => error.to_string(),
        e => e.to_string(),
    }
}
