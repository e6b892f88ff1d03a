//! `GatherElements`: along one axis, each element from its own index; negative ones count from the end.
//!
//! *Shapes*: `[x..], [i..] -> [i..]`: of one rank, no axis of `i` but `axis` longer than that of `x`.
//!
//! An index outside its axis is an error on the CPU; on a device the nearest element is read instead.

use super::element::{Element, Movement, moved};
use super::gather::{check_constant, resolve};
use super::strided::signed;
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, axes, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType, strides};
use std::sync::Arc;

crate::params! {
    /// `Params` of `gather_elements.wgsl`.
    struct Params { n: u32, rank: u32, axis: u32, d: u32, dims: [u32; 8], strides: [u32; 8] }
}

static KERNEL: Kernel = crate::kernel!(
    "gather_elements",
    Params,
    ["shared/grid.wgsl", "shared/index.wgsl", "gather_elements.wgsl"]
);

#[derive(Debug)]
struct GatherElements {
    axis: usize,
}

pub(super) static DEF: OpDef =
    OpDef { name: "GatherElements", onnx: &["GatherElements"], read, kernels: &[&KERNEL], samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let axis = r.axis_of(0, "axis", 0)?;
    check_constant(r, &r.input(0)?.shape[axis..=axis])?;
    Ok(Arc::new(GatherElements { axis }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |axis: i64, x: SampleInput, shape: &[usize]| {
        let at = usize::try_from(axis).expect("from the front");
        let d = i32::try_from(x.shape[at]).expect("small");
        let indices = SampleInput::of(shape, Fill::Ints(-d, d - 1));
        Sample::new(Attrs::new().int("axis", axis), [x, indices])
    };
    vec![
        of(0, SampleInput::f32([b]), &[5]),
        of(1, SampleInput::f32([7, b, 3]), &[7, 4, 3]),
        of(0, SampleInput::f32([a, b]), &[12, b]),
        of(2, SampleInput::f32([1, a, b, 2]), &[1, a, 9, 1]),
        of(3, SampleInput::f32([2, 1, 3, a, 2, 2]), &[2, 1, 2, 4, 1, 2]),
        of(1, SampleInput::f32([2, 3]), &[2, 0]),
        of(1, SampleInput::of([2, b], Fill::Ints(-9, 9)), &[2, 5]),
        of(1, SampleInput::of([2, b], Fill::Bools), &[2, 5]),
    ]
}

/// Of one rank, and no axis but `axis` longer than the data's.
pub(super) fn check_indices(x: &TensorType, indices: &TensorType, axis: usize) -> Result<(), OpError> {
    let rank = x.rank();
    if axis >= rank {
        return Err(OpError::Axis { axis: signed(axis), rank });
    }
    let within = |(i, (d, x)): (usize, (&Dim, &Dim))| match (d, x) {
        _ if i == axis => true,
        (Dim::Fixed(d), Dim::Fixed(x)) => d <= x,
        (d, x) => d == x,
    };
    if indices.rank() != rank || !indices.shape.iter().zip(&x.shape).enumerate().all(within) {
        let expected = format!("within {x} except on axis {axis}");
        return Err(OpError::shape(1, expected, indices));
    }
    check::fixed(std::slice::from_ref(x), 0, axis).map(|_| ())
}

struct Picked<'a> {
    axis: usize,
    x: &'a [usize],
    shape: &'a [usize],
    indices: &'a [i32],
}

impl Movement for Picked<'_> {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        let (from, to) = (strides(self.x), strides(self.shape));
        for (i, (y, index)) in y.iter_mut().zip(self.indices).enumerate() {
            let mut at = resolve(*index, self.x[self.axis])? * from[self.axis];
            for a in (0..self.shape.len()).filter(|a| *a != self.axis) {
                at += i / to[a] % self.shape[a] * from[a];
            }
            *y = inputs[0][at];
        }
        Ok(())
    }
}

impl Op for GatherElements {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().int("axis", signed(self.axis))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2")?;
        check::dtype(inputs, 1, DType::I32, "i32")?;
        check_indices(&inputs[0], &inputs[1], self.axis)?;
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape: inputs[1].shape.clone() }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices] = inputs else { unreachable!("infer takes two inputs") };
        let picked =
            Picked { axis: self.axis, x: x.shape(), shape: indices.shape(), indices: indices.i32s() };
        Ok(vec![moved(cx, indices.shape(), &[x], &picked)?])
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
        let params = Params {
            n: u32(n),
            rank: u32(y.shape.len()),
            axis: u32(self.axis),
            d: u32(x.shape[self.axis]),
            dims: axes(&y.shape, 1),
            strides: axes(&strides(&x.shape), 0),
        };
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(n))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}
