//! `Transpose`: axes in another order.
//!
//! *Shapes*: `[d0, d1, ..] -> [d[perm[0]], d[perm[1]], ..]`.

use super::element::moved;
use super::strided::{self, StridedCopy, signed_all};
use crate::graph::lower::{Io, Lowering, Operand};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{Tensor, TensorType, strides};
use std::sync::Arc;

#[derive(Debug)]
struct Transpose {
    perm: Vec<usize>,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Transpose", onnx: &["Transpose"], read, kernels: strided::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let perm = match r.sizes("perm")? {
        Some(perm) => perm,
        None => (0..r.input(0)?.rank()).rev().collect(),
    };
    Ok(Arc::new(Transpose { perm }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |shape: &[usize], perm: &[usize]| {
        Sample::new(Attrs::new().sizes("perm", perm), [SampleInput::f32(shape)])
    };
    vec![
        of(&[], &[]),
        of(&[b], &[0]),
        of(&[a, b], &[1, 0]),
        of(&[7, a, 3, b], &[0, 2, 3, 1]),
        of(&[7, 3, b, a], &[0, 3, 1, 2]),
        of(&[1, a, 8, 4], &[0, 2, 1, 3]),
        of(&[2, 1, 3, a, 2, b], &[5, 3, 1, 0, 4, 2]),
        of(&[a, 0, 3], &[2, 0, 1]),
        Sample::new(Attrs::new().sizes("perm", &[1, 0]), [SampleInput::of([a, 5], Fill::Ints(-9, 9))]),
        Sample::new(Attrs::new().sizes("perm", &[1, 0]), [SampleInput::of([a, 5], Fill::Bools)]),
    ]
}

impl Op for Transpose {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().sizes("perm", &self.perm)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if sorted != (0..inputs[0].rank()).collect::<Vec<_>>() {
            return Err(OpError::Attribute {
                name: "perm".into(),
                value: format!("{:?}", self.perm),
                supported: format!("a permutation of the {} axes of the input", inputs[0].rank()),
            });
        }
        Ok(vec![TensorType::new(inputs[0].dtype, self.perm.iter().map(|a| inputs[0].shape[*a]))])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let shape: Vec<usize> = self.perm.iter().map(|a| inputs[0].shape()[*a]).collect();
        Ok(vec![moved(cx, &shape, &[&inputs[0]], &self.copy(inputs[0].shape()))?])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let copy = self.copy(&io.inputs[0].shape);
        let dispatches: Vec<_> = copy.dispatch(Operand::Input(0), Operand::Output(0)).into_iter().collect();
        Ok(Lowering::run(dispatches))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}

impl Transpose {
    fn copy(&self, x: &[usize]) -> StridedCopy {
        let shape: Vec<usize> = self.perm.iter().map(|a| x[*a]).collect();
        let x_strides = signed_all(&strides(x));
        let x_strides: Vec<i64> = self.perm.iter().map(|a| x_strides[*a]).collect();
        StridedCopy::new(&shape, 0, &x_strides, 0, &strides(&shape))
    }
}
