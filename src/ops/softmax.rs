//! `Softmax` and `LogSoftmax`: exp(x - max) / sum along an axis, and its logarithm.
//!
//! *Shapes*: `[..] -> [..]`. Where `to_end` is 1 a row runs over `axis` and all axes behind it (ONNX before 13).

use super::rows::{RowParams, Rows, map, sum};
use crate::graph::attrs::normalize_axis;
use crate::graph::codes::codes_of;
use crate::graph::lower::{Io, Kernel, Lowering, Operand};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{
    Attrs, CodeParams, Internals, Op, OpDef, OpError, Part, Place, QuantRule, Reader, Scratch, Tap,
};
use crate::ops::integer::runtime;
use crate::quant::{Mantissa, Multiplier, Requantize};
use crate::tensor::{DType, Tensor, TensorType};
use std::sync::Arc;

crate::params! {
    /// `Params` of `softmax.wgsl`.
    struct Params { rows: RowParams }
}

/// What tells one function from the other.
#[derive(Debug)]
struct Row {
    def: &'static OpDef,
    /// Of a row.
    f: fn(&[f32], &mut [f32]),
}

macro_rules! softmax {
    ($id:ident, $name:literal, $file:literal, $f:expr) => {
        pub(super) mod $id {
            use super::*;
            static KERNEL: Kernel = crate::kernel!(
                $file,
                Params,
                ["shared/rows.wgsl", "shared/row_sum.wgsl", $file, "softmax.wgsl"]
            );
            pub(super) static ROW: Row = Row { def: &DEF, f: $f };
            pub(in crate::ops) static DEF: OpDef =
                OpDef { name: $name, onnx: &[$name], read: |r| read(&ROW, r), kernels: &[&KERNEL], samples };
        }
    };
}

softmax!(plain, "Softmax", "softmax/softmax.wgsl", softmax);
softmax!(log, "LogSoftmax", "softmax/log_softmax.wgsl", log_softmax);

fn largest(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[allow(clippy::cast_possible_truncation, reason = "the sum is rounded to f32 once")]
fn softmax(x: &[f32], y: &mut [f32]) {
    let m = largest(x);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - m).exp());
    let s = sum(y, |v| v) as f32;
    y.iter_mut().for_each(|y| *y /= s);
}

#[allow(clippy::cast_possible_truncation, reason = "the logarithm is rounded to f32 once")]
fn log_softmax(x: &[f32], y: &mut [f32]) {
    let m = largest(x);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - m).exp());
    let log = sum(y, |v| v).ln() as f32;
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - m) - log);
}

#[derive(Debug)]
struct Softmax {
    row: &'static Row,
    axis: i64,
    to_end: bool,
}

fn read(row: &'static Row, r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let flat = r.opset() < 13;
    let axis = r.int("axis", if flat { 1 } else { -1 })?;
    let to_end = r.own_int("to_end", i64::from(flat))? != 0;
    // Over the last axis alone both mean the same.
    let last = r.input(0).is_ok_and(|x| axis == -1 || usize::try_from(axis).is_ok_and(|a| a + 1 == x.rank()));
    let to_end = to_end && !last;
    Ok(Arc::new(Softmax { row, axis, to_end }))
}

impl Softmax {
    fn axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let axis = normalize_axis(self.axis, rank).ok_or(OpError::Axis { axis: self.axis, rank })?;
        let end = if self.to_end { rank } else { axis + 1 };
        Ok((axis..end).collect())
    }

    fn rows(&self, shape: &[usize]) -> Result<Rows, OpError> {
        Ok(Rows::linear(shape, &self.axes(shape.len())?))
    }
}

impl Op for Softmax {
    fn def(&self) -> &'static OpDef {
        self.row.def
    }

    fn attrs(&self) -> Attrs {
        let place = if self.to_end { Place::Unsaid } else { Place::Implied };
        Attrs::new().int("axis", self.axis).int("to_end", i64::from(self.to_end)).at_place(place)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        check::frames_apart(inputs, 0, self.axes(inputs[0].rank())?)?;
        Ok(vec![inputs[0].clone()])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let rows = self.rows(x.shape())?;
        let y = map(&rows, x.f32s(), cx.take(x.len()), |_, x, y| (self.row.f)(x, y));
        Ok(vec![Tensor::from_f32(x.shape(), y)])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        if io.outputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let rows = self.rows(&io.inputs[0].shape)?;
        let params = Params { rows: rows.params() };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([rows.dispatch(self.row.def.kernels[0], &params, bind)]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Compute
    }
    fn has_integer_form(&self) -> bool {
        std::ptr::eq(self.row, &plain::ROW)
    }

    /// With d = max - x exact in codes, `exp` of each d by a table in the codes of the first tap, their exact sum S, and the
    /// 16-bit mantissa of 1 / S: y = exp(-d) / S requantized once. Where a target requantizes in f32, as ONNX Runtime does.
    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        if !std::ptr::eq(self.row, &plain::ROW) {
            return Ok(None);
        }
        let (x, y) = (params.input(0)?, params.output()?);
        let codes = codes_of(inputs, 0)?;
        let rows = self.rows(inputs[0].shape())?;
        if params.arithmetic.requantize == Requantize::Float {
            let softmax = runtime::Softmax::new(&x, y, rows.len());
            let out = map(&rows, &codes, vec![0; codes.len()], |_, x, y| softmax.row(x, y));
            return Ok(Some(params.store(inputs[0].shape(), &out)));
        }
        let exp = params.internal(0)?;
        let (low, high) = x.codes();
        let entry =
            |d: u32| exp.quantize_exact(libm::exp(-f64::from(d) * f64::from(x.scale()))).cast_unsigned();
        let table: Vec<u32> = (0..=high.abs_diff(low)).map(entry).collect();
        let to_y = Multiplier::new(1.0 / f64::from(y.scale()));
        let out = map(&rows, &codes, vec![0; codes.len()], |_, row: &[i32], out| {
            let largest = row.iter().copied().max().unwrap_or(0);
            let of = |q: &i32| table[largest.abs_diff(*q) as usize];
            let sum: u128 = row.iter().map(|q| u128::from(of(q))).sum();
            let inverse = Mantissa::reciprocal(sum.max(1));
            for (o, q) in out.iter_mut().zip(row) {
                let product = i128::from(of(q)) * i128::from(inverse.code);
                *o = y.place(to_y.apply(product, 14 + inverse.shift, y.rounding()));
            }
        });
        Ok(Some(params.store(inputs[0].shape(), &out)))
    }

    /// exp(x - max), and the mantissa of its sum's reciprocal: from y = exp(x - max) / sum, whose greatest number is 1 / sum
    /// because that of exp(x - max) is 1. So no exp is computed again.
    fn internals(&self, inputs: &[TensorType]) -> Result<Internals, OpError> {
        if !std::ptr::eq(self.row, &plain::ROW) {
            return Ok(Internals::default());
        }
        let y = &inputs[0];
        let axes = self.axes(y.rank())?.into_iter().map(|a| i64::try_from(a).unwrap_or(i64::MAX));
        let over = Attrs::new().ints("axes", axes).int("keepdims", 1);
        let largest = super::build("ReduceMax", over, &inputs[..1])?;
        let row = largest.infer(&inputs[..1])?.remove(0);
        let quotient = super::build("Div", Attrs::new(), &[y.clone(), row.clone()])?;
        let mantissa = super::build("Mantissa", Attrs::new(), &[row])?;
        let steps = vec![
            (largest, vec![Part::Output(0)]),
            (quotient, vec![Part::Output(0), Part::Step(0, 0)]),
            (mantissa, vec![Part::Step(0, 0)]),
        ];
        let taps = vec![
            Tap { name: "exp", of: Part::Step(1, 0), dtype: DType::U16, bound: Some(1.0) },
            Tap { name: "reciprocal", of: Part::Step(2, 0), dtype: DType::I16, bound: Some(2.0) },
        ];
        Ok(Internals { steps, taps })
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 40));
    let case = |axis: i64, to_end: i64, shape: &[usize], reduction: usize| {
        let x = SampleInput::of(shape, Fill::Range(-8.0, 8.0));
        let attrs = Attrs::new().int("axis", axis).int("to_end", to_end);
        // exp of a driver is good to 3 + 2|x| ulp of a result below 1, log to 2^-21 (Vulkan specification).
        Sample::new(attrs, [x]).reduction(reduction).extra(2e-6)
    };
    vec![
        case(-1, 0, &[7, 3, w], w),
        case(-1, 0, &[3, 1000], 1000),
        case(1, 0, &[2, c, 5, w], c),
        case(1, 0, &[2, 300, 3], 300),
        case(0, 0, &[7, c], 7),
        case(1, 1, &[7, c, 5, 3], c * 15),
        case(0, 1, &[5, 130], 650),
        case(0, 0, &[w], w),
        case(2, 0, &[2, 1, 3, 2, 1, c], 3),
        case(1, 0, &[2, 0, 3], 1),
        case(-1, 0, &[1, 1], 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Source, attrs::Input};

    #[test]
    fn large_inputs_do_not_overflow() {
        let x = Tensor::from_f32([1, 3], vec![1000.0, 1000.0, -1000.0]);
        let input = Some(Input { ty: x.ty(), known: None });
        let mut r = Reader::new(Source::Onnx(13), "Softmax", Attrs::new(), vec![input], 1);
        let op = (plain::DEF.read)(&mut r).unwrap();
        assert_eq!(op.eval(&Scratch::new(), &[x]).unwrap()[0].f32s(), [0.5, 0.5, 0.0]);
    }
}
