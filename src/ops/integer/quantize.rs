//! `Quantize` and `Dequantize`: between numbers and codes of one scale, as [`crate::quant`] defines both.
//!
//! *Shapes*: `[..] -> [..]`.

use super::filled::{Codes, filled};
use super::{read_params, write};
use crate::graph::codes::codes_of;
use crate::graph::epilogue::numbers;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, View, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeOutput, Op, OpDef, OpError, Reader, Scratch};
use crate::ops::unary::CHUNK;
use crate::quant::{Division, QParams, Rounding, Step};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `quantize.wgsl` and `dequantize.wgsl`.
    struct Params {
        n4: u32, c: u32, c4: u32, low: i32, high: i32, zero_point: i32, scale: f32, inverse: f32, slot: u32
    }
}

static TO_CODES: Kernel = crate::kernel!(
    "quantize",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/bits.wgsl",
        "shared/quantize.wgsl",
        "shared/nan_count.wgsl",
        "shared/codes.wgsl",
        "shared/store_codes.wgsl",
        "quantize.wgsl"
    ]
);
static TO_NUMBERS: Kernel = crate::kernel!(
    "dequantize",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/nearest.wgsl",
        "shared/codes.wgsl",
        "shared/load_codes.wgsl",
        "dequantize.wgsl"
    ]
);

pub(in crate::ops) static QUANTIZE: OpDef = OpDef {
    name: "Quantize",
    onnx: &[],
    read: |r| Ok(Arc::new(Quantize { params: read_one(r)? })),
    kernels: &[&TO_CODES],
    samples: |rng| samples(rng, true),
};

pub(in crate::ops) static DEQUANTIZE: OpDef = OpDef {
    name: "Dequantize",
    onnx: &[],
    read: |r| Ok(Arc::new(Dequantize { params: read_one(r)? })),
    kernels: &[&TO_NUMBERS],
    samples: |rng| samples(rng, false),
};

/// Numbers into codes.
///
/// # Panics
/// Parameters of several scales.
pub fn quantize(params: QParams) -> Arc<dyn Op> {
    assert_eq!(params.scales().len(), 1);
    Arc::new(Quantize { params })
}

/// Codes into numbers.
///
/// # Panics
/// Parameters of several scales.
pub fn dequantize(params: QParams) -> Arc<dyn Op> {
    assert_eq!(params.scales().len(), 1);
    Arc::new(Dequantize { params })
}

#[derive(Debug)]
struct Quantize {
    params: QParams,
}

#[derive(Debug)]
struct Dequantize {
    params: QParams,
}

fn read_one(r: &mut Reader) -> Result<QParams, OpError> {
    match read_params(r, "codes")? {
        Some(p) if p.scales().len() == 1 && p.axis().is_none() => Ok(p),
        _ => Err(r.unsupported("codes", "other parameters", "one scale and one zero point")),
    }
}

fn samples(rng: &mut Rng, numbers: bool) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 30));
    let mut out = Vec::new();
    for dtype in [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16] {
        for shape in [vec![7, c, 3, w], vec![2, c, w], vec![], vec![0, 3]] {
            let (low, high) = dtype.limits().expect("codes");
            let params = QParams::per_tensor(dtype, rng.float(0.5, 8.0) / high as f32, rng.code(low, high))
                .expect("legal");
            let params = params.rounded(rng.pick(&Rounding::ALL)).divided(rng.pick(&Division::ALL));
            let x = if numbers {
                SampleInput::of(shape, Fill::Range(-9.0, 9.0))
            } else {
                let n = shape.iter().product();
                let codes: Vec<i32> = (0..n).map(|_| rng.code(low, high)).collect();
                let codes = Tensor::from_codes(dtype, &shape, &codes).expect("within the type");
                SampleInput::of(shape, Fill::Exact(codes))
            };
            out.push(Sample::new(write(Attrs::new(), "codes", &params), [x]));
        }
    }
    out
}

fn dispatch(kernel: &'static Kernel, x: &View, step: &Step) -> Dispatch {
    let [n4, c, c4] = x.groups();
    let (low, high) = step.codes();
    let params = Params {
        n4,
        c,
        c4,
        low,
        high,
        zero_point: step.zero_point(),
        scale: step.scale(),
        inverse: step.inverse(),
        // Set by the plan, for what quantizes.
        slot: 0,
    };
    Dispatch::new(kernel, &params, [Operand::Input(0), Operand::Output(0)], flat_grid(n4 as usize))
}

impl Op for Quantize {
    fn def(&self) -> &'static OpDef {
        &QUANTIZE
    }

    fn attrs(&self) -> Attrs {
        write(Attrs::new(), "codes", &self.params)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        Ok(vec![TensorType { dtype: self.params.dtype(), shape: inputs[0].shape.clone() }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let numbers = Numbers { x: inputs[0].f32s(), step: self.params.step(0) };
        Ok(vec![filled(cx, self.params.dtype(), inputs[0].shape(), &numbers)])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::AnyPacked
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        if io.inputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let mut dispatch = dispatch(&TO_CODES, &io.inputs[0], &self.params.step(0));
        dispatch.overrides = numbers(self.params.rounding, self.params.division).to_vec();
        dispatch.overrides.push(("Y_FORM", io.outputs[0].form()));
        Ok(Lowering::run([dispatch]))
    }

    fn codes(&self) -> Option<CodeOutput> {
        Some(CodeOutput::codes(self.params.clone()))
    }
}

/// Numbers to be quantized.
struct Numbers<'a> {
    x: &'a [f32],
    step: Step,
}

impl Codes for Numbers<'_> {
    #[inline(always)]
    fn write<T>(&self, at: usize, out: &mut [T], narrow: impl Fn(i32) -> T + Copy) {
        self.step.quantize_all(&self.x[at..at + out.len()], out, narrow);
    }
}

impl Op for Dequantize {
    fn def(&self) -> &'static OpDef {
        &DEQUANTIZE
    }

    fn takes(&self, input: usize) -> Option<&QParams> {
        (input == 0).then_some(&self.params)
    }

    fn attrs(&self) -> Attrs {
        write(Attrs::new(), "codes", &self.params)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::dtype(inputs, 0, self.params.dtype(), self.params.dtype().name())?;
        Ok(vec![TensorType { dtype: DType::F32, shape: inputs[0].shape.clone() }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let step = self.params.step(0);
        let codes = codes_of(inputs, 0)?;
        let mut y = cx.take(codes.len());
        y.par_chunks_mut(CHUNK).zip(codes.par_chunks(CHUNK)).for_each(|(y, q)| {
            y.iter_mut().zip(q).for_each(|(y, q)| *y = step.dequantize(*q));
        });
        Ok(vec![Tensor::from_f32(inputs[0].shape(), y)])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::AnyPacked
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        if io.inputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let dispatch = dispatch(&TO_NUMBERS, &io.inputs[0], &self.params.step(0));
        Ok(Lowering::run([dispatch.with("X_FORM", io.inputs[0].form())]))
    }
}
