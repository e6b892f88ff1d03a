//! Archives of NumPy arrays.

use super::DataError;
use super::npy::{Array, Header, MAX_IN_MEMORY, read_elements};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

type Archive = zip::ZipArchive<BufReader<File>>;

fn open(path: &Path) -> Result<Archive, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, "cannot open", &e))?;
    zip::ZipArchive::new(BufReader::new(file))
        .map_err(|e| DataError::new(path, format!("not an npz archive: {e}")))
}

/// Names of the arrays in an archive, in its order.
///
/// # Errors
/// A file that is not an archive.
pub fn arrays(path: &Path) -> Result<Vec<String>, DataError> {
    let archive = open(path)?;
    let names = archive.file_names_raw().filter_map(|n| std::str::from_utf8(n).ok());
    Ok(names.filter_map(|n| n.strip_suffix(".npy")).map(str::to_owned).collect())
}

impl Array {
    /// Reads one array of an archive into memory.
    ///
    /// # Errors
    /// No such array (the ones there are named), or an entry whose size is not what its shape takes: nothing beyond
    /// the shape's bytes is ever unpacked.
    pub fn open_npz(path: &Path, key: &str) -> Result<Array, DataError> {
        let names = arrays(path)?;
        let mut archive = open(path)?;
        let mut entry = archive.by_name(&format!("{key}.npy")).map_err(|e| {
            let what = match e {
                zip::result::ZipError::FileNotFound => format!("holds no array {key:?}"),
                e => format!("array {key:?}: {e}"),
            };
            DataError::new(path, what).help(format!("it holds {}", names.join(", ")))
        })?;
        let wrong = |what: String| DataError::new(path, format!("array {key:?}: {what}"));
        let declared = entry.size();
        let header = Header::read(&mut entry).map_err(wrong)?;
        let takes = header.data_bytes().and_then(|n| n.checked_add(header.len as u64));
        if takes != Some(declared) || declared > MAX_IN_MEMORY {
            let takes =
                takes.map_or_else(|| "more bytes than can be counted".into(), |n| format!("{n} bytes"));
            return Err(wrong(format!(
                "shape {:?} takes {takes} with its header, the archive declares {declared}, and at most {MAX_IN_MEMORY} are unpacked",
                header.shape
            )));
        }
        let bytes = read_elements(&mut entry, &header, path)?;
        // One byte more than declared is a bomb; at the end, the checksum is verified.
        match entry.read(&mut [0; 1]) {
            Ok(0) => Ok(Array::in_memory(path, header, bytes)),
            Ok(_) => Err(wrong(format!("unpacks to more than the {declared} bytes it declares"))),
            Err(e) => Err(wrong(format!("cannot unpack: {e}"))),
        }
    }
}
