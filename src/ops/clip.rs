//! `Clip`: elements between two bounds, either of which may be missing. Where they cross, the upper one wins.
//!
//! *Shapes*: `[..] -> [..]`.

use super::pointwise;
use super::unary::CHUNK;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Epilogue, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `clip_i32.wgsl`.
    struct Params { n4: u32, c: u32, c4: u32, low: i32, high: i32 }
}

static I32: Kernel =
    crate::kernel!("clip_i32", Params, ["shared/grid.wgsl", "shared/lanes.wgsl", "clip_i32.wgsl"]);

pub(super) static DEF: OpDef =
    OpDef { name: "Clip", onnx: &["Clip"], read, kernels: &[&pointwise::KERNEL, &I32], samples };

/// Bounds in the type of the tensor.
#[derive(Clone, Copy, Debug)]
enum Clip {
    F32(Option<f32>, Option<f32>),
    I32(Option<i32>, Option<i32>),
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let got = r.input(0).map(|t| t.dtype);
    if got.is_err() {
        // The bounds were attributes until opset 10, always numbers.
        r.float("min", 0.0)?;
        r.float("max", 0.0)?;
    }
    let got = got?;
    Ok(Arc::new(match got {
        DType::F32 => {
            let mut bound = |name: &str, input| {
                let v = r.float_or_input(name, input)?;
                if v.is_some_and(f32::is_nan) {
                    return Err(r.unsupported(name, "NaN", "numbers"));
                }
                Ok(v)
            };
            Clip::F32(bound("min", 1)?, bound("max", 2)?)
        }
        DType::I32 => {
            // Beyond what an i32 holds a bound is no bound.
            #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
            let narrow = |v: i64| v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            Clip::I32(r.int_or_input("min", 1)?.map(narrow), r.int_or_input("max", 2)?.map(narrow))
        }
        got => return Err(OpError::DType { input: 0, expected: "f32 or i32", got }),
    }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 40));
    let mut out = Vec::new();
    for shape in [vec![], vec![w], vec![7, c, 3, w], vec![1, c, w], vec![2, 1, 3, 1, 2, w], vec![0, 3]] {
        let x = SampleInput::f32(shape.clone());
        for attrs in [
            Attrs::new(),
            Attrs::new().float("min", -0.7),
            Attrs::new().float("max", 1.1),
            Attrs::new().float("min", 0.0).float("max", 6.0),
            Attrs::new().float("min", 0.5).float("max", -0.5),
        ] {
            out.push(Sample::new(attrs, [x.clone()]));
        }
        let x = SampleInput::of(shape, Fill::Ints(i32::MIN, i32::MAX));
        for attrs in [
            Attrs::new(),
            Attrs::new().int("min", -16_777_217),
            Attrs::new().int("min", -5).int("max", 2_000_000_001),
        ] {
            out.push(Sample::new(attrs, [x.clone()]));
        }
    }
    out
}

impl Clip {
    fn dtype(self) -> DType {
        match self {
            Clip::F32(..) => DType::F32,
            Clip::I32(..) => DType::I32,
        }
    }

    /// What ONNX says of a missing bound: the lowest, the highest finite number.
    fn f32s(low: Option<f32>, high: Option<f32>) -> (f32, f32) {
        (low.unwrap_or(f32::MIN), high.unwrap_or(f32::MAX))
    }

    fn i32s(low: Option<i32>, high: Option<i32>) -> (i32, i32) {
        (low.unwrap_or(i32::MIN), high.unwrap_or(i32::MAX))
    }
}

impl Op for Clip {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        match *self {
            Clip::F32(low, high) => {
                let attrs =
                    low.iter().fold(Attrs::new(), |a, v| a.float("min", *v).at_place(Place::Element(1)));
                high.iter().fold(attrs, |a, v| a.float("max", *v).at_place(Place::Element(2)))
            }
            Clip::I32(low, high) => {
                let attrs = low
                    .iter()
                    .fold(Attrs::new(), |a, v| a.int("min", i64::from(*v)).at_place(Place::Element(1)));
                high.iter().fold(attrs, |a, v| a.int("max", i64::from(*v)).at_place(Place::Element(2)))
            }
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (bounds are attributes)")?;
        check::dtype(inputs, 0, self.dtype(), "of the type of the bounds")?;
        Ok(vec![inputs[0].clone()])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        Ok(vec![match *self {
            Clip::F32(low, high) => {
                let (low, high) = Clip::f32s(low, high);
                let mut y = cx.take(x.len());
                y.par_chunks_mut(CHUNK).zip(x.f32s().par_chunks(CHUNK)).for_each(|(y, x)| {
                    for (y, x) in y.iter_mut().zip(x) {
                        // Not `max` and `min`, which drop a NaN.
                        let v = if *x < low { low } else { *x };
                        *y = if v > high { high } else { v };
                    }
                });
                Tensor::from_f32(x.shape(), y)
            }
            Clip::I32(low, high) => {
                let (low, high) = Clip::i32s(low, high);
                Tensor::from_i32(x.shape(), x.i32s().iter().map(|x| (*x).max(low).min(high)).collect())
            }
        }])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let (low, high) = match *self {
            Clip::F32(low, high) => {
                let (low, high) = Clip::f32s(low, high);
                return Ok(pointwise::lower(x, Epilogue::clamp(low, high)));
            }
            Clip::I32(low, high) => Clip::i32s(low, high),
        };
        let [n4, c, c4] = x.groups();
        let params = Params { n4, c, c4, low, high };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&I32, &params, bind, flat_grid(n4 as usize))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match *self {
            Clip::F32(low, high) => {
                let (low, high) = Clip::f32s(low, high);
                QuantRule::Clamp { low, high }
            }
            Clip::I32(..) => QuantRule::Float,
        }
    }
}
