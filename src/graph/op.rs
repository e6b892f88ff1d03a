//! The one definition of an operator, which import, verification, both executors, printing and tests consume.

use super::Value;
use super::attrs::{Attrs, Reader};
use super::codes::{CodeOutput, CodeParams};
use super::lower::{Io, Kernel, Layouts, Lowering};
use super::sample::{Rng, Sample};
use super::scratch::Scratch;
use crate::quant::{QParams, Quantizer};
use crate::tensor::{DType, Tensor, TensorType};
use std::fmt::Debug;
use std::sync::Arc;

/// How an operator is made from what a node says.
pub type ReadFn = fn(&mut Reader) -> Result<Arc<dyn Op>, OpError>;

/// Finds an operator by our name of it: what readers of files and text are given.
pub type Lookup = fn(&str) -> Option<&'static OpDef>;

/// What is known of an operator before it has attributes.
#[derive(Debug)]
pub struct OpDef {
    /// Its name in graph files, text and logs.
    pub name: &'static str,
    /// ONNX operator types that it reads, in the default domain unless written `domain:type`.
    pub onnx: &'static [&'static str],
    /// Reads it. Types of the inputs have been checked for existence only. Attributes are read, and judged by
    /// themselves, before an input is asked for: a node is judged also where what feeds it is not known.
    pub read: ReadFn,
    /// Every kernel that [`Op::lower`] may name.
    pub kernels: &'static [&'static Kernel],
    /// Problems of odd sizes for parity tests and benches.
    pub samples: fn(&mut Rng) -> Vec<Sample>,
}

/// An operator with its attributes: a small immutable value.
pub trait Op: Debug + Send + Sync {
    /// Its definition.
    fn def(&self) -> &'static OpDef;

    /// Its attributes, complete: [`OpDef::read`] from them gives an equal operator.
    fn attrs(&self) -> Attrs;

    /// Types of the outputs. Called with symbolic and with concrete types; must refuse whatever `eval` could not do.
    /// An output that keeps a symbolic axis must keep frames apart: where a frame's elements would depend on other
    /// frames, or on its place among them, refuse with [`OpError::SymbolicDim`]. Runs are split over the batch.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError>;

    /// Whether what it says of its inputs holds of those that are constant. Asked once, when a graph comes from a file:
    /// executors rely on it.
    ///
    /// # Errors
    /// What does not hold.
    fn check_constants(&self, _inputs: &[&Value]) -> Result<(), OpError> {
        Ok(())
    }

    /// The meaning, on the CPU. Inputs have types that `infer` accepted. Each output element's float
    /// reduction order depends on attributes and shapes other than the batch only.
    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError>;

    /// The memory layouts in which the kernels take inputs and leave outputs.
    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Linear
    }

    /// The dispatches that compute it on a device. Shapes are concrete.
    fn lower(&self, io: &Io) -> Result<Lowering, OpError>;

    /// How passes that quantize treat it.
    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Float
    }

    /// The meaning on codes, as [`Op::eval`] is the meaning on numbers: codes of the inputs to codes of its one output, by
    /// integers alone but for tables. `None` where it has no integer form. Kernels on codes, the simulation of the integer
    /// model and the CPU's integer model must equal it.
    ///
    /// # Errors
    /// Parameters that it cannot compute with.
    fn integer(
        &self,
        _cx: &Scratch,
        _params: &CodeParams,
        _inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        Ok(None)
    }

    /// As [`Op::layouts`], for [`Op::lower_integer`].
    fn integer_layouts(&self, _params: &CodeParams, _inputs: &[TensorType]) -> Layouts {
        Layouts::Linear
    }

    /// The dispatches that compute [`Op::integer`] on a device; `None` where there are none.
    ///
    /// # Errors
    /// As [`Op::lower`].
    fn lower_integer(&self, _params: &CodeParams, _io: &Io) -> Result<Option<Lowering>, OpError> {
        Ok(None)
    }

    /// A function of one number in f64, for the entries of tables; `None` for every other operator.
    fn exact(&self, _x: f64) -> Option<f64> {
        None
    }

    /// What it is on codes, for an operator on codes.
    fn integer_of(&self) -> Option<(&Arc<dyn Op>, &CodeParams)> {
        None
    }

    /// What the codes of an input stand for, for an operator that knows.
    fn takes(&self, input: usize) -> Option<&QParams> {
        self.integer_of()?.1.inputs.get(input)?.as_ref()
    }

    /// Whether it has an integer form.
    fn has_integer_form(&self) -> bool {
        false
    }

    /// What its one output is, for an operator that makes codes.
    fn codes(&self) -> Option<CodeOutput> {
        None
    }

    /// What its integer form computes inside and quantizes there, for a composite operator.
    fn internals(&self, _inputs: &[TensorType]) -> Result<Internals, OpError> {
        Ok(Internals::default())
    }
}

/// The tensors inside the integer form of a composite operator that have quantizers of their own, and how they follow
/// from its inputs and outputs. Passes put this beside the operator, so that the tensors can be observed.
#[derive(Debug, Default)]
pub struct Internals {
    /// Operators in order, with what they take.
    pub steps: Vec<(Arc<dyn Op>, Vec<Part>)>,
    /// What is quantized.
    pub taps: Vec<Tap>,
}

/// A tensor within [`Internals`].
#[derive(Clone, Debug)]
pub enum Part {
    /// An input of the composite operator.
    Input(usize),
    /// An output of it.
    Output(usize),
    /// An output of a step.
    Step(usize, usize),
    /// A constant.
    Constant(Tensor),
}

/// A quantized tensor inside a composite operator.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Its name within the operator.
    pub name: &'static str,
    /// The tensor.
    pub of: Part,
    /// Type of the codes.
    pub dtype: DType,
    /// Where mathematics keeps it between 0 and this number: its scale is fixed then, and codes end just below.
    pub bound: Option<f32>,
}

/// How quantization treats an operator.
#[derive(Clone, Copy, Debug)]
pub enum QuantRule<'a> {
    /// It runs in f32.
    Float,
    /// Sums of products of inputs 0 and 1; input 2, if any, is added in the accumulator.
    Gemm {
        /// The axis of input 1 along which output channels lie, where that is a constant; -1 is the last one.
        channel_axis: i64,
    },
    /// A clamp of its input between two numbers, which may end the group of the operator before it. NaN stays; where the
    /// bounds cross, the upper one wins.
    Clamp {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Codes of input 0 pass through, with their parameters.
    Codes,
    /// Inputs and outputs are codes, each with parameters of its own.
    Compute,
    /// The same of one input whose codes are summed: where no quantizer follows, numbers come of the sums.
    Mean,
    /// It is a quantizer.
    Quantizer(&'a Quantizer),
    /// Numbers into codes by scales and zero points that are inputs 1 and 2. Kept by import on constants, too, so that
    /// a pass can make a quantizer of it; in f32 to other passes.
    Quantize(Grain),
    /// Codes into numbers, likewise.
    Dequantize(Grain),
}

impl QuantRule<'_> {
    /// The axis of the weights of a product that its sums do not run over. A vector has none: a product with it is summed
    /// over its one axis.
    pub fn channel_axis(&self, rank: usize) -> Option<usize> {
        match self {
            QuantRule::Gemm { channel_axis } if rank > 1 => super::attrs::normalize_axis(*channel_axis, rank),
            _ => None,
        }
    }

    /// Whether it computes with integers on codes with parameters of their own.
    pub fn computes(&self) -> bool {
        matches!(self, QuantRule::Gemm { .. } | QuantRule::Compute | QuantRule::Mean)
    }

    /// Whether it runs in f32 when others are quantized.
    pub fn is_float(&self) -> bool {
        matches!(self, QuantRule::Float | QuantRule::Quantize(_) | QuantRule::Dequantize(_))
    }
}

/// Along which axis scales that are inputs of an operator lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// The axis, where there are several scales; -1 is the last one.
    pub axis: i64,
    /// How many neighbours along the axis share a scale where scales have the rank of the tensor; 0 where they do not.
    pub block: usize,
}

/// What is wrong with one operator, in numbers. Whoever calls adds the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// Wrong number of inputs.
    #[error("takes {expected} inputs, got {got}")]
    Arity {
        /// How many it takes.
        expected: &'static str,
        /// How many there are.
        got: usize,
    },
    /// A required input is not there.
    #[error("input {input} is missing")]
    MissingInput {
        /// Its index.
        input: usize,
    },
    /// Nothing is known of an input, because of a problem reported elsewhere.
    #[error("input {input} is not known")]
    UnknownInput {
        /// Its index.
        input: usize,
    },
    /// Wrong element type.
    #[error("input {input} must be {expected}, is {got}")]
    DType {
        /// Index of the input.
        input: usize,
        /// What is supported.
        expected: &'static str,
        /// What it is.
        got: DType,
    },
    /// Element types that do not go together.
    #[error("input 0 is {first} and input {input} is {got}; supported: {supported}")]
    DTypes {
        /// What input 0 is.
        first: DType,
        /// Index of the other input.
        input: usize,
        /// What that is.
        got: DType,
        /// What is supported.
        supported: &'static str,
    },
    /// Wrong rank.
    #[error("input {input} must have rank {expected}, has {got}")]
    Rank {
        /// Index of the input.
        input: usize,
        /// What is supported.
        expected: &'static str,
        /// What it has.
        got: usize,
    },
    /// A shape that does not fit the others.
    #[error("input {input} must have shape {expected}, has {got}")]
    Shape {
        /// Index of the input.
        input: usize,
        /// What would fit.
        expected: String,
        /// What it is.
        got: String,
    },
    /// An attribute's value is not supported.
    #[error("attribute {name} = {value}; supported: {supported}")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What is supported.
        supported: String,
    },
    /// An axis outside the rank.
    #[error("axis {axis} is outside a tensor of rank {rank}")]
    Axis {
        /// The axis as given.
        axis: i64,
        /// Rank of the tensor.
        rank: usize,
    },
    /// An input that must be known before running is not.
    #[error("input {input} ({what}) must be a constant")]
    NotConstant {
        /// Its index.
        input: usize,
        /// What it says.
        what: String,
    },
    /// A dimension that must be a number depends on the batch.
    #[error("dimension {axis} of input {input} must not depend on the batch")]
    SymbolicDim {
        /// Index of the input.
        input: usize,
        /// Index of the dimension.
        axis: usize,
    },
    /// An output would be larger than any device can index.
    #[error("output {shape} has more than 2^31 elements or more than 6 axes")]
    TooLarge {
        /// Its shape.
        shape: String,
    },
    /// A runtime index outside its axis.
    #[error("index {index} is outside an axis of {len}")]
    Index {
        /// The index.
        index: i64,
        /// Length of the axis.
        len: usize,
    },
    /// Parameters that an integer form cannot compute with.
    #[error("{what} {index} needs one scale and one zero point")]
    Parameters {
        /// What they are of.
        what: &'static str,
        /// Its index.
        index: usize,
    },
    /// What a target's arithmetic cannot do.
    #[error("{message}")]
    Arithmetic {
        /// What it cannot.
        message: String,
    },
    /// The operator runs on the CPU only.
    #[error("has no device kernel: {reason}")]
    NoKernel {
        /// Why.
        reason: &'static str,
    },
}

impl OpError {
    /// A shape error from anything printable.
    pub fn shape(input: usize, expected: impl Into<String>, got: &TensorType) -> OpError {
        OpError::Shape { input, expected: expected.into(), got: got.to_string() }
    }
}

/// Checks used by most `infer`s.
pub mod check {
    use super::OpError;
    use crate::tensor::{DType, MAX_RANK, TensorType, element_count};

    /// Between `min` and `max` inputs.
    pub fn arity(
        inputs: &[TensorType],
        min: usize,
        max: usize,
        expected: &'static str,
    ) -> Result<(), OpError> {
        if (min..=max).contains(&inputs.len()) {
            return Ok(());
        }
        Err(OpError::Arity { expected, got: inputs.len() })
    }

    /// Input `i` is of type f32.
    pub fn f32(inputs: &[TensorType], i: usize) -> Result<(), OpError> {
        dtype(inputs, i, DType::F32, "f32")
    }

    /// Input `i` is of type `want`.
    pub fn dtype(
        inputs: &[TensorType],
        i: usize,
        want: DType,
        expected: &'static str,
    ) -> Result<(), OpError> {
        match inputs.get(i) {
            None => Err(OpError::MissingInput { input: i }),
            Some(t) if t.dtype == want => Ok(()),
            Some(t) => Err(OpError::DType { input: i, expected, got: t.dtype }),
        }
    }

    /// Dimension `axis` of input `i` as a number.
    pub fn fixed(inputs: &[TensorType], i: usize, axis: usize) -> Result<usize, OpError> {
        inputs[i].shape[axis].fixed().ok_or(OpError::SymbolicDim { input: i, axis })
    }

    /// At most 6 axes and, with N = 1, 2^31 elements: what every output must keep to that can be larger than the inputs.
    pub fn size(ty: &TensorType) -> Result<(), OpError> {
        let dims: Option<Vec<usize>> = ty.shape.iter().map(|d| d.at(1)).collect();
        let fits = ty.rank() <= MAX_RANK && dims.is_some_and(|d| element_count(&d).is_some());
        if fits { Ok(()) } else { Err(OpError::TooLarge { shape: ty.to_string() }) }
    }

    /// The axes along which elements of input `i` meet do not depend on the batch: frames stay apart.
    pub fn frames_apart(
        inputs: &[TensorType],
        i: usize,
        axes: impl IntoIterator<Item = usize>,
    ) -> Result<(), OpError> {
        axes.into_iter().try_for_each(|axis| fixed(inputs, i, axis).map(drop))
    }

    /// All dimensions of input `i` as numbers.
    pub fn dims(inputs: &[TensorType], i: usize) -> Result<Vec<usize>, OpError> {
        (0..inputs[i].rank()).map(|a| fixed(inputs, i, a)).collect()
    }
}
