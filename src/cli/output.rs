//! Results that go to a file, or for `-` to standard output.

use crate::error::{Error, write_file};
use crate::graph::Graph;
use crate::graph::file::{self, FileError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Whether a path stands for standard output.
pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// A path as messages name it.
pub(super) fn shown(path: &Path) -> PathBuf {
    if is_stdout(path) { "standard output".into() } else { path.to_owned() }
}

/// Writes bytes.
pub(super) fn save_bytes(bytes: &[u8], path: &Path) -> Result<(), Error> {
    if !is_stdout(path) {
        return write_file(path, bytes);
    }
    let wrong = |source| Error::Io { path: shown(path), source };
    to_stdout(|out| out.write_all(bytes)).map_err(wrong)
}

/// Writes a graph file.
pub(super) fn save_graph(graph: &Graph, path: &Path) -> Result<(), Error> {
    let saved = if is_stdout(path) {
        let mut refused = None;
        let written = to_stdout(|out| match file::write(graph, out) {
            Err(FileError::Io(e)) => Err(e),
            other => {
                refused = other.err();
                Ok(())
            }
        });
        refused.map_or(written.map_err(FileError::Io), Err)
    } else {
        file::save(graph, path)
    };
    saved.map_err(|source| Error::Save { path: shown(path), source: Box::new(source) })
}

/// Writes to standard output. A closed pipe (`| head`) is the reader's choice, not an error.
fn to_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
