//! `CumSum`: running sums along an axis, of f32 or (wrapping) i32.
//!
//! *Shapes*: `[..] -> [..]`.

use super::rows::{RowParams, Rows};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch, attrs::normalize_axis};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `cum_sum.wgsl`.
    struct Params { rows: RowParams, exclusive: u32, reverse: u32 }
}

macro_rules! kernel {
    ($name:literal, $dtype:literal) => {
        crate::kernel!($name, Params, ["shared/grid.wgsl", "shared/rows.wgsl", $dtype, "cum_sum.wgsl"])
    };
}

static FLOAT: Kernel = kernel!("cum_sum_f32", "reduce/f32.wgsl");
static INT: Kernel = kernel!("cum_sum_i32", "reduce/i32.wgsl");

pub(super) static DEF: OpDef =
    OpDef { name: "CumSum", onnx: &["CumSum"], read, kernels: &[&FLOAT, &INT], samples };

#[derive(Debug)]
struct CumSum {
    axis: i64,
    exclusive: bool,
    reverse: bool,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let (exclusive, reverse) = (r.flag("exclusive", false)?, r.flag("reverse", false)?);
    let axis = r.int_or_input("axis", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    Ok(Arc::new(CumSum { axis, exclusive, reverse }))
}

impl CumSum {
    fn axis(&self, rank: usize) -> Result<usize, OpError> {
        normalize_axis(self.axis, rank).ok_or(OpError::Axis { axis: self.axis, rank })
    }

    fn rows(&self, shape: &[usize]) -> Result<Rows, OpError> {
        Ok(Rows::linear(shape, &[self.axis(shape.len())?]))
    }

    fn run<T: Copy + Send + Sync>(&self, rows: &Rows, x: &[T], zero: T, add: fn(T, T) -> T) -> Vec<T> {
        let len = rows.len().max(1);
        let mut y = rows.gather(x).into_owned();
        y.par_chunks_mut(len).with_min_len(4096usize.div_ceil(len)).for_each(|row| {
            let mut sum = zero;
            let mut step = |v: &mut T| {
                let next = add(sum, *v);
                *v = if self.exclusive { sum } else { next };
                sum = next;
            };
            if self.reverse {
                row.iter_mut().rev().for_each(&mut step);
            } else {
                row.iter_mut().for_each(&mut step);
            }
        });
        rows.scatter(y)
    }
}

impl Op for CumSum {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .int("axis", self.axis)
            .at_place(Place::Input(1))
            .int("exclusive", i64::from(self.exclusive))
            .int("reverse", i64::from(self.reverse))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the axis is an attribute)")?;
        let x = &inputs[0];
        if !matches!(x.dtype, DType::F32 | DType::I32) {
            return Err(OpError::DType { input: 0, expected: "f32 or i32", got: x.dtype });
        }
        check::frames_apart(inputs, 0, [self.axis(x.rank())?])?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let rows = self.rows(x.shape())?;
        Ok(vec![match x.as_f32() {
            Some(v) => Tensor::from_f32(x.shape(), self.run(&rows, v, 0.0, |a, b| a + b)),
            None => Tensor::from_i32(x.shape(), self.run(&rows, x.i32s(), 0, i32::wrapping_add)),
        }])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let rows = self.rows(&x.shape)?;
        let (exclusive, reverse) = (u32::from(self.exclusive), u32::from(self.reverse));
        let params = Params { rows: rows.params(), exclusive, reverse };
        let kernel = if x.dtype == DType::F32 { &FLOAT } else { &INT };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(rows.count()))]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(1, 40);
    let mut out = Vec::new();
    for (exclusive, reverse) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (axis, shape) in
            [(0, vec![w]), (1, vec![2, w, 3]), (-1, vec![7, 3, w]), (0, vec![3, 2]), (0, vec![0, 2])]
        {
            let attrs = Attrs::new().int("axis", axis).int("exclusive", exclusive).int("reverse", reverse);
            let ints = SampleInput::of(shape.clone(), Fill::Ints(i32::MIN, i32::MAX));
            out.push(Sample::new(attrs.clone(), [SampleInput::f32(shape)]).reduction(w));
            out.push(Sample::new(attrs, [ints]));
        }
    }
    out
}
