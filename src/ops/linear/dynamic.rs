//! `DynamicQuantizeLinear`: u8 codes by the range of the tensor itself, zero included. scale = (max - min) / 255, or 1
//! where there is no range; zero_point = clamp(round(-min / scale)); then as `QuantizeLinear`.
//!
//! *Shapes*: `[..] -> [..], [], []`: codes, scale, zero point. NaN and what is smaller than 2^-126 have no part in the range.

use super::grain::Blocks;
use super::{quantize, samples};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, u32};
use crate::graph::op::check;
use crate::graph::{Attrs, Grain, Op, OpDef, OpError, Reader, Scratch};
use crate::quant::{Division, QParams, SCALE_MAX, SCALE_MIN};
use crate::tensor::{DType, Tensor, TensorType};
use std::sync::Arc;

/// Invocations that look for the range, each in a share of the elements.
const SEEKERS: usize = 1024;

crate::params! {
    /// `Params` of `dynamic_range.wgsl` and `dynamic_scale.wgsl`.
    struct Params { n: u32, seekers: u32 }
}

static RANGE: Kernel =
    crate::kernel!("dynamic_range", Params, ["shared/grid.wgsl", "shared/bits.wgsl", "dynamic_range.wgsl"]);
static SCALE: Kernel = crate::kernel!(
    "dynamic_scale",
    Params,
    ["shared/bits.wgsl", "shared/quantize.wgsl", "dynamic_scale.wgsl"]
);

pub(in crate::ops) static DEF: OpDef = OpDef {
    name: "DynamicQuantizeLinear",
    onnx: &["DynamicQuantizeLinear"],
    read: |_: &mut Reader| Ok(Arc::new(DynamicQuantizeLinear)),
    kernels: &[&RANGE, &SCALE, &quantize::KERNEL],
    samples: samples::dynamic,
};

/// One scale for the whole tensor.
const GRAIN: Grain = Grain { axis: 0, block: 0 };

#[derive(Debug)]
struct DynamicQuantizeLinear;

/// The scale of a range that begins at or below zero and ends at or above it.
fn scale(min: f32, max: f32) -> f32 {
    if min == max { 1.0 } else { ((max - min) / 255.0).clamp(SCALE_MIN, SCALE_MAX) }
}

fn per_tensor(scale: f32, zero_point: i32) -> QParams {
    let params = QParams::per_tensor(DType::U8, scale, zero_point).expect("within the limits");
    params.divided(Division::Divide)
}

impl Op for DynamicQuantizeLinear {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        check::dims(inputs, 0)?;
        let codes = TensorType { dtype: DType::U8, shape: inputs[0].shape.clone() };
        let one = |dtype| TensorType::new(dtype, [] as [usize; 0]);
        Ok(vec![codes, one(DType::F32), one(DType::U8)])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        // `min` and `max` drop NaN.
        let seen = x.f32s().iter().filter(|x| !x.is_subnormal());
        let (min, max) = seen.fold((0f32, 0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = scale(min, max);
        let zero_point = per_tensor(scale, 0).step(0).quantize(-min);
        let blocks = Blocks::new(GRAIN, x.shape(), &[]);
        let codes = quantize::codes(x.f32s(), &blocks, &[per_tensor(scale, zero_point).step(0)]);
        let u8s =
            |shape: &[usize], codes: &[i32]| Tensor::from_codes(DType::U8, shape, codes).expect("clamped");
        Ok(vec![u8s(x.shape(), &codes), Tensor::scalar(scale), u8s(&[], &[zero_point])])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        let seekers = x.len().min(SEEKERS);
        let params = Params { n: u32(x.len()), seekers: u32(seekers) };
        let groups = seekers.div_ceil(crate::graph::lower::FLAT_WORKGROUP as usize);
        let range =
            Dispatch::new(&RANGE, &params, [Operand::Input(0), Operand::Temp(0)], [u32(groups), 1, 1]);
        let bind = [Operand::Temp(0), Operand::Output(1), Operand::Output(2)];
        let division = Division::ALL.iter().position(|d| *d == Division::Divide).map_or(0, u32);
        let scale = Dispatch::new(&SCALE, &params, bind, [1, 1, 1]).with("DIVISION", division);
        let mut dispatches = vec![scale];
        if !x.is_empty() {
            let blocks = Blocks::new(GRAIN, &x.shape, &[]);
            let bind = [Operand::Input(0), Operand::Output(1), Operand::Output(2), Operand::Output(0)];
            dispatches.insert(0, range);
            dispatches.push(quantize::dispatch(&blocks, DType::U8, x.len(), bind, 1));
        }
        let temps = vec![8 * seekers.max(1) as u64];
        Ok(Lowering::Run { dispatches, temps, tables: Vec::new() })
    }
}
