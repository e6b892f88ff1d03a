//! `Reshape`: the same elements under another shape.
//!
//! *Shapes*: `[..] -> shape`, with the same number of elements. In a graph every dimension is explicit.

use crate::graph::attrs::SymInt;
use crate::graph::lower::{Io, Lowering};
use crate::graph::op::check;
use crate::graph::sample::{Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType};
use std::sync::Arc;

#[derive(Debug)]
struct Reshape {
    shape: Vec<Dim>,
}

pub(super) static DEF: OpDef = OpDef {
    name: "Reshape",
    onnx: &["Reshape"],
    read,
    kernels: &[],
    samples: |rng| {
        let w = rng.int(1, 9);
        vec![Sample::new(Attrs::new().sizes("shape", &[w, 6]), [SampleInput::f32([2, w, 3])])]
    },
};

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let allow_zero = r.flag("allowzero", false)?;
    let wanted = r.sym_ints_or_input("shape", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    let shape = resolve(r, &wanted, allow_zero)?;
    Ok(Arc::new(Reshape { shape }))
}

/// Replaces ONNX's 0 (copied from the input) and -1 (what remains) by dimensions.
fn resolve(r: &Reader, wanted: &[SymInt], allow_zero: bool) -> Result<Vec<Dim>, OpError> {
    let text = wanted.iter().map(SymInt::to_string).collect::<Vec<_>>().join(", ");
    let bad = |supported: &str| r.unsupported("shape", format!("[{text}]"), supported);
    let x = r.input(0)?;
    let mut shape = Vec::new();
    let mut rest = None;
    for (i, s) in wanted.iter().enumerate() {
        shape.push(match *s {
            SymInt::Int(-1) if rest.is_none() => {
                rest = Some(i);
                Dim::Fixed(1)
            }
            SymInt::Int(0) if !allow_zero && r.opset() != i64::MAX => {
                *x.shape.get(i).ok_or_else(|| bad("0 only where the input has that axis"))?
            }
            s => s.dim().ok_or_else(|| bad("non-negative sizes and at most one -1"))?,
        });
    }
    if let Some(i) = rest {
        let total = x.elements().ok_or_else(|| bad("inputs whose element count is k*N"))?;
        let others = shape.iter().try_fold(Dim::Fixed(1), |a, d| a.times(*d));
        shape[i] = others
            .and_then(|o| divide(total, o))
            .ok_or_else(|| bad(&format!("sizes that divide the elements of {x}")))?;
    }
    Ok(shape)
}

/// `a / b` where it is a dimension.
fn divide(a: Dim, b: Dim) -> Option<Dim> {
    let exact = |x: usize, y: usize| (y != 0 && x.is_multiple_of(y)).then(|| x / y);
    match (a, b) {
        (Dim::Fixed(x), Dim::Fixed(y)) => exact(x, y).map(Dim::Fixed),
        (Dim::Batch(x), Dim::Fixed(y)) => exact(x, y).map(Dim::Batch),
        (Dim::Batch(x), Dim::Batch(y)) => exact(x, y).map(Dim::Fixed),
        (Dim::Fixed(_), Dim::Batch(_)) => None,
    }
}

impl Op for Reshape {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().dims("shape", &self.shape)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the shape is an attribute)")?;
        let out = TensorType { dtype: inputs[0].dtype, shape: self.shape.clone() };
        if out.elements() != inputs[0].elements() {
            return Err(OpError::shape(0, format!("with as many elements as {out}"), &inputs[0]));
        }
        Ok(vec![out])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let shape = self.infer(&[inputs[0].ty()])?.remove(0).dims();
        Ok(vec![inputs[0].reshaped(shape.expect("concrete inputs give concrete outputs"))])
    }

    fn lower(&self, _io: &Io) -> Result<Lowering, OpError> {
        Ok(Lowering::Alias)
    }
}
