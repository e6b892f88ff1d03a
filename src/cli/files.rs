//! The files that a command line names, checked before any work is done: outputs can be written, and none of them is
//! another one or an input, however its path is spelled.

use super::output::is_stdout;
use crate::atomic::{Target, check_folder, check_writable, target};
use crate::data::config::split_key;
use crate::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What a command reads and writes.
#[derive(Debug, Default)]
pub(super) struct Files<'a> {
    reads: Vec<PathBuf>,
    /// With the option that names them.
    writes: Vec<(&'static str, &'a Path, Kind)>,
}

/// What is written to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// Nothing that a terminal could show.
    Binary,
    /// Read again, which a pipe cannot be.
    Kept,
    /// Files into a folder.
    Folder,
}

impl<'a> Files<'a> {
    /// A file, folder or archive member that is read. What is not there is met when it is read.
    pub(super) fn reads(mut self, path: &Path) -> Self {
        self.reads.extend(split_key(path).0.canonicalize());
        self
    }

    /// A text file that is written; `-` is standard output.
    pub(super) fn writes(self, option: &'static str, path: Option<&'a Path>) -> Self {
        self.with(option, path, Kind::Text)
    }

    /// A binary file that is written; `-` is standard output, unless that is a terminal.
    pub(super) fn writes_binary(self, option: &'static str, path: Option<&'a Path>) -> Self {
        self.with(option, path, Kind::Binary)
    }

    /// A file that is written and read again, which a pipe cannot be.
    pub(super) fn keeps(self, option: &'static str, path: Option<&'a Path>) -> Self {
        self.with(option, path, Kind::Kept)
    }

    /// A folder that files are written to.
    pub(super) fn fills(self, option: &'static str, path: Option<&'a Path>) -> Self {
        self.with(option, path, Kind::Folder)
    }

    fn with(mut self, option: &'static str, path: Option<&'a Path>, kind: Kind) -> Self {
        self.writes.extend(path.map(|p| (option, p, kind)));
        self
    }

    /// Whether a file goes to standard output, which is not for people then.
    pub(super) fn take_stdout(&self) -> bool {
        self.writes.iter().any(|(_, path, _)| is_stdout(path))
    }

    /// # Errors
    /// The first file that cannot be written, or that is another one, too.
    pub(super) fn check(&self) -> Result<(), Error> {
        let mut seen: Vec<(&str, &Path, Option<PathBuf>)> = Vec::new();
        for (option, path, kind) in &self.writes {
            let wrong = |what: String| Error::Usage(format!("{option} {}: {what}", path.display()));
            // Standard output; two devices may well be the same one.
            let file = if is_stdout(path) {
                None
            } else if *kind == Kind::Folder {
                check_folder(path).map_err(|e| wrong(e.to_string()))?;
                continue;
            } else {
                match target(path).map_err(|e| wrong(e.to_string()))? {
                    Target::File(file) => Some(file),
                    Target::Stream(_) if *kind != Kind::Kept => continue,
                    Target::Stream(_) => return Err(wrong("is no regular file; give one".into())),
                }
            };
            let no_stdout = match kind {
                _ if file.is_some() => None,
                Kind::Kept => Some("cannot be standard output, as it is read again; give a file"),
                Kind::Folder => {
                    Some("cannot be standard output, as several files are written; give a folder")
                }
                Kind::Binary if std::io::stdout().is_terminal() => {
                    Some("standard output is a terminal, which shows no binary file; give a file or a pipe")
                }
                Kind::Binary | Kind::Text => None,
            };
            if let Some(why) = no_stdout {
                return Err(wrong(why.into()));
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
