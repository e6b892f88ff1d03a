//! The files behind one input.

use super::array::Array;
use super::config::{Color, Layout, RawConfig, SourceConfig};
use super::element::Element;
use super::npz::only_array;
use super::picture::Picture;
use super::preprocess::Channels;
use super::selection::Rows;
use super::{DataError, Unread, fingerprint};
use crate::digest::Digest;
use crate::tensor::{Data, Tensor};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Stored samples, counted from 0.
#[derive(Debug)]
pub(super) enum Source {
    Images { root: PathBuf, files: Vec<String>, color: Color },
    Raw { root: PathBuf, files: Vec<String>, element: Element, shape: Vec<usize>, layout: Option<Layout> },
    Rows { array: Array, layout: Option<Layout> },
}

/// A sample as it is stored, before value steps.
pub(super) enum Stored {
    Picture(Picture),
    Elements(Tensor),
}

impl Stored {
    pub fn into_parts(self) -> (Vec<usize>, Data) {
        match self {
            Stored::Picture(p) => (vec![p.h, p.w, p.c], Data::U8(p.pixels.into())),
            Stored::Elements(t) => (t.shape().to_vec(), t.into_data()),
        }
    }
}

impl Source {
    pub fn open(
        config: &SourceConfig,
        base: &Path,
        color: Color,
        layout: Option<Layout>,
    ) -> Result<Source, DataError> {
        match config {
            SourceConfig::Images(folder) => {
                let root = base.join(folder);
                let files = files_below(&root, &|name| is_image(name))?;
                if files.is_empty() {
                    return Err(DataError::new(&root, "no .jpg, .jpeg or .png file in it"));
                }
                Ok(Source::Images { root, files, color })
            }
            SourceConfig::List(list) => {
                let path = base.join(list);
                let text =
                    std::fs::read_to_string(&path).map_err(|e| DataError::io(&path, "cannot read", &e))?;
                let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
                let files: Vec<_> = lines.map(str::to_owned).collect();
                if files.is_empty() {
                    return Err(DataError::new(&path, "no file is listed in it"));
                }
                Ok(Source::Images { root: path.parent().unwrap_or(base).to_path_buf(), files, color })
            }
            SourceConfig::Npy(file, key) => {
                let path = base.join(file);
                let array = match key.as_deref() {
                    None => Array::open(&path)?,
                    Some("") => Array::open_npz(&path, &only_array(&path)?)?,
                    Some(key) => Array::open_npz(&path, key)?,
                };
                if array.shape().is_empty() || array.shape()[1..].contains(&0) {
                    let what =
                        format!("shape {:?}; axis 0 counts the samples, and none is empty", array.shape());
                    return Err(DataError::new(&path, what));
                }
                Ok(Source::Rows { array, layout })
            }
            SourceConfig::Raw(raw) => Source::open_raw(raw, base, layout),
        }
    }

    fn open_raw(raw: &RawConfig, base: &Path, layout: Option<Layout>) -> Result<Source, DataError> {
        let wrong = |what: String| DataError::new(&base.join(&raw.glob), what);
        let split = raw.glob.find(['*', '?', '[', '{']).unwrap_or(raw.glob.len());
        let (folder, pattern) = match raw.glob[..split].rfind('/') {
            Some(at) => (&raw.glob[..at.max(1)], &raw.glob[at + 1..]),
            None => ("", raw.glob.as_str()),
        };
        let glob = globset::GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|e| wrong(format!("not a glob: {e}")))?
            .compile_matcher();
        let root = base.join(folder);
        let files = files_below(&root, &|name| glob.is_match(name))?;
        if files.is_empty() {
            return Err(wrong("no file matches".into()));
        }
        let element = raw.element().map_err(wrong)?;
        Ok(Source::Raw { root, files, element, shape: raw.shape.clone(), layout })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Source::Images { files, .. } | Source::Raw { files, .. } => files.len(),
            Source::Rows { array, .. } => array.rows(),
        }
    }

    /// What it is read from.
    pub fn path(&self) -> &Path {
        match self {
            Source::Images { root, .. } | Source::Raw { root, .. } => root,
            Source::Rows { array, .. } => array.path(),
        }
    }

    /// The files, where samples are files.
    pub fn files(&self) -> Option<&[String]> {
        match self {
            Source::Images { files, .. } | Source::Raw { files, .. } => Some(files),
            Source::Rows { .. } => None,
        }
    }

    /// Replaces the files, where samples are files.
    pub fn set_files(&mut self, names: &[String]) {
        if let Source::Images { files, .. } | Source::Raw { files, .. } = self {
            *files = names.to_vec();
        }
    }

    /// Shape and type of a stored sample, where all are alike by construction.
    pub fn sample(&self) -> Option<(&[usize], Element)> {
        match self {
            Source::Images { .. } => None,
            Source::Raw { shape, element, .. } => Some((shape, *element)),
            Source::Rows { array, .. } => Some((&array.shape()[1..], array.element())),
        }
    }

    /// Where a stored sample keeps its channels, and whether the data set file said so.
    pub fn channels(&self) -> (Channels, bool) {
        match self {
            Source::Images { .. } => (Channels::Last, true),
            Source::Raw { layout, .. } | Source::Rows { layout, .. } => match layout {
                None => (Channels::First, false),
                Some(Layout::Nchw) => (Channels::First, true),
                Some(Layout::Nhwc) => (Channels::Last, true),
            },
        }
    }

    /// Tells what is stored from other contents: arrays as [`Array::fingerprint`] says, files by their sizes.
    pub fn fingerprint(&self, samples: &Rows) -> Result<String, DataError> {
        match self {
            Source::Images { root, files, .. } | Source::Raw { root, files, .. } => {
                let size =
                    |i| std::fs::metadata(root.join(&files[samples.get(i)])).map_or(u64::MAX, |m| m.len());
                let sizes: Vec<u64> = (0..samples.len()).into_par_iter().map(size).collect();
                let mut digest = Digest::new();
                sizes.iter().for_each(|n| digest.part(n.to_le_bytes()));
                Ok(digest.finish())
            }
            Source::Rows { array, .. } => array.fingerprint(),
        }
    }

    /// Adds what tells a sample's contents from others: the length of a file, and up to `most` places of what is stored.
    pub fn digest(&self, sample: usize, most: u64, digest: &mut Digest) -> Result<(), DataError> {
        match self {
            Source::Images { root, files, .. } | Source::Raw { root, files, .. } => {
                fingerprint::of_file(&root.join(&files[sample]), most, digest);
                Ok(())
            }
            Source::Rows { array, .. } => array.digest_row(sample, most, digest),
        }
    }

    /// Reads a sample.
    pub fn read(&self, sample: usize) -> Result<Stored, Unread> {
        match self {
            Source::Images { root, files, color } => {
                Ok(Stored::Picture(Picture::open(&root.join(&files[sample]), *color)?))
            }
            Source::Raw { root, files, element, shape, .. } => {
                let path = root.join(&files[sample]);
                let want = shape.iter().product::<usize>() as u64 * element.size_bytes() as u64;
                let have = std::fs::metadata(&path).map_err(|e| format!("cannot open: {e}"))?.len();
                if have != want {
                    return Err(format!("{have} bytes; shape {shape:?} takes {want}").into());
                }
                let bytes = std::fs::read(&path).map_err(|e| format!("cannot read: {e}"))?;
                if bytes.len() as u64 != want {
                    return Err(format!("{} bytes; shape {shape:?} takes {want}", bytes.len()).into());
                }
                Ok(Stored::Elements(element.tensor(shape, &bytes)?))
            }
            Source::Rows { array, .. } => {
                // A row that cannot be had is a fault of the file, a value that cannot be used one of the sample.
                let bytes = array.bytes_of(sample..sample + 1)?;
                Ok(Stored::Elements(array.element().tensor(&array.shape()[1..], &bytes)?))
            }
        }
    }
}

pub(super) fn is_image(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
    ["jpg", "jpeg", "png"].iter().any(|e| extension.eq_ignore_ascii_case(e))
}

/// Paths below `root`, with `/` between folders, sorted, for which `wanted` holds. Linked folders are followed once.
fn files_below(root: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>, DataError> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    // A file named without a folder has the empty path as its parent.
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let mut folders = vec![(root.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let failed = |e: std::io::Error| DataError::io(&folder, "cannot list the folder", &e);
        if !seen.insert(folder.canonicalize().map_err(failed)?) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            let is_folder = std::fs::metadata(entry.path()).is_ok_and(|m| m.is_dir());
            if is_folder {
                folders.push((entry.path(), format!("{name}/")));
            } else if wanted(&name) {
                found.push(name);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
