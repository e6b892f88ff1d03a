//! Data sets: where frames and labels come from, how they become a graph's inputs, and what is measured on the outputs.

mod agreement;
mod array;
mod bind;
pub mod columns;
pub mod config;
mod dataset;
pub mod dump;
mod element;
pub mod fingerprint;
mod loader;
pub mod metrics;
mod npy;
mod npz;
pub mod picture;
mod preprocess;
pub mod scorer;
mod selection;
pub mod shards;
mod single;
mod source;

pub use array::Array;
pub use bind::{BoundDataset, BoundInput, Unread};
pub use dataset::Dataset;
pub use element::Element;
pub use loader::{Batch, Loader, LoaderOptions, Skip};
pub use npy::write as write_npy;
pub use npz::arrays as npz_arrays;
pub use preprocess::ChannelTables;
pub(crate) use single::channels_first;
pub use single::read_input;

use std::path::{Path, PathBuf};

/// Why data could not be read or written: which file, what is wrong with it, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}{}", path.display(), if help.is_empty() { String::new() } else { format!("; {help}") })]
pub struct DataError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong, with the numbers.
    pub what: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl DataError {
    /// An error about `path`.
    pub fn new(path: &Path, what: impl Into<String>) -> Self {
        DataError { path: path.to_path_buf(), what: what.into(), help: String::new() }
    }

    /// The same error with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// What the system said while `doing`, such as "cannot open".
    fn io(path: &Path, doing: &str, error: &std::io::Error) -> Self {
        DataError::new(path, format!("{doing}: {error}"))
    }
}
