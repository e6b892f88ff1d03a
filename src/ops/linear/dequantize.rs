//! `DequantizeLinear`: y = f32(x - zero_point) * scale, the difference exact, rounded to nearest even, then the product.
//! Codes of i32 have no zero point.
//!
//! *Shapes*: x `[..]`, scale `[]`, `[d of the axis]` or x's with blocks along the axis, zero point as scale `-> [..]`.

use super::grain::{self, Blocks};
use super::samples;
use crate::graph::attrs::Known;
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid};
use crate::graph::{Attrs, Grain, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::ops::unary::CHUNK;
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `dequantize_linear.wgsl`.
    struct Params { grain: grain::GrainParams }
}

static KERNEL: Kernel = crate::kernel!(
    "dequantize_linear",
    Params,
    ["shared/grid.wgsl", "shared/nearest.wgsl", "shared/grain.wgsl", "dequantize_linear.wgsl"]
);

pub(in crate::ops) static DEF: OpDef = OpDef {
    name: "DequantizeLinear",
    onnx: &["DequantizeLinear", "com.microsoft:DequantizeLinear"],
    read,
    kernels: &[&KERNEL],
    samples: samples::dequantize,
};

#[derive(Debug)]
struct DequantizeLinear {
    grain: Grain,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let grain = grain::read(r)?;
    if r.input(0)?.dtype == DType::I32 && r.has_input(2) {
        let zero = match r.known(2) {
            Some(Known::Ints { values, .. }) => values.iter().all(|v| v.int() == Some(0)),
            Some(Known::Tensor(t)) => t.codes().is_some_and(|c| c.iter().all(|z| *z == 0)),
            None => return Err(r.no_value(2, "x_zero_point", "integers")),
        };
        if !zero {
            return Err(r.unsupported("x_zero_point", "other than 0", "0 where codes are i32"));
        }
        r.consume(2);
    }
    Ok(Arc::new(DequantizeLinear { grain }))
}

impl Op for DequantizeLinear {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        grain::attrs(self.grain)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        grain::check(self.grain, inputs)?;
        let x = &inputs[0];
        let wide = x.dtype == DType::I32;
        if !wide && !grain::is_code(x.dtype) {
            return Err(OpError::DType {
                input: 0,
                expected: "i4, i8, i16, i32, u4, u8 or u16",
                got: x.dtype,
            });
        }
        if let Some(zero) = inputs.get(2).filter(|z| wide || z.dtype != x.dtype) {
            let supported = "the same type twice, or i32 without input 2";
            return Err(OpError::DTypes { first: x.dtype, input: 2, got: zero.dtype, supported });
        }
        Ok(vec![TensorType { dtype: DType::F32, shape: x.shape.clone() }])
    }

    #[allow(clippy::cast_precision_loss, reason = "rounds to nearest even, as it is defined")]
    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let blocks = Blocks::new(self.grain, x.shape(), inputs[1].shape());
        let codes = x.codes().expect("the type was checked");
        let (scales, zeros) = (inputs[1].f32s(), grain::zero_points(inputs));
        let mut y = cx.take(codes.len());
        let one = scales.len() == 1;
        let run = if one { CHUNK } else { blocks.inner };
        let runs = y.par_chunks_mut(run).zip(codes.par_chunks(run)).enumerate();
        runs.with_min_len(CHUNK.div_ceil(run)).for_each(|(row, (y, x))| {
            let (first, by) = if one { (0, 0) } else { blocks.scale_of(row) };
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                let at = first + i * by;
                *y = (i64::from(*x) - i64::from(zeros[at])) as f32 * scales[at];
            }
        });
        Ok(vec![Tensor::from_f32(x.shape(), y)])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let params = Params { grain: Blocks::new(self.grain, &x.shape, &io.inputs[1].shape).params() };
        let (zero, has_zero) = grain::zero_operand(&io.inputs);
        let bind = [Operand::Input(0), Operand::Input(1), zero, Operand::Output(0)];
        let dispatch = Dispatch::new(&KERNEL, &params, bind, flat_grid(x.len().div_ceil(4)));
        Ok(Lowering::run([dispatch.with("HAS_ZERO", has_zero)]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Dequantize(self.grain)
    }
}
