//! Files that are there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Links that are followed before they count as a circle, as Linux has it.
const MAX_LINKS: usize = 40;

/// Where what is written to a path ends up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In a regular file, which need not exist yet; links were followed.
    File(PathBuf),
    /// In a device, a pipe or what the process has open: written to as it is, never replaced.
    Stream(PathBuf),
}

/// Follows links to where a write to `path` ends up.
///
/// # Errors
/// A folder, a path whose folder is not there, links in a circle.
pub fn target(path: &Path) -> io::Result<Target> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::IsADirectory, "is a folder"))?;
        let dir = folder(&path).canonicalize().map_err(|e| io::Error::new(e.kind(), no_folder(&path, &e)))?;
        path = dir.join(name);
        // What a process has open looks like links there, but may have no path of its own.
        if cfg!(target_os = "linux") && path.starts_with("/proc") {
            return Ok(Target::Stream(path));
        }
        let found = match std::fs::symlink_metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Target::File(path)),
            found => found?,
        };
        if !found.is_symlink() {
            return match (found.is_file(), found.is_dir()) {
                (true, _) => Ok(Target::File(path)),
                (_, true) => Err(io::Error::new(ErrorKind::IsADirectory, "is a folder")),
                _ => Ok(Target::Stream(path)),
            };
        }
        path = dir.join(std::fs::read_link(&path)?);
    }
    Err(io::Error::other("links that lead in a circle"))
}

/// The folder a path is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn no_folder(path: &Path, e: &io::Error) -> String {
    let dir = folder(path).display();
    match e.kind() {
        ErrorKind::NotFound => format!("there is no folder {dir}"),
        _ => format!("folder {dir}: {e}"),
    }
}

/// Whether a file could be written now; nothing is left behind.
///
/// # Errors
/// Why not.
pub fn check_writable(path: &Path) -> io::Result<()> {
    match target(path)? {
        Target::File(path) => beside(&path).map(drop),
        // To open a pipe would wait for its reader.
        Target::Stream(_) => Ok(()),
    }
}

/// Whether files could be written into a folder, which need not be there yet; nothing is left behind.
///
/// # Errors
/// Why not.
pub fn check_folder(path: &Path) -> io::Result<()> {
    let ancestors = path.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    for place in ancestors {
        return match std::fs::metadata(place) {
            Ok(found) if found.is_dir() => tempfile::Builder::new()
                .prefix(".samebit-")
                .tempfile_in(place)
                .map(drop)
                .map_err(|e| io::Error::new(e.kind(), format!("cannot be written to: {e}"))),
            Ok(_) if place == path => {
                Err(io::Error::new(ErrorKind::NotADirectory, "is a file; give a folder"))
            }
            Ok(_) => {
                let what = format!("{} is a file, no folder", place.display());
                Err(io::Error::new(ErrorKind::NotADirectory, what))
            }
            Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::NotADirectory => continue,
            Err(e) => Err(e),
        };
    }
    Ok(())
}

fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask applies, as for any new file; the crate's default would be private.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(".samebit-").tempfile_in(folder(path))
}

/// Writes a file beside its final place, syncs it and renames it. Links are followed; a device or pipe is written to.
///
/// # Errors
/// What the system or `write` says; the old file, if there was one, is then untouched.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match target(path)? {
        Target::File(path) => {
            let mut out = BufWriter::new(beside(&path)?);
            write(&mut out)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(())
        }
        Target::Stream(path) => {
            // Appending, since what the process has open may be a file that holds something already.
            let file: File = OpenOptions::new().append(true).open(path)?;
            let mut out = BufWriter::new(file);
            match write(&mut out).and_then(|()| out.flush()) {
                // A closed pipe (`| head`) is the reader's choice, not an error.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
                other => other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("x");
        write_atomic(&path, |w| w.write_all(b"old")).expect("writes");
        let failed = write_atomic(&path, |w| {
            w.write_all(b"new")?;
            Err(io::Error::other("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).expect("reads"), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_circles_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| dir.path().canonicalize().expect("is there").join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).expect("links");
        std::fs::create_dir(at("d")).expect("makes a folder");
        link("d/file", "a");
        link("a", "b");
        for _ in 0..2 {
            write_atomic(&at("b"), |w| w.write_all(b"x")).expect("writes");
            assert_eq!(target(&at("b")).expect("leads to a file"), Target::File(at("d/file")));
            assert!(at("a").is_symlink() && at("b").is_symlink());
            assert_eq!(std::fs::read(at("d/file")).expect("reads"), b"x");
        }
        link("round", "round");
        assert!(target(&at("round")).expect_err("a circle").to_string().contains("circle"));
        assert!(check_writable(&at("d")).expect_err("a folder").to_string().contains("is a folder"));
        assert!(check_writable(&at("e/f")).expect_err("no folder").to_string().contains("no folder"));
        check_writable(&at("f")).expect("may be written");
        assert!(!at("f").exists());
    }
}
