//! The graph file: safetensors whose tensors are the constants and whose metadata holds the graph as JSON.
//!
//! Metadata has two entries, `samebit` with the version of the format and `graph` with the JSON.
//!
//! A deployment file, stage `compiled`, is as small as it can be and knows when it was damaged: its JSON is deflated in a
//! tensor `__program__`, codes of 4 bits lie two to a byte, the first in the low half, and in place of `graph` it has
//! entries `compiled` with the version of this form, `memory` with [`Placed`] as JSON and `digest` with a SHA-256 of all
//! else.

use super::json::{self, JsonError};
use super::{Graph, Lookup, Placed, Stage, ValueId};
use crate::atomic::write_atomic;
use crate::digest::Digest;
use crate::tensor::{DType, Tensor, TensorType};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Version of the format, raised when readers of the old one would misread the new one.
pub const VERSION: &str = "1";

/// Version of the form of deployment files, likewise.
pub const COMPILED: &str = "1";

/// The tensor that holds the deflated JSON of a deployment file.
const PROGRAM: &str = "__program__";

/// Bytes of JSON beyond which a deployment file is refused.
const MOST_JSON: u64 = 1 << 28;

/// Bytes of a header beyond which a file is no graph file.
const MOST_HEADER: u64 = 1 << 32;

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
    /// A graph file without its end.
    #[error("the graph file is not whole: {what}, the file has {len} bytes; write it again or copy it again")]
    Cut {
        /// What there should be.
        what: String,
        /// Bytes of it.
        len: usize,
    },
    /// A safetensors file that holds no graph.
    #[error("not a graph file: its metadata has no entry {0:?}")]
    NoEntry(&'static str),
    /// A version of the format that this program does not know.
    #[error("graph file of version {found:?}; supported: {VERSION:?}")]
    Version {
        /// The version.
        found: String,
    },
    /// A form of deployment file that this program does not know.
    #[error("deployment file of version {found:?}; supported: {COMPILED:?}; it takes a newer samebit")]
    Compiled {
        /// The version.
        found: String,
    },
    /// A deployment file that is not what was written.
    #[error("the deployment file is damaged: {what}; compile it again or copy it again")]
    Damaged {
        /// Where that was seen.
        what: &'static str,
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
        while key == "__metadata__" || key == PROGRAM || (key != name && graph.find_value(&key).is_some()) {
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
    tensors: Vec<Part<'a>>,
}

/// A tensor of the file.
struct Part<'a> {
    key: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Part<'a> {
    fn new(key: String, t: &'a Tensor, compiled: bool) -> Part<'a> {
        if compiled && is_half_a_byte(t.dtype()) {
            let low = |b: &u8| b & 0xf;
            let pair = |p: &[u8]| low(&p[0]) | p.get(1).map_or(0, low) << 4;
            let bytes: Vec<u8> = t.bytes().chunks(2).map(pair).collect();
            return Part { key, dtype: Dtype::U8, shape: vec![bytes.len()], bytes: bytes.into() };
        }
        let (dtype, shape) = (stored(t.dtype()), t.shape().to_vec());
        Part { key, dtype, shape, bytes: t.bytes().into() }
    }
}

fn is_half_a_byte(dtype: DType) -> bool {
    matches!(dtype, DType::I4 | DType::U4)
}

/// Codes of 4 bits of which two lay in a byte.
fn unpacked(packed: &[u8], ty: &TensorType) -> Option<Tensor> {
    let shape = ty.dims()?;
    let count: usize = shape.iter().product();
    let widened = |nibble: u8| match ty.dtype {
        DType::I4 => ((nibble << 4).cast_signed() >> 4).cast_unsigned(),
        _ => nibble,
    };
    let bytes: Vec<u8> =
        packed.iter().flat_map(|b| [widened(b & 0xf), widened(b >> 4)]).take(count).collect();
    (packed.len() == count.div_ceil(2)).then(|| Tensor::from_bytes(ty.dtype, &shape, &bytes))?
}

/// A hash of what a deployment file says, apart from the hash itself.
fn digest_of<'a>(
    entries: &BTreeMap<String, String>,
    parts: impl Iterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>,
) -> String {
    let mut digest = Digest::new();
    for (name, text) in entries.iter().filter(|(name, _)| *name != "digest") {
        digest.part(format!("{name} {text}"));
    }
    for (key, dtype, shape, bytes) in parts {
        digest.part(format!("{key} {dtype} {shape:?}"));
        digest.part(bytes);
    }
    digest.finish()
}

impl<'a> Parts<'a> {
    fn of(graph: &'a Graph) -> Result<Parts<'a>, FileError> {
        let keys = keys(graph);
        let compiled = graph.stage == Stage::Compiled;
        let mut tensors: Vec<Part> = keys
            .iter()
            .filter_map(|(id, key)| {
                Some(Part::new(key.clone(), graph.value(*id).constant.as_ref()?, compiled))
            })
            .collect();
        let json = json::write(graph, &keys).map_err(JsonError::from)?;
        let mut entries = BTreeMap::from([("samebit".to_owned(), VERSION.to_owned())]);
        if compiled {
            let mut deflated = ZlibEncoder::new(Vec::new(), Compression::best());
            deflated.write_all(json.as_bytes())?;
            let bytes = deflated.finish()?;
            let (key, dtype, shape) = (PROGRAM.to_owned(), Dtype::U8, vec![bytes.len()]);
            tensors.push(Part { key, dtype, shape, bytes: bytes.into() });
            let memory = serde_json::to_string(&graph.placed.as_deref()).map_err(JsonError::from)?;
            entries.extend([("compiled".to_owned(), COMPILED.to_owned()), ("memory".to_owned(), memory)]);
        } else {
            entries.insert("graph".to_owned(), json);
        }
        // Wide elements first, so that all are aligned.
        tensors.sort_by(|a, b| (b.dtype.bitsize(), &a.key).cmp(&(a.dtype.bitsize(), &b.key)));
        if compiled {
            let mut by_key: Vec<&Part> = tensors.iter().collect();
            by_key.sort_by_key(|p| &p.key);
            let parts = by_key.iter().map(|p| (p.key.as_str(), p.dtype, p.shape.as_slice(), &*p.bytes));
            let digest = digest_of(&entries, parts);
            entries.insert("digest".to_owned(), digest);
        }
        let mut offset = 0;
        let mut infos = Vec::new();
        for Part { key, dtype, shape, bytes } in &tensors {
            let end = offset + bytes.len();
            let info = TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (offset, end) };
            infos.push((key.clone(), info));
            offset = end;
        }
        let entries: HashMap<String, String> = entries.into_iter().collect();
        let metadata = Metadata::new(Some(entries), infos).map_err(FileError::Form)?;
        let mut header = serde_json::to_value(&metadata).map_err(JsonError::from)?;
        // The entries come in the order of a hash map, but one graph is to have one file.
        if let Some(entries) = header.get_mut("__metadata__").and_then(serde_json::Value::as_object_mut) {
            entries.sort_keys();
        }
        let mut header = serde_json::to_vec(&header).map_err(JsonError::from)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(Parts { header, tensors })
    }

    fn write(&self, w: &mut dyn io::Write) -> io::Result<()> {
        w.write_all(&(self.header.len() as u64).to_le_bytes())?;
        w.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|t| w.write_all(&t.bytes))
    }
}

/// Bytes of the constants of a graph as its file has them.
pub fn constant_bytes(graph: &Graph) -> u64 {
    let constants = graph.values().iter().filter_map(|v| v.constant.as_ref());
    let compiled = graph.stage == Stage::Compiled;
    constants.map(|t| Part::new(String::new(), t, compiled).bytes.len() as u64).sum()
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
    if let Some((length, _)) = bytes.split_first_chunk::<8>().filter(|_| is_graph_file(bytes)) {
        let header = u64::from_le_bytes(*length);
        if bytes.len() as u64 - 8 < header {
            let what = format!("its header alone takes {} bytes", header + 8);
            return Err(FileError::Cut { what, len: bytes.len() });
        }
    }
    // The header's length is checked against the bytes, and that the tensors cover the rest exactly.
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| match e {
        SafeTensorError::MetadataIncompleteBuffer => {
            FileError::Cut { what: "its tensors end elsewhere".to_owned(), len: bytes.len() }
        }
        e => FileError::Form(e),
    })?;
    let tensors = SafeTensors::deserialize(bytes).map_err(FileError::Form)?;
    let entries: BTreeMap<String, String> = metadata.metadata().clone().into_iter().flatten().collect();
    let entry = |name: &'static str| entries.get(name).ok_or(FileError::NoEntry(name));
    let version = entry("samebit")?;
    if version != VERSION {
        return Err(FileError::Version { found: version.clone() });
    }
    let mut views = tensors.tensors();
    if let Some((name, v)) = views.iter().find(|(_, v)| !DType::ALL.iter().any(|d| stored(*d) == v.dtype())) {
        let why = format!("element type {:?}; supported: f32, i32, bool, i8, u8, i16, u16", v.dtype());
        return Err(FileError::Tensor { name: name.clone(), why });
    }
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let compiled = entries.get("compiled");
    let (json, placed): (Cow<str>, Option<Placed>) = match compiled {
        None => (entry("graph")?.into(), None),
        Some(version) => {
            if version != COMPILED {
                return Err(FileError::Compiled { found: version.clone() });
            }
            let parts = views.iter().map(|(key, v)| (key.as_str(), v.dtype(), v.shape(), v.data()));
            if *entry("digest")? != digest_of(&entries, parts) {
                return Err(FileError::Damaged { what: "its digest is another" });
            }
            let program = views.iter().position(|(key, _)| key == PROGRAM);
            let program = program.ok_or(FileError::Damaged { what: "it has no program" })?;
            let (_, program) = views.swap_remove(program);
            let mut json = String::new();
            ZlibDecoder::new(program.data())
                .take(MOST_JSON)
                .read_to_string(&mut json)
                .map_err(|_| FileError::Damaged { what: "its program cannot be inflated" })?;
            (json.into(), serde_json::from_str(entry("memory")?).map_err(JsonError::from)?)
        }
    };
    let views: HashMap<String, _> = views.into_iter().collect();
    let mut used = 0;
    let mut wrong = None;
    let mut graph = json::read(&json, ops, &mut |key, ty| {
        let view = views.get(key)?;
        used += 1;
        let t = if compiled.is_some() && is_half_a_byte(ty.dtype) {
            unpacked(view.data(), ty).ok_or_else(|| format!("its bytes are not codes of {ty}"))
        } else {
            tensor(ty.dtype, view.dtype(), view.shape(), view.data())
        };
        t.map_err(|why| wrong = Some(FileError::Tensor { name: key.to_owned(), why })).ok()
    })
    .map_err(FileError::from);
    if let Some(wrong) = wrong {
        graph = Err(wrong);
    }
    let mut graph = graph?;
    if used < views.len() {
        let why = format!("{} tensors, the graph has {used} constants", views.len());
        return Err(FileError::Tensor { name: "all".into(), why });
    }
    if compiled.is_none() && graph.stage == Stage::Compiled {
        return Err(FileError::NoEntry("compiled"));
    }
    graph.placed = placed.map(Arc::new);
    Ok(graph)
}

/// A tensor of a file, of the type that the graph says.
fn tensor(dtype: DType, found: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
    if stored(dtype) != found {
        return Err(format!("element type {found}; the graph has {dtype}"));
    }
    let t = Tensor::from_bytes(dtype, shape, bytes);
    t.ok_or_else(|| format!("{shape:?} {dtype} does not fit its bytes"))
}

/// Whether a file that starts with these bytes is meant to be a graph file, whole or not: no ONNX model has the length of
/// such a header and a brace behind it.
pub fn is_graph_file(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    rest.first() == Some(&b'{') && u64::from_le_bytes(*length) < MOST_HEADER
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
