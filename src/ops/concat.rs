//! `Concat`: tensors one behind the other along an axis.
//!
//! *Shapes*: `[.., d0, ..], [.., d1, ..], .. -> [.., d0 + d1 + .., ..]`.

use super::element::{Element, Movement, moved};
use super::integer::table;
use super::strided::{self, StridedCopy, padded, signed_all};
use crate::graph::attrs::normalize_axis;
use crate::graph::lower::{Io, Layouts, Lowering, Operand, View};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeOutput, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType, strides};
use std::sync::Arc;

#[derive(Debug)]
struct Concat {
    axis: usize,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Concat", onnx: &["Concat"], read, kernels: strided::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    // Required since opset 4; the default only serves the message.
    let axis = r.opt_int("axis")?.ok_or_else(|| r.unsupported("axis", "none", "an axis"))?;
    let rank = r.input(0)?.rank();
    let axis = normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank })?;
    Ok(Arc::new(Concat { axis }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let axis = |axis: i64| Attrs::new().int("axis", axis);
    let of = |at: i64, shapes: &[&[usize]]| {
        Sample::new(axis(at), shapes.iter().map(|s| SampleInput::f32(*s)).collect::<Vec<_>>())
    };
    let ints = |n: usize| SampleInput::of([n, 3], Fill::Ints(-9, 9));
    vec![
        of(0, &[&[b]]),
        of(0, &[&[b], &[a], &[0]]),
        of(0, &[&[7, 5], &[1, 5], &[7, 5]]),
        of(1, &[&[7, 4, 3, a], &[7, 8, 3, a], &[7, 12, 3, a]]),
        of(1, &[&[7, a, 3, 5], &[7, 3, 3, 5]]),
        of(2, &[&[1, 5, a, 3], &[1, 5, b, 3]]),
        of(-1, &[&[7, 6, 3, a], &[7, 6, 3, 1], &[7, 6, 3, 2]]),
        of(0, &[&[1, 7, 3], &[7, 7, 3]]),
        of(3, &[&[2, 1, 3, a, 2, 2], &[2, 1, 3, 4, 2, 2]]),
        of(1, &[&[2, 0, 3], &[2, 0, 3]]),
        of(1, &[&[2, 1, 0, 3], &[2, 4, 0, 3]]),
        Sample::new(axis(0), [ints(2), ints(a).constant()]),
        Sample::new(axis(1), [SampleInput::of([2, 3], Fill::Bools), SampleInput::of([2, a], Fill::Bools)]),
    ]
}

impl Op for Concat {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().int("axis", i64::try_from(self.axis).unwrap_or(i64::MAX))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, usize::MAX, "1 or more")?;
        let mut out = inputs[0].clone();
        let rank = out.rank();
        if self.axis >= rank {
            return Err(OpError::Axis { axis: i64::try_from(self.axis).unwrap_or(i64::MAX), rank });
        }
        for (i, t) in inputs.iter().enumerate().skip(1) {
            if t.dtype != out.dtype {
                let expected = "of the type of input 0";
                return Err(OpError::DType { input: i, expected, got: t.dtype });
            }
            let others = |t: &TensorType| {
                let mut shape = t.shape.clone();
                if let Some(d) = shape.get_mut(self.axis) {
                    *d = Dim::Fixed(1);
                }
                shape
            };
            let sum = t.shape.get(self.axis).and_then(|d| out.shape[self.axis].plus(*d));
            match sum {
                Some(sum) if others(t) == others(&out) => out.shape[self.axis] = sum,
                _ => {
                    let expected = format!("like {out} except on axis {}", self.axis);
                    return Err(OpError::shape(i, expected, t));
                }
            }
        }
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let mut shape = inputs[0].shape().to_vec();
        shape[self.axis] = inputs.iter().map(|t| t.shape()[self.axis]).sum();
        let y_strides = strides(&shape);
        let mut start = 0;
        let copies = inputs.iter().map(|t| {
            let at = start * y_strides[self.axis];
            start += t.shape()[self.axis];
            StridedCopy::new(t.shape(), 0, &signed_all(&strides(t.shape())), at, &y_strides)
        });
        let all = Copies(copies.collect());
        Ok(vec![moved(cx, &shape, &inputs.iter().collect::<Vec<_>>(), &all)?])
    }

    /// Codes of several scales, brought to that of the output as a requantization is. Passes put the tables of these before
    /// a plain one.
    fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let CodeOutput::Codes { params: output, .. } = &params.output else { return Ok(None) };
        let mut codes = Vec::new();
        for (x, p) in inputs.iter().zip(&params.inputs) {
            let to = CodeParams { inputs: vec![p.clone()], ..params.clone() };
            let same = p.as_ref().is_some_and(|p| p.same_codes(output));
            let made = if same {
                None
            } else {
                table::integer(cx, super::identity().as_ref(), &to, std::slice::from_ref(x))?
            };
            codes.push(made.unwrap_or_else(|| x.clone()));
        }
        Ok(Some(self.eval(cx, &codes)?.remove(0)))
    }

    /// Groups of four channels stay groups unless channels are joined at another place than a multiple of 4.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let in_fours = |t: &TensorType| t.shape[1].fixed().is_some_and(|c| c.is_multiple_of(4));
        let any = inputs[0].rank() >= 3 && (self.axis != 1 || inputs.iter().all(in_fours));
        if any { Layouts::AnyPacked } else { Layouts::Linear }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let y_strides = io.outputs[0].place().strides;
        let mut start = 0;
        let mut dispatches = Vec::new();
        for (i, x) in io.inputs.iter().enumerate() {
            let copy = whole(x, start * y_strides[self.axis], &y_strides).within(x.layout);
            start += x.shape[self.axis];
            dispatches.extend(copy.dispatch(Operand::Input(i), Operand::Output(0)));
        }
        Ok(Lowering::run(dispatches))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Compute
    }
}

/// All of `x`, padding lanes included, to `y0` on.
fn whole(x: &View, y0: usize, y_strides: &[usize]) -> StridedCopy {
    StridedCopy::new(&padded(x), 0, &signed_all(&x.place().strides), y0, y_strides)
}

/// One copy an input.
struct Copies(Vec<StridedCopy>);

impl Movement for Copies {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        for (copy, x) in self.0.iter().zip(inputs) {
            copy.run_on(x, y);
        }
        Ok(())
    }
}
