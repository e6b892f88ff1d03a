//! `Gather` and `GatherND`: slices of a tensor picked by indices, negative ones counted from the end.
//!
//! *Shapes*: `Gather`: `[a.., d, b..], [i..] -> [a.., i.., b..]`.
//! `GatherND`: `[batch.., d0, .., dk, b..], [batch.., i.., k] -> [batch.., i.., b..]`.
//!
//! A constant index outside its axis is refused when the node is read. One computed at run time is an error on the CPU;
//! on a device the nearest element is read instead.

use super::element::{Element, Movement, moved};
use super::strided::signed;
use crate::graph::attrs::{Known, normalize_axis};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, axes, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType, strides};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `gather.wgsl`.
    struct Params {
        n: u32,
        inner: u32,
        slices: u32,
        k: u32,
        x_outer: u32,
        index_outer: u32,
        pad0: u32,
        pad1: u32,
        dims: [u32; 8],
        strides: [u32; 8],
    }
}

static KERNEL: Kernel =
    crate::kernel!("gather", Params, ["shared/grid.wgsl", "shared/index.wgsl", "gather.wgsl"]);

#[derive(Debug)]
enum Gather {
    /// One index into one axis.
    Axis(usize),
    /// A tuple of indices into the axes behind the batch axes.
    Nd { batch_dims: usize },
}

/// The picked slices: `y[o, j, ..] = x[o, index of (o, j), ..]`.
#[derive(Debug)]
struct Plan {
    outer: usize,
    /// Slices picked for each outer index.
    slices: usize,
    /// Elements of a slice.
    inner: usize,
    /// Step of x for the outer index.
    x_outer: usize,
    /// Step of the indices for the outer index; 0 where all share them.
    index_outer: usize,
    /// Lengths of the indexed axes and their steps in x.
    dims: Vec<usize>,
    strides: Vec<usize>,
}

pub(super) static GATHER: OpDef = OpDef {
    name: "Gather",
    onnx: &["Gather"],
    read: |r| {
        let axis = r.axis_of(0, "axis", 0)?;
        check_constant(r, &r.input(0)?.shape[axis..=axis])?;
        Ok(Arc::new(Gather::Axis(axis)))
    },
    kernels: &[&KERNEL],
    samples: gather_samples,
};

pub(super) static GATHER_ND: OpDef = OpDef {
    name: "GatherND",
    onnx: &["GatherND"],
    read: |r| {
        let v = r.int("batch_dims", 0)?;
        let batch_dims = usize::try_from(v).map_err(|_| r.unsupported("batch_dims", v, "0 or more"))?;
        check_constant_tuples(r, batch_dims)?;
        Ok(Arc::new(Gather::Nd { batch_dims }))
    },
    kernels: &[&KERNEL],
    samples: gather_nd_samples,
};

fn gather_samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |axis: i64, x: SampleInput, indices: SampleInput| {
        Sample::new(Attrs::new().int("axis", axis), [x, indices])
    };
    let pick = |shape: &[usize], d: usize| {
        let d = i32::try_from(d).expect("small");
        SampleInput::of(shape, Fill::Ints(-d, d - 1))
    };
    vec![
        of(0, SampleInput::f32([b]), pick(&[], b)),
        of(0, SampleInput::f32([b, 5]).constant(), pick(&[7, a], b)),
        of(1, SampleInput::f32([7, b, 3]), pick(&[4], b).constant()),
        of(-1, SampleInput::f32([7, a, b]), pick(&[2, 3], b)),
        of(2, SampleInput::f32([1, 2, a, 3, 2]), pick(&[2, 1], a)),
        of(1, SampleInput::f32([7, a]), pick(&[], a)),
        of(0, SampleInput::f32([a, 3]), pick(&[0], a)),
        of(0, SampleInput::f32([a, 0]), pick(&[2], a)),
        of(1, SampleInput::of([2, b], Fill::Ints(-9, 9)), pick(&[5], b)),
        of(1, SampleInput::of([2, b], Fill::Bools), pick(&[5], b)),
    ]
}

fn gather_nd_samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |batch: i64, x: SampleInput, indices: SampleInput| {
        Sample::new(Attrs::new().int("batch_dims", batch), [x, indices])
    };
    let pick = |shape: &[usize], d: usize| {
        let d = i32::try_from(d).expect("small");
        SampleInput::of(shape, Fill::Ints(-d, d - 1))
    };
    vec![
        of(0, SampleInput::f32([b]), pick(&[5, 1], b)),
        of(0, SampleInput::f32([a, a, 3]), pick(&[4, 2], a)),
        of(0, SampleInput::f32([a, a, a]), pick(&[3], a)),
        of(0, SampleInput::f32([a, b]), pick(&[2, 3, 1], a).constant()),
        of(1, SampleInput::f32([7, b, 3]), pick(&[7, 5, 1], b)),
        of(2, SampleInput::f32([2, 3, a, b]), pick(&[2, 3, 4, 1], a)),
        of(1, SampleInput::f32([7, a, a]), pick(&[7, 2], a)),
        of(0, SampleInput::f32([a, b]), pick(&[0, 2], a.min(b))),
        of(0, SampleInput::of([a, b], Fill::Ints(-9, 9)), pick(&[4, 2], a.min(b))),
    ]
}

impl Gather {
    fn plan(&self, x: &[usize], indices: &[usize]) -> Plan {
        let product = |v: &[usize]| v.iter().product::<usize>();
        let steps = strides(x);
        match *self {
            Gather::Axis(axis) => Plan {
                outer: product(&x[..axis]),
                slices: product(indices),
                inner: product(&x[axis + 1..]),
                x_outer: product(&x[axis..]),
                index_outer: 0,
                dims: vec![x[axis]],
                strides: vec![steps[axis]],
            },
            Gather::Nd { batch_dims } => {
                let (k, tuples) = indices.split_last().expect("rank at least 1");
                let slices = product(&tuples[batch_dims..]);
                Plan {
                    outer: product(&x[..batch_dims]),
                    slices,
                    inner: product(&x[batch_dims + k..]),
                    x_outer: product(&x[batch_dims..]),
                    index_outer: slices * k,
                    dims: x[batch_dims..][..*k].to_vec(),
                    strides: steps[batch_dims..][..*k].to_vec(),
                }
            }
        }
    }

    fn shape(&self, x: &TensorType, indices: &TensorType) -> Result<Vec<Dim>, OpError> {
        match *self {
            Gather::Axis(axis) => {
                let rank = x.rank();
                if axis >= rank {
                    return Err(OpError::Axis { axis: signed(axis), rank });
                }
                check::fixed(std::slice::from_ref(x), 0, axis)?;
                Ok([&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat())
            }
            Gather::Nd { batch_dims } => {
                let Some((last, tuples)) = indices.shape.split_last() else {
                    return Err(OpError::Rank { input: 1, expected: "1 or more", got: 0 });
                };
                let k = last.fixed().ok_or(OpError::SymbolicDim { input: 1, axis: tuples.len() })?;
                if batch_dims > tuples.len() || k == 0 || k > x.rank().saturating_sub(batch_dims) {
                    let expected = format!("of tuples of 1 to {} indices", x.rank());
                    return Err(OpError::shape(1, expected, indices));
                }
                if x.shape[..batch_dims] != tuples[..batch_dims] {
                    return Err(OpError::shape(
                        1,
                        format!("that begins with {batch_dims} axes of {x}"),
                        indices,
                    ));
                }
                Ok([tuples, &x.shape[batch_dims + k..]].concat())
            }
        }
    }
}

/// The element that an index means, negative ones counted from the end.
pub(super) fn resolve(index: i32, len: usize) -> Result<usize, OpError> {
    let i = i64::from(index);
    let from_front = if i < 0 { i + signed(len) } else { i };
    let inside = usize::try_from(from_front).ok().filter(|i| *i < len);
    inside.ok_or(OpError::Index { index: i, len })
}

/// Refuses an index outside its axis where the indices (input 1) are constant: `axes` are those that the elements mean
/// in turn. A device would clamp it without a word.
pub(super) fn check_constant(r: &Reader, axes: &[Dim]) -> Result<(), OpError> {
    let check = |index: i64, axis: &Dim| match axis.fixed() {
        Some(len) if normalize_axis(index, len).is_none() => Err(OpError::Index { index, len }),
        _ => Ok(()),
    };
    let mut axes = axes.iter().cycle();
    let mut next = |index: Option<i64>| match (index, axes.next()) {
        (Some(index), Some(axis)) => check(index, axis),
        _ => Ok(()),
    };
    match r.known(1) {
        Some(Known::Ints { values, .. }) => values.iter().try_for_each(|v| next(v.int())),
        Some(Known::Tensor(t)) => {
            t.as_i32().unwrap_or_default().iter().try_for_each(|v| next(Some(i64::from(*v))))
        }
        None => Ok(()),
    }
}

/// [`check_constant`] for tuples of indices into the axes of input 0 from `first` on.
pub(super) fn check_constant_tuples(r: &Reader, first: usize) -> Result<(), OpError> {
    let k = r.input(1)?.shape.last().and_then(|d| d.fixed());
    let axes = k.and_then(|k| r.input(0).ok()?.shape.get(first..first.checked_add(k)?));
    axes.map_or(Ok(()), |axes| check_constant(r, axes))
}

struct Picked<'a> {
    plan: Plan,
    indices: &'a [i32],
}

impl Movement for Picked<'_> {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        const SMALL: usize = 8 * 1024;
        let (p, x) = (&self.plan, inputs[0]);
        if y.is_empty() {
            return Ok(());
        }
        let k = p.dims.len();
        let slice = |(s, y): (usize, &mut [T])| {
            let (o, j) = (s / p.slices, s % p.slices);
            let mut at = o * p.x_outer;
            let tuple = &self.indices[o * p.index_outer + j * k..][..k];
            for ((index, d), step) in tuple.iter().zip(&p.dims).zip(&p.strides) {
                at += resolve(*index, *d)? * step;
            }
            y.copy_from_slice(&x[at..][..p.inner]);
            Ok(())
        };
        let least = SMALL.div_ceil(p.inner);
        y.par_chunks_mut(p.inner).with_min_len(least).enumerate().try_for_each(slice)
    }
}

impl Op for Gather {
    fn def(&self) -> &'static OpDef {
        match self {
            Gather::Axis(_) => &GATHER,
            Gather::Nd { .. } => &GATHER_ND,
        }
    }

    fn attrs(&self) -> Attrs {
        match *self {
            Gather::Axis(axis) => Attrs::new().int("axis", signed(axis)),
            Gather::Nd { batch_dims } => {
                Attrs::new().int("batch_dims", i64::try_from(batch_dims).unwrap_or(i64::MAX)).wide_input(1)
            }
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2")?;
        check::dtype(inputs, 1, DType::I32, "i32")?;
        let out = TensorType { dtype: inputs[0].dtype, shape: self.shape(&inputs[0], &inputs[1])? };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices] = inputs else { unreachable!("infer takes two inputs") };
        let out = self.infer(&[x.ty(), indices.ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        let picked = Picked { plan: self.plan(x.shape(), indices.shape()), indices: indices.i32s() };
        Ok(vec![moved(cx, &shape, &[x], &picked)?])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        let n = y.len();
        if n == 0 {
            return Ok(Lowering::run([]));
        }
        if x.is_empty() {
            return Err(OpError::NoKernel { reason: "every index is outside an empty tensor" });
        }
        let p = self.plan(&x.shape, &io.inputs[1].shape);
        let params = Params {
            n: u32(n),
            inner: u32(p.inner),
            slices: u32(p.slices),
            k: u32(p.dims.len()),
            x_outer: u32(p.x_outer),
            index_outer: u32(p.index_outer),
            dims: axes(&p.dims, 1),
            strides: axes(&p.strides, 0),
            ..Params::default()
        };
        debug_assert_eq!(n, p.outer * p.slices * p.inner);
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(n))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}
