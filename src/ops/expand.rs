//! `Expand`: broadcast to a shape.
//!
//! *Shapes*: `[..], shape -> broadcast of both`; a dimension of `shape` may be k*N.

use super::element::moved;
use super::strided::{self, StridedCopy, signed};
use crate::graph::attrs::SymInt;
use crate::graph::lower::{Io, Lowering, Operand};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType, strides};
use std::sync::Arc;

#[derive(Debug)]
struct Expand {
    shape: Vec<Dim>,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Expand", onnx: &["Expand"], read, kernels: strided::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let wanted = r.sym_ints_or_input("shape", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    let shape: Option<Vec<Dim>> = wanted.iter().map(|s| s.dim()).collect();
    let shape = shape.ok_or_else(|| {
        let text = wanted.iter().map(SymInt::to_string).collect::<Vec<_>>().join(", ");
        r.unsupported("shape", format!("[{text}]"), "non-negative sizes")
    })?;
    Ok(Arc::new(Expand { shape }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |shape: &[usize], x: SampleInput| Sample::new(Attrs::new().sizes("shape", shape), [x]);
    vec![
        of(&[], SampleInput::f32([])),
        of(&[b], SampleInput::f32([])),
        of(&[7, 1, b], SampleInput::f32([a, 1])),
        of(&[1, b], SampleInput::f32([7, a, 1])),
        of(&[7, a, 3, 8], SampleInput::f32([1, a, 1, 8])),
        of(&[2, 3, 2, 1, a, b], SampleInput::f32([2, 1, 2, 3, 1, b])),
        of(&[0, 1], SampleInput::f32([1, b])),
        of(&[3, a], SampleInput::of([3, 1], Fill::Ints(-9, 9))),
        of(&[3, a], SampleInput::of([1, a], Fill::Bools).constant()),
    ]
}

impl Op for Expand {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().dims("shape", &self.shape).at_place(Place::Input(1))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the shape is an attribute)")?;
        let x = &inputs[0];
        let rank = x.rank().max(self.shape.len());
        let at =
            |shape: &[Dim], i: usize| (i + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |i| shape[i]);
        let mut out = Vec::with_capacity(rank);
        for i in 0..rank {
            out.push(match (at(&x.shape, i), at(&self.shape, i)) {
                (Dim::Fixed(1), d) | (d, Dim::Fixed(1)) => d,
                (a, b) if a == b => a,
                _ => {
                    let wanted = TensorType { dtype: x.dtype, shape: self.shape.clone() };
                    return Err(OpError::shape(0, format!("that broadcasts with {wanted}"), x));
                }
            });
        }
        let out = TensorType { dtype: x.dtype, shape: out };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let out = self.infer(&[inputs[0].ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        Ok(vec![moved(cx, &shape, &[&inputs[0]], &copy(inputs[0].shape(), &shape))?])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let copy = copy(&io.inputs[0].shape, &io.outputs[0].shape);
        let dispatches: Vec<_> = copy.dispatch(Operand::Input(0), Operand::Output(0)).into_iter().collect();
        Ok(Lowering::run(dispatches))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}

fn copy(x: &[usize], y: &[usize]) -> StridedCopy {
    let mut x_strides = vec![0; y.len()];
    let steps = strides(x);
    let steps = steps.iter().zip(x).map(|(s, d)| if *d == 1 { 0 } else { signed(*s) });
    for (out, s) in x_strides.iter_mut().skip(y.len() - x.len()).zip(steps) {
        *out = s;
    }
    StridedCopy::new(y, 0, &x_strides, 0, &strides(y))
}
