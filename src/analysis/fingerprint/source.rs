//! Where answers lie: a folder of npy files, or an npz.

use crate::data::dump::{DumpReader, Kind};
use crate::data::{Array, DataError, npz_arrays};
use crate::error::Error;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// A folder of arrays, or an archive.
pub(super) enum Source {
    Folder(DumpReader),
    Archive(BTreeMap<String, Array>),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Source, Error> {
        if !path.exists() {
            return Err(DataError::new(path, "is not there")
                .help("give a folder of npy files, or an npz")
                .into());
        }
        let mut archive = path.to_path_buf();
        if path.is_dir() {
            let entries =
                std::fs::read_dir(path).map_err(|source| Error::Io { path: path.into(), source })?;
            let files: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            let of = |extension: &str| {
                files.iter().filter(|f| f.extension().is_some_and(|e| e == extension)).count()
            };
            if of("npy") > 0 || of("npz") != 1 {
                return Ok(Source::Folder(DumpReader::open(path)?));
            }
            archive =
                files.into_iter().find(|f| f.extension().is_some_and(|e| e == "npz")).unwrap_or(archive);
        }
        let open = |key: String| Array::open_npz(&archive, &key).map(|a| (key, a));
        let arrays = npz_arrays(&archive)?.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Source::Archive(arrays))
    }

    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Source::Folder(d) => d.names().map(str::to_owned).collect(),
            Source::Archive(arrays) => arrays.keys().cloned().collect(),
        }
    }

    pub(super) fn shape(&self, name: &str) -> Vec<usize> {
        match self {
            Source::Folder(d) => d.shape(name).unwrap_or_default(),
            Source::Archive(arrays) => arrays[name].shape().to_vec(),
        }
    }

    pub(super) fn kind(&self, name: &str) -> Option<Kind> {
        match self {
            Source::Folder(d) => d.info(name).map(|i| i.kind),
            Source::Archive(_) => None,
        }
    }

    pub(super) fn read(&self, name: &str, frames: usize) -> Result<Tensor, DataError> {
        match self {
            Source::Folder(d) => d.frames(name, 0..frames),
            Source::Archive(arrays) => arrays[name].read_rows(0..frames),
        }
    }

    pub(super) fn samples(&self) -> Vec<String> {
        match self {
            Source::Folder(d) => d.samples(),
            Source::Archive(_) => Vec::new(),
        }
    }
}
