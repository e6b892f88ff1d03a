//! `QuantizeLinear`: y = clamp(round(x / scale) + zero_point), the quotient rounded to f32, halves to even; NaN becomes
//! the zero point. A scale that is computed and lies outside 2^-100..2^100 is an error on the CPU; a GPU clamps it.
//!
//! *Shapes*: x `[..]`, scale `[]`, `[d of the axis]` or x's with blocks along the axis, zero point as scale `-> [..]`.

use super::grain::{self, Blocks};
use super::samples;
use crate::graph::attrs::{AttrValue, onnx_dtype};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::{Attrs, Grain, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::ops::unary::CHUNK;
use crate::quant::{Division, QParams, Rounding, Step};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `quantize_linear.wgsl`.
    pub(super) struct Params { grain: grain::GrainParams, low: i32, high: i32 }
}

pub(super) static KERNEL: Kernel = crate::kernel!(
    "quantize_linear",
    Params,
    [
        "shared/grid.wgsl",
        "shared/bits.wgsl",
        "shared/quantize.wgsl",
        "shared/grain.wgsl",
        "quantize_linear.wgsl"
    ]
);

pub(in crate::ops) static DEF: OpDef = OpDef {
    name: "QuantizeLinear",
    onnx: &["QuantizeLinear", "com.microsoft:QuantizeLinear"],
    read,
    kernels: &[&KERNEL],
    samples: samples::quantize,
};

#[derive(Debug)]
struct QuantizeLinear {
    grain: Grain,
    dtype: DType,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let grain = grain::read(r)?;
    let stated = match r.raw("output_dtype") {
        None | Some(AttrValue::Int(0)) => None,
        Some(v) => {
            let dtype = match &v {
                AttrValue::Int(number) => onnx_dtype(*number),
                AttrValue::Str(name) => DType::from_name(name),
                _ => None,
            };
            Some(
                dtype
                    .filter(|d| grain::is_code(*d))
                    .ok_or_else(|| r.unsupported("output_dtype", v, grain::CODES))?,
            )
        }
    };
    grain::check_known_scale(r)?;
    let of_zero = if r.has_input(2) { Some(r.input(2)?.dtype) } else { None };
    let dtype = stated.or(of_zero).unwrap_or(DType::U8);
    Ok(Arc::new(QuantizeLinear { grain, dtype }))
}

/// The kernel over an input with these scales.
pub(super) fn dispatch(
    blocks: &Blocks,
    dtype: DType,
    n: usize,
    bind: [Operand; 4],
    has_zero: u32,
) -> Dispatch {
    let (low, high) = dtype.limits().expect("the type was checked");
    let params = Params { grain: blocks.params(), low, high };
    let division =
        Division::ALL.iter().position(|d| *d == Division::Divide).map_or(0, crate::graph::lower::u32);
    Dispatch::new(&KERNEL, &params, bind, flat_grid(n.div_ceil(4)))
        .with("DIVISION", division)
        .with("HAS_ZERO", has_zero)
}

/// The codes of numbers, in runs that `blocks` tells.
pub(super) fn codes(x: &[f32], blocks: &Blocks, steps: &[Step]) -> Vec<i32> {
    let mut y = vec![0; x.len()];
    let run = if steps.len() == 1 { CHUNK } else { blocks.inner };
    let runs = y.par_chunks_mut(run).zip(x.par_chunks(run)).enumerate();
    runs.with_min_len(CHUNK.div_ceil(run)).for_each(|(row, (y, x))| {
        let (first, by) = if steps.len() == 1 { (0, 0) } else { blocks.scale_of(row) };
        for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
            *y = steps[first + i * by].quantize(*x);
        }
    });
    y
}

/// The step function of each scale.
fn steps(dtype: DType, inputs: &[Tensor]) -> Result<Vec<Step>, OpError> {
    let scales = inputs[1].f32s().to_vec();
    if let Some(s) = scales.iter().find(|s| !grain::legal(**s)) {
        let (name, supported) = ("y_scale".to_owned(), grain::SCALES.to_owned());
        return Err(OpError::Attribute { name, value: format!("{s:?}"), supported });
    }
    let n = scales.len();
    let params = QParams::per_channel(dtype, scales, grain::zero_points(inputs), 0);
    let params = params.expect("the scales were checked, zero points are of the type of the codes");
    let params = params.rounded(Rounding::HalfEven).divided(Division::Divide);
    Ok((0..n).map(|i| params.step(i)).collect())
}

impl Op for QuantizeLinear {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        grain::attrs(self.grain).str("output_dtype", self.dtype.name()).at_place(Place::Type)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        grain::check(self.grain, inputs)?;
        check::f32(inputs, 0)?;
        if !grain::is_code(self.dtype) {
            return Err(OpError::DType { input: 2, expected: grain::CODES, got: self.dtype });
        }
        if let Some(zero) = inputs.get(2).filter(|z| z.dtype != self.dtype) {
            return Err(OpError::DType {
                input: 2,
                expected: "of the type that output_dtype says",
                got: zero.dtype,
            });
        }
        Ok(vec![TensorType { dtype: self.dtype, shape: inputs[0].shape.clone() }])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let blocks = Blocks::new(self.grain, x.shape(), inputs[1].shape());
        let codes = codes(x.f32s(), &blocks, &steps(self.dtype, inputs)?);
        Ok(vec![Tensor::from_codes(self.dtype, x.shape(), &codes).expect("clamped to the type")])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let blocks = Blocks::new(self.grain, &x.shape, &io.inputs[1].shape);
        let (zero, has_zero) = grain::zero_operand(&io.inputs);
        let bind = [Operand::Input(0), Operand::Input(1), zero, Operand::Output(0)];
        Ok(Lowering::run([dispatch(&blocks, self.dtype, x.len(), bind, has_zero)]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Quantize(self.grain)
    }
}
