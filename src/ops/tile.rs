//! `Tile`: the tensor repeated along each axis.
//!
//! *Shapes*: `[d0, d1, ..] -> [d0 * repeats[0], d1 * repeats[1], ..]`.

use super::element::moved;
use super::lookup::{self, FillValue, Lookup};
use crate::graph::lower::{Io, Layout, Layouts, Lowering, View, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType};
use std::sync::Arc;

#[derive(Debug)]
struct Tile {
    repeats: Vec<usize>,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Tile", onnx: &["Tile"], read, kernels: lookup::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let given = r.ints_or_input("repeats", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    let repeats: Option<Vec<usize>> = given.iter().map(|v| usize::try_from(*v).ok()).collect();
    let bad = || r.unsupported("repeats", format!("{given:?}"), "non-negative integers");
    Ok(Arc::new(Tile { repeats: repeats.ok_or_else(bad)? }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |repeats: &[usize], x: SampleInput| Sample::new(Attrs::new().sizes("repeats", repeats), [x]);
    vec![
        of(&[], SampleInput::f32([])),
        of(&[3], SampleInput::f32([b])),
        of(&[1, 1], SampleInput::f32([a, b])),
        of(&[1, 1, 2, 3], SampleInput::f32([7, a, 3, 5])),
        of(&[1, 3, 2, 1], SampleInput::f32([1, a, 2, b])),
        of(&[2, 1, 2], SampleInput::f32([7, 3, 4])),
        of(&[2, 2, 1, 3, 2, 2], SampleInput::f32([2, 1, 3, a, 2, 2])),
        of(&[0, 2], SampleInput::f32([a, b])),
        of(&[2, 2], SampleInput::f32([a, 0])),
        of(&[2, 3], SampleInput::of([a, 4], Fill::Ints(-9, 9))),
        of(&[2, 3], SampleInput::of([a, 4], Fill::Bools)),
    ]
}

impl Tile {
    fn lookup(&self, x: &View, y: &View) -> Lookup {
        let table = |(axis, repeats): (usize, &usize)| {
            let d = x.shape[axis];
            (*repeats != 1).then(|| (0..y.shape[axis]).map(|i| u32(i % d)).collect())
        };
        let tables: Vec<_> = self.repeats.iter().enumerate().map(table).collect();
        Lookup::new(x, y, &tables, FillValue { float: 0.0, int: 0 })
    }
}

impl Op for Tile {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().sizes("repeats", &self.repeats).at_place(Place::Input(1))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the repeats are an attribute)")?;
        let x = &inputs[0];
        if self.repeats.len() != x.rank() {
            return Err(OpError::shape(0, format!("of rank {}", self.repeats.len()), x));
        }
        let dims = x.shape.iter().zip(&self.repeats).map(|(d, r)| d.times(Dim::Fixed(*r)));
        let shape: Option<Vec<Dim>> = dims.collect();
        let too_large = || OpError::TooLarge { shape: format!("{x} times {:?}", self.repeats) };
        let out = TensorType { dtype: x.dtype, shape: shape.ok_or_else(too_large)? };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let out = self.infer(&[x.ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        let view = |shape: &[usize]| View { dtype: out.dtype, shape: shape.to_vec(), layout: Layout::Linear };
        Ok(vec![moved(cx, &shape, &[x], &self.lookup(&view(x.shape()), &view(&shape)))?])
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        if inputs[0].rank() >= 3 && self.repeats[1] == 1 { Layouts::Any } else { Layouts::Linear }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        Ok(self.lookup(&io.inputs[0], &io.outputs[0]).lower(0))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}
