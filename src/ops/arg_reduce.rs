//! `ArgMax` and `ArgMin`: where along an axis the largest or smallest element is.
//!
//! *Shapes*: `[..] -> i32[..]` with the axis of length 1, or without it where `keepdims` is 0.

use super::order;
use super::rows::{RowParams, Rows};
use crate::graph::lower::{Io, Kernel, Lowering, Operand};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch, attrs::normalize_axis};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `arg_reduce.wgsl`.
    struct Params { rows: RowParams, flip: u32, last: u32 }
}

static FLOAT: Kernel =
    crate::kernel!("arg_reduce_f32", Params, ["shared/rows.wgsl", "order/f32.wgsl", "arg_reduce.wgsl"]);
static INT: Kernel =
    crate::kernel!("arg_reduce_i32", Params, ["shared/rows.wgsl", "order/i32.wgsl", "arg_reduce.wgsl"]);

macro_rules! definition {
    ($id:ident, $name:literal, $smallest:literal) => {
        pub(super) mod $id {
            use super::*;
            pub(in crate::ops) static DEF: OpDef = OpDef {
                name: $name,
                onnx: &[$name],
                read: |r| read(r, $smallest),
                kernels: &[&FLOAT, &INT],
                samples,
            };
        }
    };
}

definition!(max, "ArgMax", false);
definition!(min, "ArgMin", true);

#[derive(Debug)]
struct ArgReduce {
    smallest: bool,
    axis: i64,
    keepdims: bool,
    /// Of equal elements the last.
    last: bool,
}

fn read(r: &mut Reader, smallest: bool) -> Result<Arc<dyn Op>, OpError> {
    let (axis, keepdims) = (r.int("axis", 0)?, r.flag("keepdims", true)?);
    Ok(Arc::new(ArgReduce { smallest, axis, keepdims, last: r.flag("select_last_index", false)? }))
}

impl ArgReduce {
    fn axis(&self, rank: usize) -> Result<usize, OpError> {
        normalize_axis(self.axis, rank).ok_or(OpError::Axis { axis: self.axis, rank })
    }

    /// Bits that turn the order round.
    fn flip(&self) -> i32 {
        if self.smallest { -1 } else { 0 }
    }
}

impl Op for ArgReduce {
    fn def(&self) -> &'static OpDef {
        if self.smallest { &min::DEF } else { &max::DEF }
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .int("axis", self.axis)
            .int("keepdims", i64::from(self.keepdims))
            .int("select_last_index", i64::from(self.last))
            .wide_output(0)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        order::check(inputs)?;
        let x = &inputs[0];
        let axis = self.axis(x.rank())?;
        if x.shape[axis] == Dim::Fixed(0) {
            return Err(OpError::shape(0, format!("at least one element on axis {axis}"), x));
        }
        let mut shape = x.shape.clone();
        shape[axis] = Dim::Fixed(1);
        if !self.keepdims {
            shape.remove(axis);
        }
        Ok(vec![TensorType { dtype: DType::I32, shape }])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let shape = self.infer(&[x.ty()])?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let rows = Rows::linear(x.shape(), &[self.axis(x.rank())?]);
        let keys = order::keys(x);
        let of_row = |row: &[i32]| {
            let mut best = (0, row[0] ^ self.flip());
            for (i, k) in row.iter().enumerate().skip(1) {
                let k = k ^ self.flip();
                if k > best.1 || (self.last && k == best.1) {
                    best = (i, k);
                }
            }
            i32::try_from(best.0).expect("axes are shorter than 2^31")
        };
        let len = rows.len().max(1);
        let y =
            rows.gather(&keys).par_chunks(len).with_min_len(4096usize.div_ceil(len)).map(of_row).collect();
        Ok(vec![Tensor::from_i32(shape, y)])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let rows = Rows::linear(&x.shape, &[self.axis(x.shape.len())?]);
        let (flip, last) = (self.flip().cast_unsigned(), u32::from(self.last));
        let params = Params { rows: rows.params(), flip, last };
        let kernel = if x.dtype == DType::F32 { &FLOAT } else { &INT };
        Ok(Lowering::run([rows.dispatch(kernel, &params, [Operand::Input(0), Operand::Output(0)])]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 40));
    let mut out = Vec::new();
    for last in 0..2 {
        for (axis, keep, shape) in [
            (0, 1, vec![7, c]),
            (1, 0, vec![2, w, 3]),
            (-1, 1, vec![2, 3, 100]),
            (1, 0, vec![1, 700, 2]),
            (-2, 0, vec![2, 1, 3, 2, w, 2]),
            (0, 0, vec![w]),
            (1, 1, vec![0, 3]),
        ] {
            let attrs = Attrs::new().int("axis", axis).int("keepdims", keep).int("select_last_index", last);
            out.push(Sample::new(attrs.clone(), [SampleInput::f32(shape.clone())]));
            out.push(Sample::new(attrs, [SampleInput::of(shape, Fill::Ints(-3, 3))]));
        }
    }
    let bytes = (0..5 * w).map(|_| i8::try_from(rng.int(0, 6)).expect("small") - 3).collect();
    let exact = Fill::Exact(Tensor::from_i8([5, w], bytes));
    let attrs = Attrs::new().int("axis", 1).int("keepdims", 0).int("select_last_index", 0);
    out.push(Sample::new(attrs, [SampleInput::of([5, w], exact)]));
    out
}
