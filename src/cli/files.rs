//! The files that a command line names, checked before any work is done: outputs can be written, and none of them is
//! another one or an input, however its path is spelled.

use crate::atomic::{Target, check_writable, target};
use crate::data::config::split_key;
use crate::error::Error;
use std::path::{Path, PathBuf};

/// What a command reads and writes.
#[derive(Debug, Default)]
pub(super) struct Files<'a> {
    reads: Vec<PathBuf>,
    /// With the option that names them, and whether they are read again.
    writes: Vec<(&'static str, &'a Path, bool)>,
}

impl<'a> Files<'a> {
    /// A file, folder or archive member that is read. What is not there is met when it is read.
    pub(super) fn reads(mut self, path: &Path) -> Self {
        self.reads.extend(split_key(path).0.canonicalize());
        self
    }

    /// A file that is written; `-` is standard output.
    pub(super) fn writes(mut self, option: &'static str, path: Option<&'a Path>) -> Self {
        self.writes.extend(path.map(|p| (option, p, false)));
        self
    }

    /// A file that is written and read again, which a pipe cannot be.
    pub(super) fn keeps(mut self, option: &'static str, path: Option<&'a Path>) -> Self {
        self.writes.extend(path.map(|p| (option, p, true)));
        self
    }

    /// # Errors
    /// The first file that cannot be written, or that is another one, too.
    pub(super) fn check(&self) -> Result<(), Error> {
        let mut seen: Vec<(&str, &Path, Option<PathBuf>)> = Vec::new();
        for (option, path, kept) in &self.writes {
            let wrong = |what: String| Error::Usage(format!("{option} {}: {what}", path.display()));
            // Standard output; two devices may well be the same one.
            let file = if *path == Path::new("-") {
                None
            } else {
                match target(path).map_err(|e| wrong(e.to_string()))? {
                    Target::File(file) => Some(file),
                    Target::Stream(_) if !kept => continue,
                    Target::Stream(_) => return Err(wrong("is no regular file; give one".into())),
                }
            };
            if file.is_none() && *kept {
                return Err(wrong("cannot be standard output, as it is read again; give a file".into()));
            }
            if let Some((option, path, _)) = seen.iter().find(|(.., f)| *f == file) {
                return Err(wrong(format!("is the file of {option} {}, too", path.display())));
            }
            if let Some(file) = &file {
                if self.reads.contains(file) {
                    return Err(wrong("is one of the inputs".into()));
                }
                check_writable(path).map_err(|e| wrong(format!("cannot be written: {e}")))?;
            }
            seen.push((option, path, file));
        }
        Ok(())
    }
}
