//! What a device is asked to do, as plain data: kernels, memory layouts, dispatches. Nothing here knows a GPU API.

use super::epilogue::{Epilogue, EpilogueParams};
use super::op::OpError;
use crate::tensor::{DType, Dim, TensorType};

/// A compute kernel: WGSL files concatenated in this order, the one with `main` last.
#[derive(Debug)]
pub struct Kernel {
    /// Stem of the file with `main`, or a name made from the stems where one `main` is linked with different functions.
    pub name: &'static str,
    /// File names relative to `shaders/`, and texts.
    pub sources: &'static [(&'static str, &'static str)],
    /// Fields of its `Params` uniform with their byte offsets, from the Rust struct; a test compares them with the WGSL.
    pub params: &'static [(&'static str, usize)],
}

impl Kernel {
    /// Where its `Params` hold an [`Epilogue`], if it can apply one.
    pub fn epilogue_offset(&self) -> Option<usize> {
        self.field("epilogue")
    }

    /// Where its `Params` hold the counter of the quantizer that it applies (`shared/nan_count.wgsl`), if it can apply one.
    pub fn slot_offset(&self) -> Option<usize> {
        self.field("slot").or_else(|| Some(self.epilogue_offset()? + EpilogueParams::SLOT))
    }

    fn field(&self, name: &str) -> Option<usize> {
        self.params.iter().find(|(n, _)| *n == name).map(|(_, offset)| *offset)
    }
}

/// A [`Kernel`] from files under `shaders/`: `kernel!("relu", Params, ["shared/grid.wgsl", "unary.wgsl"])`.
#[macro_export]
#[doc(hidden)]
macro_rules! kernel {
    ($name:expr, $params:ty, [$($file:literal),+ $(,)?]) => {
        $crate::graph::lower::Kernel {
            name: $name,
            sources: &[$(($file, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file)))),+],
            params: <$params>::FIELDS,
        }
    };
}

/// Declares a kernel's `Params` struct as WGSL sees it, with the list of its fields.
/// Sizes per axis are `[u32; 8]`, in WGSL `array<vec4<u32>, 2>`, at offsets that are multiples of 16.
#[macro_export]
#[doc(hidden)]
macro_rules! params {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name { $($(#[$fmeta])* $vis $field: $ty),+ }
        impl $name {
            $vis const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field))),+];
        }
    };
}

/// How the elements of a tensor lie in memory. Axes and shapes are always logical; padding lanes hold zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row-major in logical order.
    Linear,
    /// `[n, c, spatial..]` as `[n, spatial.., c padded to 4]`. Rank at least 3.
    ChannelsLast,
    /// Convolution weights `[o, i, k..]` as `[k.., i padded to 4, o padded to 4]`.
    ConvWeights,
    /// Depthwise weights `[c, 1, k..]` as `[k.., c padded to 4]`.
    DepthwiseWeights,
    /// Transposed-convolution weights `[i, o, k..]` as `[k.., i padded to 4, o padded to 4]`.
    ConvTransposeWeights,
    /// A vector `[c]` padded to 4.
    Vector4,
    /// [`Layout::ChannelsLast`] of codes of at most 8 bits, the four channels of a group in the bytes of one word.
    PackedChannelsLast,
    /// [`Layout::ConvWeights`] of such codes, each word four input channels of one output channel: words
    /// `[k.., i / 4, o padded to 4]`.
    PackedConvWeights,
    /// [`Layout::DepthwiseWeights`] of such codes, each word four channels.
    PackedDepthwiseWeights,
    /// Row-major with the last axis padded to 4, such codes, each word four of that axis.
    PackedRows,
    /// Row-major with the last two axes padded to 4, such codes, each word four of the last axis but one.
    PackedColumns,
}

/// Where a logical tensor's elements lie: `order` lists the logical axes from slowest to fastest, `dims` their
/// lengths with padding, `strides[axis]` the step of a *logical* axis in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Physical {
    /// Logical axes from slowest to fastest.
    pub order: Vec<usize>,
    /// Padded length of each entry of `order`.
    pub dims: Vec<usize>,
    /// Step of each logical axis in elements.
    pub strides: Vec<usize>,
}

impl Physical {
    /// Elements with padding.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Layout {
    /// Channels-last for tensors of this type: packed where a code fits a byte.
    pub fn channels_last(dtype: DType) -> Layout {
        match dtype {
            DType::I4 | DType::U4 | DType::I8 | DType::U8 => Layout::PackedChannelsLast,
            _ => Layout::ChannelsLast,
        }
    }

    /// Whether it is channels-last, packed or not.
    pub fn is_channels_last(self) -> bool {
        self.loose() == Layout::ChannelsLast
    }

    /// Of a layout that has a counterpart of the same places with an element in each word, that one.
    pub fn loose(self) -> Layout {
        match self {
            Layout::PackedChannelsLast => Layout::ChannelsLast,
            Layout::PackedConvWeights => Layout::ConvWeights,
            Layout::PackedDepthwiseWeights => Layout::DepthwiseWeights,
            other => other,
        }
    }

    /// Where four elements share a word: how many axes of [`Physical::order`] come after the one along which they lie.
    pub fn packed(self) -> Option<usize> {
        match self {
            Layout::PackedChannelsLast | Layout::PackedDepthwiseWeights | Layout::PackedRows => Some(0),
            Layout::PackedConvWeights | Layout::PackedColumns => Some(1),
            _ => None,
        }
    }

    /// Places a tensor of this shape. Where elements share words these are places that they would have in words of their own.
    pub fn place(self, shape: &[usize]) -> Physical {
        let rank = shape.len();
        // Axes padded to 4 are always the last ones of `order`.
        let (order, padded): (Vec<usize>, usize) = match self.loose() {
            Layout::Linear => ((0..rank).collect(), 0),
            Layout::ChannelsLast => (std::iter::once(0).chain(2..rank).chain([1]).collect(), 1),
            Layout::ConvWeights => ((2..rank).chain([1, 0]).collect(), 2),
            Layout::DepthwiseWeights => ((2..rank).chain([1, 0]).collect(), 1),
            Layout::ConvTransposeWeights => ((2..rank).chain([0, 1]).collect(), 2),
            Layout::PackedColumns => ((0..rank).collect(), 2),
            _ => ((0..rank).collect(), 1),
        };
        let dims: Vec<usize> = order
            .iter()
            .enumerate()
            .map(|(i, &axis)| if i + padded >= rank { shape[axis].next_multiple_of(4) } else { shape[axis] })
            .collect();
        let mut strides = vec![0; rank];
        let mut step = 1;
        for (i, &axis) in order.iter().enumerate().rev() {
            strides[axis] = step;
            step *= dims[i];
        }
        Physical { order, dims, strides }
    }
}

/// A tensor as a kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Element type. On the device `Bool`, `I8` and `U8` take one 32-bit word an element, too, unless the layout packs them.
    pub dtype: DType,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// Memory layout.
    pub layout: Layout,
}

impl View {
    /// Where its elements lie.
    pub fn place(&self) -> Physical {
        self.layout.place(&self.shape)
    }

    /// Lengths of the logical axes in words, with padding, where elements share words.
    pub fn words(&self) -> Vec<usize> {
        let place = self.place();
        let mut shape = self.shape.clone();
        for (axis, len) in place.order.iter().zip(&place.dims) {
            shape[*axis] = *len;
        }
        if let Some(lane) = self.layout.packed().and_then(|behind| place.order.iter().rev().nth(behind)) {
            shape[*lane] /= 4;
        }
        shape
    }

    /// Elements without padding.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the device, padding included.
    pub fn size_bytes(&self) -> u64 {
        self.place().len() as u64 * if self.layout.packed().is_some() { 1 } else { 4 }
    }

    /// How codes of it lie (`shared/codes.wgsl`): a word each, or four to a word without a sign or with one.
    pub fn form(&self) -> u32 {
        match (self.layout.packed(), self.dtype) {
            (None, _) => 0,
            (Some(_), DType::U4 | DType::U8) => 1,
            (Some(_), _) => 2,
        }
    }

    /// Groups of four lanes, and how kernels that take any layout see them (`shared/lanes.wgsl`): as rows of so many
    /// elements, each in so many groups. A row is a pixel of a channels-last tensor, or all of a linear one.
    pub fn groups(&self) -> [u32; 3] {
        let lanes = self.place().len();
        let row = if self.layout.is_channels_last() { self.shape[1] } else { lanes };
        [u32(lanes.div_ceil(4)), u32(row), u32(row.div_ceil(4))]
    }

    /// Type with fixed dimensions.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.shape.iter().map(|d| Dim::Fixed(*d)))
    }
}

/// Which layouts an operator's kernels take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layouts {
    /// Everything linear.
    Linear,
    /// All inputs and outputs in one layout, [`Layout::Linear`] or [`Layout::ChannelsLast`], whichever needs fewer
    /// copies. Inputs of a lower rank than the output come with 1s in front.
    Any,
    /// The same for kernels that take packed codes: what is channels-last is as [`Layout::channels_last`] says of its type.
    AnyPacked,
    /// Exactly these.
    Exact {
        /// One an input.
        inputs: Vec<Layout>,
        /// One an output.
        outputs: Vec<Layout>,
    },
}

/// Inputs and outputs of the operator being lowered.
#[derive(Clone, Debug)]
pub struct Io {
    /// Inputs in operator order.
    pub inputs: Vec<View>,
    /// Outputs in operator order.
    pub outputs: Vec<View>,
}

/// What a dispatch binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Input of the operator.
    Input(usize),
    /// Output of the operator.
    Output(usize),
    /// Scratch memory of `Lowering::Run::temps`.
    Temp(usize),
    /// Words of `Lowering::Run::tables`, read only.
    Table(usize),
}

/// One run of a kernel. Bindings: `params` at 0, then `bind` in order.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What runs.
    pub kernel: &'static Kernel,
    /// Values of `override` constants.
    pub overrides: Vec<(&'static str, u32)>,
    /// Bytes of the `Params` uniform.
    pub params: Vec<u8>,
    /// Storage bindings from 1 on.
    pub bind: Vec<Operand>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// What is done to elements before they are stored; something only for a kernel with a field `epilogue` in `Params`.
    pub epilogue: Epilogue,
    /// Counter of the NaN that the quantizer is given which it applies.
    pub slot: Option<u32>,
}

impl Dispatch {
    /// A dispatch without overrides.
    pub fn new(
        kernel: &'static Kernel,
        params: &impl bytemuck::NoUninit,
        bind: impl Into<Vec<Operand>>,
        grid: [u32; 3],
    ) -> Self {
        let params = bytemuck::bytes_of(params).to_vec();
        Dispatch {
            kernel,
            overrides: Vec::new(),
            params,
            bind: bind.into(),
            grid,
            epilogue: Epilogue::default(),
            slot: None,
        }
    }

    /// Sets an `override` constant.
    pub fn with(mut self, name: &'static str, value: u32) -> Self {
        self.overrides.push((name, value));
        self
    }
}

/// What an operator asks of the device.
#[derive(Clone, Debug)]
pub enum Lowering {
    /// Output 0 is input 0 in memory: a linear tensor under another shape.
    Alias,
    /// Dispatches in order, over scratch buffers of the given sizes in bytes. None where all outputs are empty.
    Run {
        /// In order; each sees what the ones before it wrote.
        dispatches: Vec<Dispatch>,
        /// Sizes in bytes of scratch buffers.
        temps: Vec<u64>,
        /// Words that the host computed from attributes and shapes (indices, weights); uploaded once a plan.
        tables: Vec<Vec<u32>>,
    },
}

impl Lowering {
    /// Dispatches without scratch memory.
    pub fn run(dispatches: impl Into<Vec<Dispatch>>) -> Lowering {
        Lowering::Run { dispatches: dispatches.into(), temps: Vec::new(), tables: Vec::new() }
    }
}

/// Terms of a sum that one invocation forms: a software driver leaves loops after so many rounds, without a word.
const MOST_TERMS: usize = u16::MAX as usize;

/// Whether a device forms sums of so many terms, one after the other.
///
/// # Errors
/// More than every driver can be trusted with.
pub fn summable(terms: usize) -> Result<(), OpError> {
    let reason = "it sums more than 65535 terms, which some drivers cut off";
    if terms <= MOST_TERMS { Ok(()) } else { Err(OpError::NoKernel { reason }) }
}

/// Invocations of one workgroup of kernels that run over a flat index: `override WG` in `shared/grid.wgsl`.
pub const FLAT_WORKGROUP: u32 = 64;

/// Workgroups for `n` invocations in a kernel that calls `flat_index` of `shared/grid.wgsl`: folded into y where
/// the count passes the limit of one dimension.
pub fn flat_grid(n: usize) -> [u32; 3] {
    const MAX: usize = 65535;
    let groups = n.div_ceil(FLAT_WORKGROUP as usize).max(1);
    let y = groups.div_ceil(MAX);
    let x = groups.div_ceil(y);
    [u32(x), u32(y), 1]
}

/// A size or index for `Params`. Tensors have at most 2^31 elements, checked by the verifier.
pub fn u32(n: usize) -> u32 {
    u32::try_from(n).expect("sizes were checked by the verifier")
}

/// Sizes per axis for `Params`, the rest filled with `fill`.
pub fn axes(v: &[usize], fill: u32) -> [u32; 8] {
    let mut out = [fill; 8];
    for (o, d) in out.iter_mut().zip(v) {
        *o = u32(*d);
    }
    out
}
