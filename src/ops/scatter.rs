//! `ScatterElements` and `ScatterND`: a copy of a tensor with elements or slices replaced, or combined with updates.
//!
//! *Shapes*: `ScatterElements`: `data [d..], indices [i..], updates [i..] -> [d..]`, all of one rank.
//! `ScatterND`: `data [d0, .., dk, b..], indices [i.., k], updates [i.., b..] -> data's`.
//!
//! Updates apply in their order in memory on both executors: without a reduction the last one stays. An index
//! outside its axis is an error on the CPU; on a device the nearest element is updated instead.

use super::gather::{check_constant, check_constant_tuples, resolve};
use super::gather_elements::check_indices;
use super::strided::{self, StridedCopy, signed};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, axes, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{DType, Tensor, TensorType, strides};
use std::sync::Arc;

crate::params! {
    /// `Params` of `shared/scatter_target.wgsl`.
    struct Params {
        n: u32,
        updates: u32,
        inner: u32,
        k: u32,
        axis: u32,
        count: u32,
        step: u32,
        pad0: u32,
        dims: [u32; 8],
        lengths: [u32; 8],
        strides: [u32; 8],
    }
}

static CLAIM: Kernel = crate::kernel!(
    "scatter_claim",
    Params,
    ["shared/grid.wgsl", "shared/index.wgsl", "shared/scatter_target.wgsl", "scatter_claim.wgsl"]
);
static TAKE: Kernel = crate::kernel!("scatter_take", Params, ["shared/grid.wgsl", "scatter_take.wgsl"]);
static REDUCE: Kernel = crate::kernel!(
    "scatter_reduce",
    Params,
    ["shared/grid.wgsl", "shared/index.wgsl", "shared/scatter_target.wgsl", "scatter_reduce.wgsl"]
);
static KERNELS: [&Kernel; 5] = [&CLAIM, &TAKE, &REDUCE, strided::KERNELS[0], strided::KERNELS[1]];

const REDUCTIONS: &[&str] = &["none", "add", "mul", "max", "min"];

#[derive(Debug)]
struct Scatter {
    /// The axis of `ScatterElements`; `None` is `ScatterND`.
    axis: Option<usize>,
    reduction: &'static str,
}

pub(super) static ELEMENTS: OpDef = OpDef {
    name: "ScatterElements",
    onnx: &["ScatterElements", "Scatter"],
    read: |r| read(r, true),
    kernels: &KERNELS,
    samples: element_samples,
};

pub(super) static ND: OpDef = OpDef {
    name: "ScatterND",
    onnx: &["ScatterND"],
    read: |r| read(r, false),
    kernels: &KERNELS,
    samples: nd_samples,
};

fn read(r: &mut Reader, elements: bool) -> Result<Arc<dyn Op>, OpError> {
    let reduction = r.one_of("reduction", "none", REDUCTIONS)?;
    if !elements {
        check_constant_tuples(r, 0)?;
        return Ok(Arc::new(Scatter { axis: None, reduction }));
    }
    let axis = r.axis_of(0, "axis", 0)?;
    check_constant(r, &r.input(0)?.shape[axis..=axis])?;
    Ok(Arc::new(Scatter { axis: Some(axis), reduction }))
}

fn pick(shape: &[usize], d: usize) -> SampleInput {
    let d = i32::try_from(d).expect("small");
    SampleInput::of(shape, Fill::Ints(-d, d - 1))
}

fn element_samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let mut out = Vec::new();
    for reduction in REDUCTIONS {
        for (axis, x, i) in [
            (0usize, vec![b], vec![9]),
            (1, vec![7, a, 3], vec![7, 12, 2]),
            (0, vec![a, 5], vec![6, 5]),
            (3, vec![2, 1, 3, b], vec![1, 1, 2, 5]),
            (1, vec![2, 3], vec![2, 0]),
        ] {
            let attrs = Attrs::new().int("axis", signed(axis)).str("reduction", reduction);
            let indices = pick(&i, x[axis]);
            let float = [SampleInput::f32(x.clone()), indices.clone(), SampleInput::f32(i.clone())];
            out.push(Sample::new(attrs.clone(), float).reduction(12));
            let ints = |s: &[usize]| SampleInput::of(s, Fill::Ints(-99, 99));
            out.push(Sample::new(attrs, [ints(&x), indices, ints(&i)]));
        }
    }
    out
}

fn nd_samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let mut out = Vec::new();
    for reduction in REDUCTIONS {
        for (x, i) in [
            (vec![b], vec![9, 1]),
            (vec![a, a, 5], vec![4, 2]),
            (vec![a, a, a], vec![3]),
            (vec![a, 3, 2], vec![2, 3, 1]),
            (vec![a, 0], vec![2, 1]),
            (vec![a, 2], vec![0, 1]),
        ] {
            let k = i[i.len() - 1];
            let updates = [&i[..i.len() - 1], &x[k..]].concat();
            let attrs = Attrs::new().str("reduction", reduction);
            let indices = pick(&i, a.min(x[0]));
            let float = [SampleInput::f32(x.clone()), indices.clone(), SampleInput::f32(updates.clone())];
            out.push(Sample::new(attrs.clone(), float).reduction(12));
            let ints = |s: &[usize]| SampleInput::of(s, Fill::Ints(-99, 99));
            out.push(Sample::new(attrs, [ints(&x), indices, ints(&updates)]));
        }
    }
    out
}

impl Scatter {
    /// The first element in the data of each update, in units of `inner` elements.
    fn targets(&self, x: &[usize], indices: &Tensor) -> Result<Vec<usize>, OpError> {
        let (at, shape, steps) = (indices.i32s(), indices.shape(), strides(x));
        let Some(axis) = self.axis else {
            let k = shape[shape.len() - 1];
            let slice: usize = x[k..].iter().product();
            let of = |tuple: &[i32]| {
                let mut to = 0;
                for (t, index) in tuple.iter().enumerate() {
                    to += resolve(*index, x[t])? * steps[t];
                }
                Ok(to / slice.max(1))
            };
            return at.chunks_exact(k).map(of).collect();
        };
        let inner = strides(shape);
        let of = |(i, index): (usize, &i32)| {
            let mut to = resolve(*index, x[axis])? * steps[axis];
            for a in (0..shape.len()).filter(|a| *a != axis) {
                to += i / inner[a] % shape[a] * steps[a];
            }
            Ok(to)
        };
        at.iter().enumerate().map(of).collect()
    }

    /// Elements that one update replaces.
    fn inner(&self, x: &[usize], indices: &[usize]) -> usize {
        match (self.axis, indices.last()) {
            (None, Some(k)) => x[*k..].iter().product(),
            _ => 1,
        }
    }

    fn apply<T: Copy>(&self, y: &mut [T], to: &[usize], inner: usize, updates: &[T], f: fn(T, T) -> T) {
        for (to, u) in to.iter().zip(updates.chunks_exact(inner.max(1))) {
            for (y, u) in y[to * inner..][..inner].iter_mut().zip(u) {
                *y = f(*y, *u);
            }
        }
    }

    fn params(&self, io: &Io) -> Params {
        let (x, indices) = (&io.inputs[0].shape, &io.inputs[1].shape);
        let inner = self.inner(x, indices);
        let updates = io.inputs[2].len() / inner;
        let steps: Vec<usize> = strides(x).iter().map(|s| s / inner).collect();
        let base = Params {
            n: u32(io.outputs[0].len()),
            updates: u32(updates),
            inner: u32(inner),
            ..Params::default()
        };
        match self.axis {
            None => {
                let k = indices[indices.len() - 1];
                Params {
                    k: u32(k),
                    // No axis: an index tuple instead of coordinates.
                    axis: u32::MAX,
                    count: u32(updates),
                    step: 1,
                    lengths: axes(&x[..k], 1),
                    strides: axes(&steps[..k], 0),
                    dims: axes(&[], 1),
                    ..base
                }
            }
            Some(axis) => Params {
                k: u32(x.len()),
                axis: u32(axis),
                count: u32(indices[axis]),
                step: u32(indices[axis + 1..].iter().product()),
                dims: axes(indices, 1),
                lengths: axes(x, 1),
                strides: axes(&steps, 0),
                ..base
            },
        }
    }
}

impl Op for Scatter {
    fn def(&self) -> &'static OpDef {
        if self.axis.is_some() { &ELEMENTS } else { &ND }
    }

    fn attrs(&self) -> Attrs {
        let attrs = match self.axis {
            Some(a) => Attrs::new().int("axis", signed(a)),
            None => Attrs::new().wide_input(1),
        };
        attrs.str("reduction", self.reduction)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 3, 3, "3")?;
        check::dtype(inputs, 1, DType::I32, "i32")?;
        let (x, indices, updates) = (&inputs[0], &inputs[1], &inputs[2]);
        let reducible = matches!(x.dtype, DType::F32 | DType::I32);
        if !reducible && self.reduction != "none" {
            return Err(OpError::DType { input: 0, expected: "f32 or i32 to be reduced", got: x.dtype });
        }
        if updates.dtype != x.dtype {
            return Err(OpError::DType { input: 2, expected: "of the type of input 0", got: updates.dtype });
        }
        let wanted = if let Some(axis) = self.axis {
            check_indices(x, indices, axis)?;
            indices.shape.clone()
        } else {
            let Some((k, tuples)) = indices.shape.split_last() else {
                return Err(OpError::Rank { input: 1, expected: "1 or more", got: 0 });
            };
            let k = k.fixed().filter(|k| (1..=x.rank()).contains(k)).ok_or_else(|| {
                OpError::shape(1, format!("of tuples of 1 to {} indices", x.rank()), indices)
            })?;
            [tuples, &x.shape[k..]].concat()
        };
        if updates.shape != wanted {
            let expected = TensorType { dtype: x.dtype, shape: wanted }.to_string();
            return Err(OpError::shape(2, expected, updates));
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices, updates] = inputs else { unreachable!("infer takes three inputs") };
        let to = self.targets(x.shape(), indices)?;
        let inner = self.inner(x.shape(), indices.shape());
        let shape = x.shape();
        let bytes = || {
            let mut y = x.bytes().to_vec();
            self.apply(&mut y, &to, inner, updates.bytes(), |_, u| u);
            y
        };
        Ok(vec![match x.dtype() {
            DType::F32 => {
                let mut y = x.f32s().to_vec();
                let f: fn(f32, f32) -> f32 = match self.reduction {
                    "add" => |y, u| y + u,
                    "mul" => |y, u| y * u,
                    "max" => f32::max,
                    "min" => f32::min,
                    _ => |_, u| u,
                };
                self.apply(&mut y, &to, inner, updates.f32s(), f);
                Tensor::from_f32(shape, y)
            }
            DType::I32 => {
                let mut y = x.i32s().to_vec();
                let f: fn(i32, i32) -> i32 = match self.reduction {
                    "add" => i32::wrapping_add,
                    "mul" => i32::wrapping_mul,
                    "max" => i32::max,
                    "min" => i32::min,
                    _ => |_, u| u,
                };
                self.apply(&mut y, &to, inner, updates.i32s(), f);
                Tensor::from_i32(shape, y)
            }
            dtype => Tensor::from_bytes(dtype, shape, &bytes()).expect("elements are moved as they are"),
        }])
    }

    /// Without a reduction every slice of the data first learns which update is its last. With one, an invocation
    /// applies the updates of its elements in order.
    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let n = io.outputs[0].len();
        if n == 0 {
            return Ok(Lowering::run([]));
        }
        let whole = |n: usize| StridedCopy::new(&[n], 0, &[1], 0, &[1]);
        if io.inputs[2].is_empty() {
            return Ok(Lowering::run(
                whole(n).dispatch(Operand::Input(0), Operand::Output(0)).into_iter().collect::<Vec<_>>(),
            ));
        }
        let params = self.params(io);
        if self.reduction == "none" {
            let slices = n / params.inner as usize;
            let clear = StridedCopy::new(&[slices], 0, &[0], 0, &[1]);
            let mut dispatches: Vec<_> =
                clear.dispatch(Operand::Table(0), Operand::Temp(0)).into_iter().collect();
            let claim = [Operand::Input(1), Operand::Temp(0)];
            dispatches.push(Dispatch::new(&CLAIM, &params, claim, flat_grid(params.updates as usize)));
            let take = [Operand::Input(0), Operand::Input(2), Operand::Temp(0), Operand::Output(0)];
            dispatches.push(Dispatch::new(&TAKE, &params, take, flat_grid(n)));
            return Ok(Lowering::Run { dispatches, temps: vec![slices as u64 * 4], tables: vec![vec![0]] });
        }
        let place = REDUCTIONS.iter().position(|r| *r == self.reduction).unwrap_or(0);
        let lanes = params.updates as usize / params.count as usize * params.inner as usize;
        let params = Params { n: u32(lanes), ..params };
        let bind = [Operand::Input(1), Operand::Input(2), Operand::Output(0)];
        let reduce = Dispatch::new(&REDUCE, &params, bind, flat_grid(lanes))
            .with("REDUCTION", u32(place))
            .with("IS_FLOAT", u32::from(io.inputs[0].dtype == DType::F32));
        let copy = whole(n).dispatch(Operand::Input(0), Operand::Output(0));
        Ok(Lowering::run(copy.into_iter().chain([reduce]).collect::<Vec<_>>()))
    }
}
