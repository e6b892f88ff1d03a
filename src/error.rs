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

/// Up to three of `names` within a few edits of `name`, nearest first.
pub(crate) fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const SHOWN: usize = 3;
    const LONGEST: usize = 256;
    let lower = name.to_lowercase();
    let limit = 1 + name.chars().count() / 4;
    let mut found: Vec<(usize, &str)> = names
        .filter(|n| n.len() <= LONGEST && name.len() <= LONGEST && n.len().abs_diff(name.len()) <= limit)
        .map(|n| (edit_distance(&lower, &n.to_lowercase()), n))
        .filter(|(d, _)| *d <= limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(SHOWN).map(|(_, n)| n.to_owned()).collect()
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_nearest_first() {
        let names = ["scores", "score", "boxes", "stores"];
        assert_eq!(near("scors", names.into_iter()), ["score", "scores", "stores"]);
        assert!(near("zzzzzz", names.into_iter()).is_empty());
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        for (a, b, want) in [("", "abc", 3), ("kitten", "sitting", 3), ("x", "x", 0), ("ab", "ba", 2)] {
            assert_eq!(edit_distance(a, b), want, "{a} {b}");
        }
    }
}
