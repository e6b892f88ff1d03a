//! Problems on codes, made from those of every operator that has an integer form.

use super::{DEF, Integer};
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{CodeOutput, CodeParams, Op, QuantRule};
use crate::ops::{OPS, build};
use crate::quant::{Accumulator, Arithmetic, QParams, Requantize, Rounding};
use crate::tensor::{DType, Tensor, TensorType};
use std::sync::Arc;

/// Problems of one operator for each pair of types.
const EACH: usize = 4;

pub(super) fn samples(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for def in OPS.iter().filter(|d| !std::ptr::eq(**d, &DEF)) {
        let mut of_op = Vec::new();
        for sample in (def.samples)(rng) {
            let types: Vec<TensorType> =
                sample.inputs.iter().map(|i| TensorType::new(i.dtype(), i.shape.clone())).collect();
            if types.iter().any(|t| t.dtype != DType::F32) {
                continue;
            }
            let Ok(op) = build(def.name, sample.attrs.clone(), &types) else { continue };
            if op.has_integer_form() {
                of_op.push((op, sample, types));
            }
        }
        for dtypes in [
            [DType::I8, DType::I8],
            [DType::U8, DType::I8],
            [DType::I16, DType::I8],
            [DType::I16, DType::I16],
        ] {
            for _ in 0..EACH.min(of_op.len()) {
                let (op, sample, types) = &of_op[rng.int(0, of_op.len() - 1)];
                out.extend(on_codes(rng, op, sample, types, dtypes));
            }
        }
    }
    out
}

fn any_code(rng: &mut Rng, dtype: DType, n: usize) -> Vec<i32> {
    let (low, high) = dtype.limits().expect("codes");
    // Both ends among them, so that sums come near their bounds.
    (0..n).map(|i| if i < 2 { [low, high][i] } else { rng.code(low, high) }).collect()
}

fn params(rng: &mut Rng, dtype: DType, symmetric: bool, scale: f32) -> QParams {
    let (low, high) = dtype.limits().expect("codes");
    let zero = if symmetric { 0 } else { rng.code(low / 2, high / 2) };
    QParams::per_tensor(dtype, scale * rng.float(0.5, 1.5), zero).expect("legal")
}

/// A problem on codes of a problem on numbers; `None` where the types do not suit it.
fn on_codes(
    rng: &mut Rng,
    op: &Arc<dyn Op>,
    sample: &Sample,
    types: &[TensorType],
    dtypes: [DType; 2],
) -> Option<Sample> {
    let channel_axis = match op.quant_rule() {
        QuantRule::Gemm { channel_axis } => Some(channel_axis),
        _ => None,
    };
    let arithmetic = Arithmetic {
        requantize: rng.pick(&Requantize::ALL),
        rounding: rng.pick(&Rounding::ALL),
        accumulator: rng.pick(&[Accumulator::Exact, Accumulator::Saturating32]),
    };
    let wide = dtypes[0] == DType::I16;
    let mut inputs = Vec::new();
    let mut of_inputs = Vec::new();
    let shift = arithmetic.requantize == Requantize::Shift;
    let power = |p: QParams| -> QParams {
        let scales = p.scales().iter().map(|s| libm::exp2f(libm::floorf(libm::log2f(*s)))).collect();
        let made = QParams::new(p.dtype(), p.narrow(), scales, p.zero_points().to_vec(), p.axis());
        if shift { made.expect("legal") } else { p }
    };
    let mut k = 1usize;
    for (i, input) in sample.inputs.iter().enumerate() {
        let n: usize = input.shape.iter().product();
        if channel_axis.is_some() && i == 2 {
            let most = if wide { 1 << 20 } else { 1 << 12 };
            let channels = input.shape.iter().product::<usize>();
            if input.shape.len() != 1 && channels != 1 {
                return None;
            }
            let bias = (0..channels).map(|_| rng.code(-most, most)).collect();
            let bias = SampleInput::of([channels], Fill::Exact(Tensor::from_i32([channels], bias)));
            inputs.push(bias.constant());
            of_inputs.push(None);
            continue;
        }
        let dtype = if i == 0 || channel_axis.is_none() { dtypes[0] } else { dtypes[1] };
        let mut p = params(rng, dtype, dtype == DType::I16 || (channel_axis.is_some() && i == 1), 0.02);
        if let (Some(axis), 1, true) = (channel_axis, i, input.constant && rng.int(0, 1) == 1)
            && let Some(axis) = crate::graph::attrs::normalize_axis(axis, input.shape.len())
            && input.shape[axis] > 0
            && input.shape.len() > 1
        {
            let scales = (0..input.shape[axis]).map(|_| rng.float(0.01, 0.05)).collect();
            let zeros = vec![0; input.shape[axis]];
            p = QParams::per_channel(dtype, scales, zeros, axis).expect("legal");
        }
        if i == 1 {
            k = n.max(1);
        }
        let codes =
            Tensor::from_codes(dtype, &input.shape, &any_code(rng, dtype, n)).expect("within the type");
        inputs.push(SampleInput {
            shape: input.shape.clone(),
            fill: Fill::Exact(codes),
            constant: input.constant,
        });
        of_inputs.push(Some(power(p)));
    }
    let y = op.infer(types).ok()?.remove(0).dims()?;
    let out_dtype = if wide { DType::I16 } else { rng.pick(&[DType::I8, DType::U8]) };
    let spread =
        if channel_axis.is_some() { libm::sqrtf(k as f32) * if wide { 0.5 } else { 1.0 } } else { 1.0 };
    let out = power(params(rng, out_dtype, wide, 0.02 * spread));
    let (least, most) = out.codes();
    let output = match rng.int(0, 5) {
        0 if channel_axis.is_some() && !wide => CodeOutput::Sums,
        1 if channel_axis.is_some() => CodeOutput::Real,
        2 => {
            let low = out.zero_points()[0].clamp(least, most);
            CodeOutput::Codes { params: out, low, high: most - (most - low) / 4 }
        }
        _ => CodeOutput::codes(out),
    };
    let internals = op.internals(types).ok()?;
    let taps = internals.taps.iter().map(|tap| match tap.bound {
        Some(bound) => {
            let (_, high) = tap.dtype.limits().expect("codes");
            QParams::per_tensor(tap.dtype, bound / (high as f32 + 1.0), 0).expect("legal")
        }
        None => QParams::per_tensor(tap.dtype, 6.0 / 32768.0, 0).expect("legal"),
    });
    let mut p = CodeParams {
        inputs: of_inputs,
        output,
        internals: taps.collect(),
        addend: None,
        bound: 0,
        arithmetic,
    };
    if channel_axis.is_some() {
        p.bound = bound(&p, &inputs, k);
        if p.bound >= 1 << 47 || (arithmetic.requantize == Requantize::Shift && p.bound >= 1 << 31) {
            return None;
        }
        let codes = matches!(p.output, CodeOutput::Codes { .. });
        if codes && rng.int(0, 2) == 0 && arithmetic.requantize == Requantize::Fixed {
            let addend = params(rng, out_dtype, wide, 0.02);
            let n = y.iter().product();
            let codes =
                Tensor::from_codes(out_dtype, &y, &any_code(rng, out_dtype, n)).expect("within the type");
            inputs.push(SampleInput::of(y, Fill::Exact(codes)));
            p.addend = Some(addend);
        }
    }
    let op = Integer { op: Arc::clone(op), params: p };
    Some(Sample::new(op.attrs(), inputs))
}

/// No sum is larger, whichever axis it runs over.
fn bound(p: &CodeParams, inputs: &[SampleInput], k: usize) -> u64 {
    let farthest = |p: &Option<QParams>| {
        let p = p.as_ref().expect("both are codes");
        let (low, high) = p.codes();
        u64::from(low.abs_diff(p.zero_points()[0]).max(high.abs_diff(p.zero_points()[0])))
    };
    let bias = inputs.get(2).map_or(0, |_| 1u64 << 20);
    (k as u64) * farthest(&p.inputs[0]) * farthest(&p.inputs[1]) + bias
}
