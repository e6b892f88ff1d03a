//! The graph file: safetensors whose tensors are the constants and whose metadata holds the graph as JSON.
//!
//! Metadata has two entries, `samebit` with the version of the format and `graph` with the JSON.

use super::json::{self, JsonError};
use super::{Graph, Lookup, ValueId};
use crate::atomic::write_atomic;
use crate::digest::Digest;
use crate::tensor::{DType, Tensor};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

/// Version of the format, raised when readers of the old one would misread the new one.
pub const VERSION: &str = "1";

/// A graph file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a safetensors file.
    #[error("not a graph file: {0}")]
    Form(SafeTensorError),
    /// A safetensors file that holds no graph.
    #[error("not a graph file: its metadata has no entry {0:?}")]
    NoEntry(&'static str),
    /// A version of the format that this program does not know.
    #[error("graph file of version {found:?}; supported: {VERSION:?}")]
    Version {
        /// The version.
        found: String,
    },
    /// A tensor that is not one of ours.
    #[error("tensor {name:?}: {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The graph is wrong.
    #[error(transparent)]
    Json(#[from] JsonError),
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::I32 => Dtype::I32,
        DType::Bool => Dtype::BOOL,
        DType::I8 | DType::I4 => Dtype::I8,
        DType::U8 | DType::U4 => Dtype::U8,
        DType::I16 => Dtype::I16,
        DType::U16 => Dtype::U16,
    }
}

/// Name of each constant's tensor in the file: the value's name, unless that is the format's own.
fn keys(graph: &Graph) -> BTreeMap<ValueId, String> {
    let constants = (0u32..).zip(graph.values()).filter(|(_, v)| v.constant.is_some());
    let key = |name: &str| {
        let mut key = name.to_owned();
        while key == "__metadata__" || (key != name && graph.find_value(&key).is_some()) {
            key.push('_');
        }
        key
    };
    constants.map(|(i, v)| (ValueId(i), key(&v.name))).collect()
}

/// Writes a graph into a file, which is there whole or not at all.
///
/// # Errors
/// What the system says.
pub fn save(graph: &Graph, path: &Path) -> Result<(), FileError> {
    let parts = Parts::of(graph)?;
    Ok(write_atomic(path, |w| parts.write(w))?)
}

/// Writes a graph as [`save`] does, to where it cannot be taken back.
///
/// # Errors
/// What the system says.
pub fn write(graph: &Graph, to: &mut dyn io::Write) -> Result<(), FileError> {
    Ok(Parts::of(graph)?.write(to)?)
}

/// What a graph file consists of.
struct Parts<'a> {
    header: Vec<u8>,
    tensors: Vec<&'a Tensor>,
}

impl<'a> Parts<'a> {
    fn of(graph: &'a Graph) -> Result<Parts<'a>, FileError> {
        let keys = keys(graph);
        let mut tensors: Vec<(&String, &Tensor)> =
            keys.iter().filter_map(|(id, key)| Some((key, graph.value(*id).constant.as_ref()?))).collect();
        // Wide elements first, so that all are aligned.
        tensors.sort_by_key(|(key, t)| (std::cmp::Reverse(t.dtype().size_bytes()), *key));
        let mut offset = 0;
        let mut infos = Vec::new();
        for (key, t) in &tensors {
            let end = offset + t.bytes().len();
            let (dtype, shape) = (stored(t.dtype()), t.shape().to_vec());
            infos.push(((*key).clone(), TensorInfo { dtype, shape, data_offsets: (offset, end) }));
            offset = end;
        }
        let json = json::write(graph, &keys).map_err(JsonError::from)?;
        let entries = [("samebit", VERSION.to_owned()), ("graph", json)];
        let entries: HashMap<String, String> = entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let metadata = Metadata::new(Some(entries), infos).map_err(FileError::Form)?;
        let mut header = serde_json::to_value(&metadata).map_err(JsonError::from)?;
        // The entries come in the order of a hash map, but one graph is to have one file.
        if let Some(entries) = header.get_mut("__metadata__").and_then(serde_json::Value::as_object_mut) {
            entries.sort_keys();
        }
        let mut header = serde_json::to_vec(&header).map_err(JsonError::from)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(Parts { header, tensors: tensors.into_iter().map(|(_, t)| t).collect() })
    }

    fn write(&self, w: &mut dyn io::Write) -> io::Result<()> {
        w.write_all(&(self.header.len() as u64).to_le_bytes())?;
        w.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|t| w.write_all(t.bytes()))
    }
}

/// A hash of a graph: its nodes, its outside and its constants, wherever it was read from.
///
/// # Errors
/// A graph that cannot be written.
pub fn digest(graph: &Graph) -> Result<String, FileError> {
    let keys = keys(graph);
    let mut digest = Digest::new();
    digest.part(json::write(graph, &keys).map_err(JsonError::from)?);
    for (id, key) in &keys {
        if let Some(t) = &graph.value(*id).constant {
            digest.part(format!("{key} {}", t.ty()));
            digest.part(t.bytes());
        }
    }
    Ok(digest.finish())
}

/// Reads a graph file, verified.
///
/// # Errors
/// See [`FileError`].
pub fn load(path: &Path, ops: Lookup) -> Result<Graph, FileError> {
    from_bytes(&map(path)?, ops)
}

/// Reads the bytes of a graph file.
///
/// # Errors
/// See [`FileError`].
pub fn from_bytes(bytes: &[u8], ops: Lookup) -> Result<Graph, FileError> {
    // The header's length is checked against the bytes, and that the tensors cover the rest exactly.
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(FileError::Form)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(FileError::Form)?;
    let entry = |name: &'static str| {
        metadata.metadata().as_ref().and_then(|m| m.get(name)).ok_or(FileError::NoEntry(name))
    };
    let version = entry("samebit")?;
    if version != VERSION {
        return Err(FileError::Version { found: version.clone() });
    }
    let mut constants = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let fail = |why: String| FileError::Tensor { name: name.clone(), why };
        let dtype = DType::ALL.into_iter().find(|d| stored(*d) == view.dtype());
        let dtype = dtype.ok_or_else(|| {
            fail(format!("element type {:?}; supported: f32, i32, bool, i8, u8", view.dtype()))
        })?;
        let t = Tensor::from_bytes(dtype, view.shape(), view.data());
        let t = t.ok_or_else(|| fail(format!("{:?} {dtype} does not fit its bytes", view.shape())))?;
        constants.insert(name, t);
    }
    let mut used = 0;
    let graph = json::read(entry("graph")?, ops, &mut |key| {
        let t = constants.get(key).cloned();
        used += usize::from(t.is_some());
        t
    })?;
    if used < constants.len() {
        let why = format!("{} tensors, the graph has {used} constants", constants.len());
        return Err(FileError::Tensor { name: "all".into(), why });
    }
    Ok(graph)
}

/// Whether a file that starts with these bytes, and is this long, can be a graph file.
pub fn is_graph_file(head: &[u8], len: u64) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    let header = u64::from_le_bytes(*length);
    rest.first() == Some(&b'{') && header.checked_add(8).is_some_and(|end| end <= len)
}

/// A file's bytes without reading all of it at once.
fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
    }
    #[allow(
        unsafe_code,
        reason = "memory mapping is what lets a file of gigabytes load without a second copy"
    )]
    // SAFETY: nobody may truncate or change the file while it is read, as with every mapped file; we replace graph
    // files by renaming, which leaves the mapped one as it was. The bytes are copied before this module returns.
    unsafe {
        Mmap::map(&file)
    }
}
