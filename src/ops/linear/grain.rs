//! Which scale belongs to which element, where scales are an input: one for all, one an index of an axis, or one for
//! each block of neighbours along it.

use crate::graph::attrs::{Known, normalize_axis};
use crate::graph::lower::{Operand, View, u32};
use crate::graph::op::check;
use crate::graph::{Attrs, Grain, OpError, Reader};
use crate::quant::{SCALE_MAX, SCALE_MIN};
use crate::tensor::{DType, Dim, Tensor, TensorType};

/// `Grain` of `shared/grain.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct GrainParams {
    n: u32,
    inner: u32,
    len: u32,
    block: u32,
    outer_step: u32,
    axis_step: u32,
    inner_step: u32,
    scales: u32,
}

/// The attributes `axis` and `block_size`.
pub fn read(r: &mut Reader) -> Result<Grain, OpError> {
    let axis = r.int("axis", 1)?;
    let block = r.int("block_size", 0)?;
    let block = usize::try_from(block).map_err(|_| r.unsupported("block_size", block, "0 or more"))?;
    // It speaks of 8-bit floats only.
    r.ignore("saturate");
    Ok(Grain { axis, block })
}

/// Those attributes.
pub fn attrs(grain: Grain) -> Attrs {
    let block = i64::try_from(grain.block).unwrap_or(i64::MAX);
    Attrs::new().int("axis", grain.axis).int("block_size", block)
}

/// Refuses constant scales outside 2^-100..2^100; those computed at run time are judged there.
pub fn check_known_scale(r: &Reader) -> Result<(), OpError> {
    let Some(Known::Tensor(t)) = r.known(1) else { return Ok(()) };
    match t.as_f32().and_then(|v| v.iter().find(|s| !legal(**s))) {
        Some(s) => Err(r.unsupported("y_scale", format!("{s:?}"), SCALES)),
        None => Ok(()),
    }
}

/// What [`legal`] says, in words.
pub const SCALES: &str = "scales in 2^-100..2^100";

/// Whether both devices quantize with a scale alike.
pub fn legal(scale: f32) -> bool {
    (SCALE_MIN..=SCALE_MAX).contains(&scale)
}

fn is_one(ty: &TensorType) -> bool {
    ty.shape.iter().all(|d| *d == Dim::Fixed(1)) && ty.rank() < 2
}

/// Scales and zero points that fit input 0.
///
/// # Errors
/// Shapes and types that do not.
pub fn check(grain: Grain, inputs: &[TensorType]) -> Result<(), OpError> {
    check::arity(inputs, 2, 3, "2 or 3")?;
    check::f32(inputs, 1)?;
    let (x, scale) = (&inputs[0], &inputs[1]);
    if let Some(zero) = inputs.get(2)
        && zero.shape != scale.shape
        && !(is_one(zero) && is_one(scale))
    {
        return Err(OpError::shape(2, format!("that of input 1, {scale}"), zero));
    }
    if is_one(scale) && grain.block == 0 {
        return Ok(());
    }
    let axis =
        normalize_axis(grain.axis, x.rank()).ok_or(OpError::Axis { axis: grain.axis, rank: x.rank() })?;
    let len = check::fixed(inputs, 0, axis)?;
    let mut want = x.shape.clone();
    let per_axis = [Dim::Fixed(len)];
    let (fits, expected) = if grain.block == 0 {
        (scale.shape == per_axis, format!("[] or [{len}]"))
    } else {
        want[axis] = Dim::Fixed(len.div_ceil(grain.block));
        let text: Vec<String> = want.iter().map(Dim::to_string).collect();
        (scale.shape == want, format!("[{}]", text.join(",")))
    };
    if fits { Ok(()) } else { Err(OpError::shape(1, expected, scale)) }
}

/// A [`Grain`] over concrete shapes.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Elements in all.
    n: usize,
    /// Elements behind one another that differ in no index up to the axis.
    pub inner: usize,
    len: usize,
    block: usize,
    outer_step: usize,
    axis_step: usize,
    inner_step: usize,
    scales: usize,
}

impl Blocks {
    pub fn new(grain: Grain, shape: &[usize], scale: &[usize]) -> Blocks {
        let n = shape.iter().product();
        let scales = scale.iter().product();
        let one = Blocks {
            n,
            inner: n.max(1),
            len: 1,
            block: 1,
            outer_step: 0,
            axis_step: 0,
            inner_step: 0,
            scales,
        };
        let Some(axis) = normalize_axis(grain.axis, shape.len()).filter(|_| scales != 1 || grain.block != 0)
        else {
            return one;
        };
        let inner = shape[axis + 1..].iter().product::<usize>().max(1);
        let axial = Blocks { inner, len: shape[axis].max(1), axis_step: 1, ..one };
        if grain.block == 0 {
            return axial;
        }
        let (outer_step, axis_step) = (inner * scale[axis], inner);
        Blocks { block: grain.block, outer_step, axis_step, inner_step: 1, ..axial }
    }

    /// The scales of element `i` of run `row`, where runs have `inner` elements: the first one's, and the step from
    /// one to the next.
    pub fn scale_of(&self, row: usize) -> (usize, usize) {
        let (outer, at) = (row / self.len, row % self.len);
        (outer * self.outer_step + at / self.block * self.axis_step, self.inner_step)
    }

    pub fn params(&self) -> GrainParams {
        GrainParams {
            n: u32(self.n),
            inner: u32(self.inner),
            len: u32(self.len),
            block: u32(self.block),
            outer_step: u32(self.outer_step),
            axis_step: u32(self.axis_step),
            inner_step: u32(self.inner_step),
            scales: u32(self.scales),
        }
    }
}

/// What a kernel binds for zero points, and whether there are any: without them the scales stand in.
pub fn zero_operand(inputs: &[View]) -> (Operand, u32) {
    if inputs.len() > 2 { (Operand::Input(2), 1) } else { (Operand::Input(1), 0) }
}

/// Zero points as integers, as many as scales.
pub fn zero_points(inputs: &[Tensor]) -> Vec<i32> {
    let given = inputs.get(2).and_then(Tensor::codes);
    given.unwrap_or_else(|| vec![0; inputs[1].len()])
}

/// The name of a type of codes, for errors: what `QuantizeLinear` makes.
pub const CODES: &str = "i4, i8, i16, u4, u8 or u16";

/// Whether a type is one of [`CODES`].
pub fn is_code(dtype: DType) -> bool {
    dtype.limits().is_some() && dtype != DType::I32
}
