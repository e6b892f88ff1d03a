//! Archives of NumPy arrays.
//!
//! Nothing is unpacked when an archive is opened. A stored member is read where its rows are; a deflated one can only
//! be unpacked from its start, which goes on as far as the rows that are asked for, into a file without a name that
//! vanishes with the process.

use super::DataError;
use super::array::{Array, Store, write_all_at};
use super::npy::Header;
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use zip::CompressionMethod;

/// Bytes that one byte of a deflate stream can become, at most.
const MAX_RATIO: u64 = 1032;

/// Bytes that are unpacked at a time.
const CHUNK: usize = 1 << 16;

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
    Ok(names(&open(path)?))
}

fn names(archive: &Archive) -> Vec<String> {
    let names = archive.file_names_raw().filter_map(|n| std::str::from_utf8(n).ok());
    names.filter_map(|n| n.strip_suffix(".npy")).map(str::to_owned).collect()
}

/// The name of the only array in an archive.
///
/// # Errors
/// A file that is not an archive, or one that holds several arrays or none.
pub(super) fn only_array(path: &Path) -> Result<String, DataError> {
    let mut names = arrays(path)?;
    match names.pop() {
        Some(name) if names.is_empty() => Ok(name),
        last => {
            let names: Vec<_> = names.into_iter().chain(last).collect();
            Err(DataError::new(path, format!("holds {} arrays: {}", names.len(), names.join(", ")))
                .help("name one: file.npz:key"))
        }
    }
}

impl Array {
    /// Opens one array of an archive and reads its header.
    ///
    /// # Errors
    /// No such array (the ones there are named), or a member whose size is not what its shape takes.
    pub fn open_npz(path: &Path, key: &str) -> Result<Array, DataError> {
        let mut archive = open(path)?;
        let names = names(&archive);
        let entry = archive.by_name(&format!("{key}.npy")).map_err(|e| {
            let what = match e {
                zip::result::ZipError::FileNotFound => format!("holds no array {key:?}"),
                e => format!("array {key:?}: {e}"),
            };
            DataError::new(path, what).help(format!("it holds {}", names.join(", ")))
        })?;
        let wrong = |what: String| DataError::new(path, format!("array {key:?}: {what}"));
        let failed = |e: io::Error| wrong(format!("cannot read: {e}"));
        let (declared, packed, method) = (entry.size(), entry.compressed_size(), entry.compression());
        if entry.encrypted() {
            return Err(wrong("is encrypted".into()));
        }
        let start = entry.data_start().ok_or_else(|| wrong("the archive does not say where it is".into()))?;
        let crc = entry.crc32();
        drop(entry);
        let mut file = File::open(path).map_err(failed)?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let have = file.metadata().map_err(failed)?.len().saturating_sub(start);
        let possible = match method {
            CompressionMethod::Stored => packed,
            CompressionMethod::Deflated => packed.saturating_mul(MAX_RATIO),
            other => return Err(wrong(format!("is packed by {other:?}; supported are stored and deflated"))),
        };
        if packed > have || declared > possible {
            return Err(wrong(format!(
                "{packed} bytes of the archive, of which {have} are there, cannot hold the {declared} it declares"
            ))
            .help("the file is damaged"));
        }
        let check = |header: &Header| {
            let takes = header.data_bytes().and_then(|n| n.checked_add(header.len as u64));
            if takes == Some(declared) {
                return Ok(());
            }
            let takes =
                takes.map_or_else(|| "more bytes than can be counted".into(), |n| format!("{n} bytes"));
            let shape = &header.shape;
            Err(wrong(format!(
                "shape {shape:?} takes {takes} with its header, the archive declares {declared}"
            )))
        };
        if method == CompressionMethod::Stored {
            let header = Header::read(&mut file).map_err(wrong)?;
            check(&header)?;
            let start = start + header.len as u64;
            return Ok(Array::new(path, header, Store::File(file, start), Some(crc)));
        }
        let mut stream = Deflated { inner: DeflateDecoder::new(file.take(packed)), crc: Crc::new() };
        let header = Header::read(&mut stream).map_err(wrong)?;
        check(&header)?;
        let bytes = declared - header.len as u64;
        let member = Inflated::new(stream, bytes, crc, path)?;
        Ok(Array::new(path, header, Store::Inflated(Box::new(member)), Some(crc)))
    }
}

/// A deflated member, as far as it was read.
#[derive(Debug)]
struct Deflated {
    inner: DeflateDecoder<io::Take<File>>,
    crc: Crc,
}

impl Read for Deflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.crc.update(&buffer[..n]);
        Ok(n)
    }
}

impl Deflated {
    /// Checks that nothing follows and that what was read is what was packed.
    fn end(&mut self, crc: u32) -> Result<(), String> {
        match self.read(&mut [0; 1]) {
            Ok(0) if self.crc.sum() == crc => Ok(()),
            Ok(0) => Err("its checksum is wrong: the file is damaged".into()),
            Ok(_) => Err("unpacks to more bytes than it declares".into()),
            Err(e) => Err(format!("cannot unpack: {e}")),
        }
    }
}

/// The elements of a deflated member.
#[derive(Debug)]
pub(super) struct Inflated {
    state: Mutex<State>,
    /// What was unpacked; read at offsets, so that readers do not wait for the one that unpacks.
    spool: File,
    bytes: u64,
    crc: u32,
}

#[derive(Debug)]
struct State {
    stream: Deflated,
    /// Bytes in the spool that may be read.
    done: u64,
    /// Why nothing more can be unpacked.
    failed: Option<String>,
}

impl Inflated {
    fn new(stream: Deflated, bytes: u64, crc: u32, path: &Path) -> Result<Inflated, DataError> {
        let spool = tempfile::tempfile()
            .map_err(|e| DataError::io(path, "cannot make a temporary file to unpack it to", &e))?;
        Ok(Inflated { state: Mutex::new(State { stream, done: 0, failed: None }), spool, bytes, crc })
    }

    /// The file that holds at least the first `end` element bytes.
    pub(super) fn up_to(&self, end: u64) -> Result<&File, String> {
        // A panic leaves `done` behind the spool at most.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.done < end && state.failed.is_none() {
            state.failed = self.unpack(&mut state, end).err();
        }
        // What was unpacked before it failed is good.
        match &state.failed {
            Some(why) if state.done < end => Err(why.clone()),
            _ => Ok(&self.spool),
        }
    }

    fn unpack(&self, state: &mut State, end: u64) -> Result<(), String> {
        let mut buffer = [0; CHUNK];
        while state.done < end {
            let want = usize::try_from(self.bytes - state.done).unwrap_or(CHUNK).min(CHUNK);
            let n = match state.stream.read(&mut buffer[..want]) {
                Ok(0) => return Err(format!("unpacks to less than the {} bytes of its shape", self.bytes)),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("cannot unpack: {e}")),
            };
            write_all_at(&self.spool, &buffer[..n], state.done)
                .map_err(|e| format!("cannot unpack to {}: {e}", std::env::temp_dir().display()))?;
            let done = state.done + n as u64;
            if done == self.bytes {
                // A member that goes on, or is not what was packed, costs its last row whenever that is read.
                state.done = self.bytes - 1;
                state.stream.end(self.crc)?;
            }
            state.done = done;
        }
        Ok(())
    }
}
