//! `LpNormalization`: each row over its norm; a row of zeros stays so.
//!
//! *Shapes*: `[..] -> [..]`.

use super::rows::{RowParams, Rows, map, sum};
use crate::graph::lower::{Io, Kernel, Lowering, Operand};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch, attrs::normalize_axis};
use crate::tensor::{Tensor, TensorType};
use std::sync::Arc;

crate::params! {
    /// `Params` of `lp_normalize.wgsl`.
    struct Params { rows: RowParams, p: u32 }
}

static KERNEL: Kernel =
    crate::kernel!("lp_normalize", Params, ["shared/rows.wgsl", "shared/row_sum.wgsl", "lp_normalize.wgsl"]);

pub(super) static DEF: OpDef =
    OpDef { name: "LpNormalization", onnx: &["LpNormalization"], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct LpNormalize {
    axis: i64,
    /// 1 or 2.
    p: u32,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let p = match r.int("p", 2)? {
        1 => 1,
        2 => 2,
        p => return Err(r.unsupported("p", p, "1 or 2")),
    };
    Ok(Arc::new(LpNormalize { axis: r.int("axis", -1)?, p }))
}

impl LpNormalize {
    fn axis(&self, rank: usize) -> Result<usize, OpError> {
        normalize_axis(self.axis, rank).ok_or(OpError::Axis { axis: self.axis, rank })
    }

    fn rows(&self, shape: &[usize]) -> Result<Rows, OpError> {
        Ok(Rows::linear(shape, &[self.axis(shape.len())?]))
    }
}

impl Op for LpNormalize {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().int("axis", self.axis).int("p", i64::from(self.p))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        check::frames_apart(inputs, 0, [self.axis(inputs[0].rank())?])?;
        Ok(vec![inputs[0].clone()])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let rows = self.rows(x.shape())?;
        let y = map(&rows, x.f32s(), cx.take(x.len()), |_, x, y| {
            let norm = if self.p == 1 { sum(x, f64::abs) } else { sum(x, |v| v * v).sqrt() };
            #[allow(clippy::cast_possible_truncation, reason = "rounded to f32 once")]
            let norm = norm as f32;
            y.iter_mut().zip(x).for_each(|(y, x)| *y = if norm == 0.0 { 0.0 } else { x / norm });
        });
        Ok(vec![Tensor::from_f32(x.shape(), y)])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let rows = self.rows(&x.shape)?;
        let params = Params { rows: rows.params(), p: self.p };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([rows.dispatch(&KERNEL, &params, bind)]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(1, 40);
    let mut out = Vec::new();
    for p in 1..3 {
        for (axis, shape) in
            [(-1, vec![7, w]), (1, vec![2, w, 3]), (1, vec![1, 600, 2]), (0, vec![w]), (0, vec![0, 2])]
        {
            let attrs = Attrs::new().int("axis", axis).int("p", p);
            let shape_len = shape.iter().copied().max().unwrap_or(1);
            // Beside the sum: a driver's square root and division, 3 and 2.5 ulp.
            out.push(Sample::new(attrs, [SampleInput::f32(shape)]).reduction(8 + shape_len));
        }
    }
    out
}
