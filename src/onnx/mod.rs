//! ONNX files.
//!
//! [`import`] reads a model of operator set 9 to 21 into a [`Graph`]: what the wanted outputs do not need is not looked
//! at, shape arithmetic is computed with the symbolic batch N, nodes whose inputs are all known are evaluated, and
//! every node that is left must be one of [`crate::ops::OPS`] with attributes that it supports. All that is wrong with a
//! model is reported at once ([`ImportError::Problems`]). [`export`] writes a graph back.

mod attributes;
mod constant;
mod doubt;
mod export;
mod fold;
mod import;
mod importer;
mod index;
mod node;
mod problem;
mod proto;
mod standin;
mod tensors;

pub use export::{ExportError, Exported, OPSET, export};
pub use problem::{ImportError, MAX_OPSET, MIN_OPSET, Problem, ProblemKind, TensorProblem};

use crate::graph::{Graph, file};
use crate::tensor::Dim;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::Path;

/// ONNX types that have no operator of their own because the import computes them.
pub const FOLDED: &[&str] = &["Constant", "Shape", "Size"];

/// Longest ONNX file: a protobuf message is shorter than 2 GiB.
const MAX_BYTES: u64 = (2 << 30) - 1;

/// What of a model is imported, and under which shapes.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Tensors that become the inputs, in this order, whatever produces them; empty: the model's inputs.
    pub inputs: Vec<String>,
    /// Tensors that become the outputs, in this order; empty: the model's outputs.
    pub outputs: Vec<String>,
    /// Shapes of inputs, in place of what the model declares.
    pub shapes: BTreeMap<String, Vec<Dim>>,
}

/// Reads `NAME=1x3x224x224`; `N` and `2N` are the batch and multiples of it. 0 is a size, as it is in ONNX.
///
/// # Errors
/// What is expected, when the text is something else.
pub fn parse_shape(text: &str) -> Result<(String, Vec<Dim>), String> {
    let wrong = || format!("{text:?} is not NAME=SHAPE with a shape such as 1x3x224x224 or Nx3x224x224");
    let (name, dims) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let dim = |d: &str| match d.strip_suffix('N') {
        Some("") => Some(Dim::Batch(1)),
        Some(k) => k.parse().ok().filter(|k| *k > 0).map(Dim::Batch),
        None => d.parse().ok().map(Dim::Fixed),
    };
    let dims = dims.split('x').filter(|_| !dims.is_empty()).map(dim).collect::<Option<Vec<Dim>>>();
    Ok((name.to_owned(), dims.ok_or_else(wrong)?))
}

/// Imports an ONNX file. External data must lie in its folder.
///
/// # Errors
/// See [`ImportError`].
pub fn import(path: &Path, options: &ImportOptions) -> Result<Graph, ImportError> {
    let io = |error| ImportError::Io { path: path.to_owned(), error };
    let mut opened = open(path).map_err(io)?;
    if is_graph(&mut opened).map_err(io)? {
        return Err(ImportError::Safetensors);
    }
    let len = opened.metadata().map_err(io)?.len();
    if len == 0 {
        return Err(ImportError::Empty);
    }
    if len > MAX_BYTES {
        let what =
            format!("{len} bytes; an ONNX file has at most {MAX_BYTES}, larger weights are external data");
        return Err(io(std::io::Error::new(ErrorKind::InvalidData, what)));
    }
    opened.rewind().map_err(io)?;
    let mut bytes = Vec::new();
    opened.take(len).read_to_end(&mut bytes).map_err(io)?;
    let folder = match path.parent() {
        Some(p) if p.as_os_str().is_empty() => Path::new("."),
        Some(p) => p,
        None => Path::new("."),
    };
    import::import(bytes.into(), &tensors::Folder(Some(folder.to_owned())), options)
}

/// Imports an ONNX model from memory. It must not have external data.
///
/// # Errors
/// See [`ImportError`].
pub fn import_bytes(bytes: Vec<u8>, options: &ImportOptions) -> Result<Graph, ImportError> {
    import::import(bytes.into(), &tensors::Folder(None), options)
}

/// Whether a file looks like a graph file rather than like ONNX.
///
/// # Errors
/// What the system says.
pub fn is_graph_file(path: &Path) -> std::io::Result<bool> {
    is_graph(&mut open(path)?)
}

/// Opens a regular file: to open a pipe would wait for its writer, and a device may never end.
fn open(path: &Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(
            ErrorKind::InvalidInput,
            "is no regular file; give the model's file",
        ));
    }
    File::open(path)
}

fn is_graph(opened: &mut File) -> std::io::Result<bool> {
    let mut head = Vec::new();
    opened.take(9).read_to_end(&mut head)?;
    Ok(file::is_graph_file(&head))
}

/// Reads a model file of either form, told apart by its content: ONNX is imported, a graph file is read as it is.
///
/// # Errors
/// See [`ImportError`]. A graph file takes no options: it was cut when it was imported.
pub fn load_model(path: &Path, options: &ImportOptions) -> Result<Graph, ImportError> {
    let io = |error| ImportError::Io { path: path.to_owned(), error };
    if !is_graph_file(path).map_err(io)? {
        let onnx = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        return import(path, options).map_err(|e| match e {
            ImportError::Decode(what) if !onnx => ImportError::Neither(what),
            e => e,
        });
    }
    let first = options.inputs.first().map(|n| ("--inputs", n));
    let first = first.or(options.outputs.first().map(|n| ("--outputs", n)));
    if let Some((option, name)) = first.or(options.shapes.keys().next().map(|n| ("--shape", n))) {
        let why = "cannot be applied: this is a graph file, cut when it was imported".into();
        return Err(ImportError::Option { option, name: name.clone(), why });
    }
    file::load(path, crate::ops::by_name)
        .map_err(|error| ImportError::GraphFile { path: path.to_owned(), error: Box::new(error) })
}
