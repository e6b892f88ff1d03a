//! `Split`: parts of a tensor along an axis.
//!
//! *Shapes*: `[.., s0 + s1 + .., ..] -> [.., s0, ..], [.., s1, ..], ..`.

use super::element::moved;
use super::strided::{self, StridedCopy, sliced};
use crate::graph::attrs::SymInt;
use crate::graph::lower::{Io, Layout, Layouts, Lowering, Operand, View};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType};
use std::sync::Arc;

#[derive(Debug)]
struct Split {
    axis: usize,
    parts: Vec<Dim>,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Split", onnx: &["Split"], read, kernels: strided::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let count = r.opt_int("num_outputs")?;
    r.int("axis", 0)?;
    let wanted = r.sym_ints_or_input("split", 1)?;
    let axis = r.axis_of(0, "axis", 0)?;
    let len = r.input(0)?.shape[axis];
    let parts = match (wanted, count) {
        (Some(_), Some(n)) => return Err(r.unsupported("num_outputs", n, "none beside split")),
        (Some(parts), None) => {
            let text = parts.iter().map(SymInt::to_string).collect::<Vec<_>>().join(", ");
            let parts: Option<Vec<Dim>> = parts.iter().map(|s| s.dim()).collect();
            parts.ok_or_else(|| r.unsupported("split", format!("[{text}]"), "non-negative sizes"))?
        }
        (None, count) => {
            let n = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(r.outputs());
            // Since opset 18 the last part may be smaller.
            divided(len, n, r.opset() >= 18).ok_or_else(|| {
                let value = count.map_or_else(|| format!("{n} outputs"), |n| n.to_string());
                r.unsupported("num_outputs", value, &format!("a number of parts that divides {len}"))
            })?
        }
    };
    Ok(Arc::new(Split { axis, parts }))
}

/// `n` parts of a dimension, equal but for the last.
fn divided(len: Dim, n: usize, smaller_last: bool) -> Option<Vec<Dim>> {
    if n == 0 || n > 1 << 16 {
        return None;
    }
    match len {
        Dim::Fixed(d) => {
            let part = d.div_ceil(n);
            let last = d.checked_sub(part * (n - 1))?;
            if last != part && !smaller_last {
                return None;
            }
            let mut parts = vec![Dim::Fixed(part); n];
            parts[n - 1] = Dim::Fixed(last);
            Some(parts)
        }
        Dim::Batch(k) => k.is_multiple_of(n).then(|| vec![Dim::Batch(k / n); n]),
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 40));
    let of = |axis: i64, parts: &[usize], x: SampleInput| {
        Sample::new(Attrs::new().int("axis", axis).sizes("split", parts), [x])
    };
    vec![
        of(0, &[b, a], SampleInput::f32([a + b])),
        of(1, &[8, 4, a], SampleInput::f32([7, 12 + a, 3, 5])),
        of(1, &[a, 3], SampleInput::f32([7, a + 3, 2, 5])),
        of(-1, &[a, a, a], SampleInput::f32([1, 5, 3, 3 * a])),
        of(2, &[1, 0, b], SampleInput::f32([7, 6, 1 + b])),
        of(0, &[1, 6], SampleInput::f32([7, 6, 3])),
        of(4, &[2, a], SampleInput::f32([2, 1, 3, 2, 2 + a, 3])),
        of(1, &[1, 1], SampleInput::f32([0, 2, 3])),
        of(1, &[4, 1], SampleInput::of([a, 5], Fill::Ints(-9, 9))),
        of(0, &[a, 1], SampleInput::of([a + 1, 2], Fill::Bools)),
    ]
}

impl Split {
    fn copies(&self, x: &View, parts: &[View]) -> Vec<StridedCopy> {
        let mut starts = vec![0; x.shape.len()];
        let steps = vec![1; x.shape.len()];
        let mut out = Vec::with_capacity(parts.len());
        for y in parts {
            out.push(sliced(x, &starts, &steps, y));
            starts[self.axis] += y.shape[self.axis];
        }
        out
    }
}

impl Op for Split {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .int("axis", strided::signed(self.axis))
            .dims("split", &self.parts)
            .at_place(Place::Input(1))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the sizes are an attribute)")?;
        let x = &inputs[0];
        let total = self.parts.iter().try_fold(Dim::Fixed(0), |a, d| a.plus(*d));
        if total.is_none() || x.shape.get(self.axis) != total.as_ref() {
            let parts: Vec<String> = self.parts.iter().map(Dim::to_string).collect();
            let expected = format!("{} on axis {}", parts.join(" + "), self.axis);
            return Err(OpError::shape(0, expected, x));
        }
        let part = |d: &Dim| {
            let mut y = x.clone();
            y.shape[self.axis] = *d;
            y
        };
        Ok(self.parts.iter().map(part).collect())
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let view = |shape: &[usize]| View { dtype: x.dtype(), shape: shape.to_vec(), layout: Layout::Linear };
        let types = self.infer(&[x.ty()])?;
        let parts: Vec<View> =
            types.iter().map(|t| view(&t.dims().expect("concrete inputs give concrete outputs"))).collect();
        let copies = self.copies(&view(x.shape()), &parts);
        copies.iter().zip(&parts).map(|(copy, part)| moved(cx, &part.shape, &[x], copy)).collect()
    }

    /// Groups of four channels stay groups where every part but the last consists of groups.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let (_, before) = self.parts.split_last().expect("at least one part");
        let in_fours = |d: &Dim| d.fixed().is_some_and(|c| c.is_multiple_of(4));
        let any = inputs[0].rank() >= 3 && (self.axis != 1 || before.iter().all(in_fours));
        if any { Layouts::AnyPacked } else { Layouts::Linear }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let copies = self.copies(&io.inputs[0], &io.outputs);
        let layout = io.inputs[0].layout;
        let of = |(i, copy): (usize, StridedCopy)| {
            copy.within(layout).dispatch(Operand::Input(0), Operand::Output(i))
        };
        Ok(Lowering::run(copies.into_iter().enumerate().filter_map(of).collect::<Vec<_>>()))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}
