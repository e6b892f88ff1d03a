//! `Slice`: every step-th element of a range along some axes.
//!
//! *Shapes*: `[.., d, ..] -> [.., ceil((end - start) / step), ..]`, start and end clamped to the axis.

use super::element::moved;
use super::strided::{self, StridedCopy, signed, sliced};
use crate::graph::attrs::{SymInt, normalize_axis};
use crate::graph::lower::{Io, Layout, Layouts, Lowering, Operand, View};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType};
use std::sync::Arc;

#[derive(Debug)]
struct Slice {
    starts: Vec<i64>,
    /// May be N, where the axis is k*N: its whole length.
    ends: Vec<SymInt>,
    axes: Vec<i64>,
    steps: Vec<i64>,
}

/// One axis of a slice of a concrete tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: usize,
    len: usize,
    step: i64,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Slice", onnx: &["Slice"], read, kernels: strided::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let (starts, ends) = (r.ints_or_input("starts", 1)?, r.sym_ints_or_input("ends", 2)?);
    let axes = r.ints_or_input("axes", 3)?;
    let starts = starts.ok_or(OpError::MissingInput { input: 1 })?;
    let ends = ends.ok_or(OpError::MissingInput { input: 2 })?;
    let axes = axes.unwrap_or_else(|| (0..).take(starts.len()).collect());
    let steps = r.ints_or_input("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    Ok(Arc::new(Slice { starts, ends, axes, steps }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(6, 40));
    let of = |shape: &[usize], slices: &[(i64, i64, i64, i64)]| {
        let list = |f: fn(&(i64, i64, i64, i64)) -> i64| slices.iter().map(f).collect::<Vec<_>>();
        let attrs = Attrs::new().ints("starts", list(|s| s.1)).ints("ends", list(|s| s.2));
        let attrs = attrs.ints("axes", list(|s| s.0)).ints("steps", list(|s| s.3));
        Sample::new(attrs, [SampleInput::f32(shape)])
    };
    let (max, min) = (i64::MAX, i64::MIN);
    vec![
        of(&[b], &[(0, 1, -1, 1)]),
        of(&[b], &[(0, max, min, -1)]),
        of(&[b, 5], &[(0, -2, -5, -2), (1, 0, 100, 3)]),
        of(&[7, 16, 3, a], &[(1, 4, 12, 1)]),
        of(&[7, 15, 3, b], &[(1, 8, max, 1), (-1, 1, max, 2)]),
        of(&[7, 6, 3, b], &[(1, 1, 4, 1)]),
        of(&[7, 6, b, 3], &[(2, -1, min, -3)]),
        of(&[1, a, b, 3], &[(0, 0, max, 1), (2, 2, 5, 1)]),
        of(&[2, 4, 3, a, 2, 4], &[(3, 0, 1, 1), (5, 3, 0, -1)]),
        of(&[2, 3, b], &[(2, 4, 2, 1)]),
        of(&[2, 0, 3], &[(2, 1, max, 1), (1, 0, max, -1)]),
        of(&[2, 3], &[]),
        Sample::new(
            Attrs::new().ints("starts", [1]).ints("ends", [9]).ints("axes", [0]).ints("steps", [4]),
            [SampleInput::of([b, 2], Fill::Ints(-9, 9))],
        ),
    ]
}

impl Slice {
    /// What is taken of each axis; `None` of an axis that is taken whole because it depends on the batch.
    fn ranges(&self, x: &TensorType) -> Result<Vec<Option<Range>>, OpError> {
        let rank = x.rank();
        let n = self.starts.len();
        let bad = |name: &str, value: String, supported: String| OpError::Attribute {
            name: name.to_owned(),
            value,
            supported,
        };
        for (name, len) in [("ends", self.ends.len()), ("axes", self.axes.len()), ("steps", self.steps.len())]
        {
            if len != n {
                return Err(bad(name, format!("{len} numbers"), format!("as many as starts ({n})")));
            }
        }
        let whole = |d: &Dim| d.fixed().map(|len| Range { start: 0, len, step: 1 });
        let mut out: Vec<Option<Range>> = x.shape.iter().map(whole).collect();
        let mut seen = vec![false; rank];
        for i in 0..n {
            let axis = self.axes[i];
            let a = normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank })?;
            if std::mem::replace(&mut seen[a], true) {
                return Err(bad("axes", format!("{:?}", self.axes), "each axis once".into()));
            }
            let (start, end, step) = (self.starts[i], self.ends[i], self.steps[i]);
            if step == 0 {
                return Err(bad("steps", format!("{:?}", self.steps), "any integer but 0".into()));
            }
            out[a] = match (x.shape[a], end) {
                (Dim::Fixed(d), SymInt::Int(end)) => Some(range(signed(d), start, end, step)),
                (Dim::Batch(_), end) if is_whole(x.shape[a], start, end, step) => None,
                _ => return Err(OpError::SymbolicDim { input: 0, axis: a }),
            };
        }
        Ok(out)
    }

    fn concrete(&self, x: &TensorType) -> Result<Vec<Range>, OpError> {
        let ranges = self.ranges(x)?.into_iter().enumerate();
        ranges.map(|(axis, r)| r.ok_or(OpError::SymbolicDim { input: 0, axis })).collect()
    }

    fn copy(&self, x: &View, y: &View) -> Result<StridedCopy, OpError> {
        let ranges = self.concrete(&x.ty())?;
        let starts: Vec<usize> = ranges.iter().map(|r| r.start).collect();
        let steps: Vec<i64> = ranges.iter().map(|r| r.step).collect();
        Ok(sliced(x, &starts, &steps, y))
    }
}

/// Whether a slice takes all of an axis whatever the batch is.
fn is_whole(dim: Dim, start: i64, end: SymInt, step: i64) -> bool {
    let to_the_end = match (end, dim) {
        (SymInt::Int(v), _) => v >= i64::from(i32::MAX),
        (SymInt::Batch(k), Dim::Batch(d)) => usize::try_from(k).is_ok_and(|k| k >= d),
        _ => false,
    };
    (start == 0 || start <= i64::from(i32::MIN)) && step == 1 && to_the_end
}

/// The elements start, start + step, .. before end of an axis of `d`, negative ones counted from the end.
fn range(d: i64, start: i64, end: i64, step: i64) -> Range {
    let from_front = |v: i64| if v < 0 { v.saturating_add(d) } else { v };
    let (low, high) = if step > 0 { (0, d) } else { (-1, d - 1) };
    let start = from_front(start).max(low).min(high);
    let end = from_front(end).max(low).min(high);
    // A start before the front with a negative step takes nothing, like an end there takes everything.
    let distance = if step > 0 { end - start } else { start - end };
    let len = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    let len = usize::try_from(len).expect("at most the axis");
    match len {
        0 => Range { start: 0, len: 0, step: 1 },
        1 => Range { start: usize::try_from(start).unwrap_or(0), len, step: 1 },
        _ => Range { start: usize::try_from(start).unwrap_or(0), len, step },
    }
}

impl Op for Slice {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .ints("starts", self.starts.iter().copied())
            .at_place(Place::Input(1))
            .sym_ints("ends", &self.ends)
            .at_place(Place::Input(2))
            .ints("axes", self.axes.iter().copied())
            .at_place(Place::Input(3))
            .ints("steps", self.steps.iter().copied())
            .at_place(Place::Input(4))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (starts, ends, axes and steps are attributes)")?;
        let x = &inputs[0];
        let ranges = self.ranges(x)?;
        let dims = ranges.iter().zip(&x.shape).map(|(r, d)| r.map_or(*d, |r| Dim::Fixed(r.len)));
        Ok(vec![TensorType::new(x.dtype, dims)])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let shape: Vec<usize> = self.concrete(&x.ty())?.iter().map(|r| r.len).collect();
        let linear =
            |shape: &[usize]| View { dtype: x.dtype(), shape: shape.to_vec(), layout: Layout::Linear };
        let copy = self.copy(&linear(x.shape()), &linear(&shape))?;
        Ok(vec![moved(cx, &shape, &[x], &copy)?])
    }

    /// Groups of four channels stay groups where the slice of the channels begins and ends between two of them.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let x = &inputs[0];
        let ranges = self.ranges(x).unwrap_or_default();
        let fits = match (ranges.get(1), x.shape.get(1)) {
            (Some(Some(r)), Some(Dim::Fixed(c))) => {
                r.step == 1 && r.start.is_multiple_of(4) && (r.len.is_multiple_of(4) || r.start + r.len == *c)
            }
            _ => false,
        };
        if x.rank() >= 3 && fits { Layouts::AnyPacked } else { Layouts::Linear }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let copy = self.copy(&io.inputs[0], &io.outputs[0])?.within(io.inputs[0].layout);
        let dispatches: Vec<_> = copy.dispatch(Operand::Input(0), Operand::Output(0)).into_iter().collect();
        Ok(Lowering::run(dispatches))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_python() {
        // (length, start, end, step) and what Python's slice(start, end, step).indices(length) takes.
        let cases = [
            ((5, 0, 5, 1), &[0, 1, 2, 3, 4][..]),
            ((5, 1, -1, 1), &[1, 2, 3]),
            ((5, -100, 100, 2), &[0, 2, 4]),
            ((5, i64::MIN, i64::MAX, 4), &[0, 4]),
            ((5, i64::MAX, i64::MIN, -1), &[4, 3, 2, 1, 0]),
            ((5, -1, -6, -2), &[4, 2, 0]),
            ((5, 3, 0, -1), &[3, 2, 1]),
            ((5, -7, 0, -1), &[]),
            ((5, 2, 2, 1), &[]),
            ((5, 4, 1, 1), &[]),
            ((0, 0, i64::MAX, -1), &[]),
            ((5, 4, i64::MIN, i64::MIN), &[4]),
        ];
        for ((d, start, end, step), want) in cases {
            let r = range(d, start, end, step);
            let got: Vec<usize> = (0..signed(r.len))
                .map(|i| usize::try_from(signed(r.start) + i * r.step).expect("inside"))
                .collect();
            assert_eq!(got, want, "{d} {start}:{end}:{step}");
        }
    }

    #[test]
    fn a_batch_axis_is_taken_whole_or_refused() {
        let x = TensorType::new(crate::tensor::DType::F32, [Dim::Batch(2), Dim::Fixed(4)]);
        let slice = |start, end, step| Slice {
            starts: vec![start],
            ends: vec![end],
            axes: vec![0],
            steps: vec![step],
        };
        for end in [SymInt::Int(i64::MAX), SymInt::Int(i64::from(i32::MAX)), SymInt::Batch(2)] {
            assert_eq!(slice(0, end, 1).infer(std::slice::from_ref(&x)), Ok(vec![x.clone()]), "{end}");
        }
        for (start, end, step) in
            [(1, SymInt::Int(i64::MAX), 1), (0, SymInt::Int(8), 1), (0, SymInt::Batch(1), 1)]
        {
            assert!(slice(start, end, step).infer(std::slice::from_ref(&x)).is_err());
        }
    }
}
