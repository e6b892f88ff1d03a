//! What can be wrong with a model, and the error that lists all of it.

use crate::graph::{GraphError, OpError};
use std::fmt;
use std::path::PathBuf;

/// A model cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A graph file that cannot be read.
    #[error("{}: {error}", path.display())]
    GraphFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: Box<crate::graph::file::FileError>,
    },
    /// The bytes are not an ONNX model.
    #[error("not an ONNX model: {0}")]
    Decode(String),
    /// No bytes at all.
    #[error("is empty: it has 0 bytes; write it again or copy it again")]
    Empty,
    /// Neither ONNX nor a graph file, and not named like either.
    #[error(
        "neither a graph file, whose header it lacks, nor an ONNX model: {0}; it may be damaged or cut off"
    )]
    Neither(String),
    /// A version of the default operator set that is not read.
    #[error("operator set {found} of the default domain; supported: {MIN_OPSET} to {MAX_OPSET}")]
    Opset {
        /// The version, or `none`.
        found: String,
    },
    /// The default operator set in two versions.
    #[error("the default domain is imported as operator set {first} and as {other}; supported: one version")]
    Opsets {
        /// The first version.
        first: i64,
        /// Another one.
        other: i64,
    },
    /// A graph file, or another safetensors file, where an ONNX model belongs.
    #[error("is a safetensors file, as graph files are, not an ONNX model; a graph file needs no import")]
    Safetensors,
    /// A name given to the import that the model does not have.
    #[error("{option}: the model has no tensor {name:?}{}", near_text(near))]
    NoSuchTensor {
        /// Which option named it.
        option: &'static str,
        /// The name.
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A cut or a shape that does not fit the model.
    #[error("{option}: {name:?} {why}")]
    Option {
        /// Which option.
        option: &'static str,
        /// The name it gives.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Several of these, all about versions and options.
    #[error("{} things do not fit:{}", .0.len(), .0.iter().map(|e| format!("\n  {e}")).collect::<String>())]
    Several(Vec<ImportError>),
    /// Everything in the model that is not supported.
    #[error("{}", problems_text(.0))]
    Problems(Vec<Problem>),
    /// The graph broke a rule.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Lowest version of the default operator set that is read.
pub const MIN_OPSET: i64 = 9;
/// Highest version of the default operator set that is read.
pub const MAX_OPSET: i64 = 21;

fn near_text(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = near.iter().map(|n| format!("{n:?}")).collect();
    format!("; near: {}", quoted.join(", "))
}

fn problems_text(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
    let s = if problems.len() == 1 { "" } else { "s" };
    format!("the model has {} problem{s}:\n{}", problems.len(), lines.join("\n"))
}

/// One thing that keeps a model from being imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a node with its operator, a tensor, or the model.
    pub place: String,
    /// What.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.kind)
    }
}

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// An operator that is not supported.
    #[error("operator {operator} (operator set {opset}) is not supported{}", near_text(near))]
    Operator {
        /// `Type`, or `domain:Type`.
        operator: String,
        /// Version of the default operator set.
        opset: i64,
        /// Supported operators like it.
        near: Vec<String>,
    },
    /// An operator that is computed at import where its inputs are known, and here they are not.
    #[error("operator {operator} is supported where its inputs are known at import; {input:?} is not")]
    OnlyFolded {
        /// The operator.
        operator: String,
        /// The input that is computed at run time.
        input: String,
    },
    /// What the operator says.
    #[error(transparent)]
    Op(#[from] OpError),
    /// An attribute that the operator does not know.
    #[error("attribute {name} = {value} is not one that {operator} has")]
    UnknownAttribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// The operator.
        operator: String,
    },
    /// An attribute of a form that no operator takes.
    #[error("attribute {name} is {form}; supported: integers, numbers, texts and tensors")]
    AttributeForm {
        /// Its name.
        name: String,
        /// What it is.
        form: String,
    },
    /// Something about a stored tensor.
    #[error(transparent)]
    Tensor(#[from] TensorProblem),
    /// A dimension that is neither a number nor the batch.
    #[error(
        "dimension {axis} ({dim}) is symbolic; only dimension 0 may be: give all with --shape {name}={example}"
    )]
    SymbolicDim {
        /// The tensor.
        name: String,
        /// Index of the dimension.
        axis: usize,
        /// What the file says.
        dim: String,
        /// A shape to give.
        example: String,
    },
    /// A size that is none, and does not stand for an open one either.
    #[error("dimension {axis} is {value}; supported: sizes from 0 on, and -1 or a name where it is open")]
    NegativeDim {
        /// Index of the dimension.
        axis: usize,
        /// What the file says.
        value: i64,
    },
    /// A shape given for an input that has another one.
    #[error(
        "--shape gives {given}, the model declares {declared}; give what it declares, and sizes for what is open"
    )]
    GivenShape {
        /// The shape that was given.
        given: String,
        /// The model's.
        declared: String,
    },
    /// A tensor whose type the file does not say.
    #[error("its {what} is not stated; supported: tensors with a shape{hint}")]
    NoType {
        /// Shape or element type.
        what: &'static str,
        /// What to do.
        hint: String,
    },
    /// An integer tensor that would have to be known before the batch is.
    #[error("input {input} ({tensor:?}) depends on the batch; supported: shapes, axes and sizes only")]
    DependsOnBatch {
        /// Index of the input.
        input: usize,
        /// Its name.
        tensor: String,
    },
    /// A name that is produced more than once.
    #[error("tensor {0:?} is produced more than once")]
    Duplicate(String),
    /// A name that nothing produces.
    #[error("tensor {0:?} is used but nothing produces it")]
    NoProducer(String),
    /// Nodes that need one another.
    #[error("cycle: {0}")]
    Cycle(String),
    /// A node with subgraphs.
    #[error("{0}")]
    Subgraph(&'static str),
    /// An optional input left out before one that is given.
    #[error("input {0} is left out before an input that is given")]
    Hole(usize),
    /// A number of outputs that the operator does not have.
    #[error("has {got} outputs; supported: {expected}")]
    Outputs {
        /// How many the operator has.
        expected: usize,
        /// How many the node names.
        got: usize,
    },
    /// An output that is another tensor under a second name.
    #[error("is the same tensor as {0:?}")]
    SameTensor(String),
}

/// What is wrong with a tensor that the file holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// An element type that is not supported.
    #[error(
        "tensor {tensor:?} has element type {got}; supported: float, float16, bfloat16, double, int4, uint4, int8, uint8, int16, uint16, int32, int64, bool"
    )]
    ElementType {
        /// The tensor.
        tensor: String,
        /// Its element type.
        got: String,
    },
    /// Dimensions that no tensor can have.
    #[error(
        "tensor {tensor:?} has dimensions {dims:?}; supported: up to 6, none negative, at most 2^31 elements"
    )]
    Dims {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        dims: Vec<i64>,
    },
    /// More or fewer bytes or elements than the dimensions say.
    #[error("tensor {tensor:?} of dimensions {dims:?} needs {expected} {unit}, the file has {got}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        dims: Vec<i64>,
        /// Bytes or elements.
        unit: &'static str,
        /// How many there should be.
        expected: u64,
        /// How many there are.
        got: u64,
    },
    /// A form of storage that is not supported.
    #[error("tensor {tensor:?} is {form}; supported: dense tensors")]
    Form {
        /// The tensor.
        tensor: String,
        /// How it is stored.
        form: &'static str,
    },
    /// Data outside the model file that cannot be had.
    #[error("tensor {tensor:?}: external data {location:?}: {why}")]
    External {
        /// The tensor.
        tensor: String,
        /// The file it names.
        location: String,
        /// What is wrong.
        why: String,
    },
    /// An integer that 32 bits do not hold.
    #[error("tensor {tensor:?} holds {value} at index {index}; supported: {} to {}", i32::MIN, i32::MAX)]
    Range {
        /// The tensor.
        tensor: String,
        /// Index of the element, row-major.
        index: usize,
        /// The element.
        value: i64,
    },
    /// A truth value that is neither 0 nor 1, or an element outside its type.
    #[error("tensor {tensor:?} holds {value} at index {index}, which its element type {dtype} does not have")]
    Element {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: &'static str,
        /// Index of the element, row-major.
        index: usize,
        /// The element.
        value: i64,
    },
}
