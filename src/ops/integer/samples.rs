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

/// Types of the first input and, in products, of the second.
const TYPES: [[DType; 2]; 7] = [
    [DType::I8, DType::I8],
    [DType::U8, DType::I8],
    [DType::U8, DType::U8],
    [DType::U4, DType::I4],
    [DType::I16, DType::I8],
    [DType::U16, DType::I8],
    [DType::I16, DType::I16],
];

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
        for dtypes in TYPES {
            // The widest sums are the only ones beyond 32 bits.
            let each = if dtypes == [DType::I16; 2] { 3 * EACH } else { EACH };
            for _ in 0..each.min(of_op.len()) {
                let (op, sample, types) = &of_op[rng.int(0, of_op.len() - 1)];
                out.extend(on_codes(rng, op, sample, types, dtypes));
            }
        }
    }
    out
}

/// Codes of all sizes with both ends among them, or the ends alone: sums of these come to their bounds.
fn any_code(rng: &mut Rng, dtype: DType, n: usize) -> Vec<i32> {
    let (low, high) = dtype.limits().expect("codes");
    match rng.int(0, 9) {
        0 => vec![rng.pick(&[low, high]); n],
        1 => (0..n).map(|_| rng.pick(&[low, high])).collect(),
        _ => (0..n).map(|i| [low, high].get(i).copied().unwrap_or_else(|| rng.code(low, high))).collect(),
    }
}

/// Root of the mean square of codes of a type, from their zero point.
fn size(dtype: DType) -> f32 {
    let (low, high) = dtype.limits().expect("codes");
    high.abs_diff(low) as f32 / libm::sqrtf(12.0)
}

/// Parameters of about this scale; now and then of one far away.
fn params(rng: &mut Rng, dtype: DType, symmetric: bool, scale: f32) -> QParams {
    let (low, high) = dtype.limits().expect("codes");
    let zero = if symmetric { low.max(0) } else { rng.code(low / 2, high / 2) };
    let far = if rng.int(0, 11) == 0 { libm::exp2f(rng.float(-40.0, 40.0)) } else { 1.0 };
    QParams::per_tensor(dtype, scale * far * rng.float(0.5, 1.5), zero).expect("legal")
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
    let [x, w] = dtypes;
    let accumulators: Vec<Accumulator> =
        Accumulator::ALL.into_iter().filter(|a| channel_axis.is_none() || a.takes(x, w)).collect();
    // A transposed convolution has no order of its pairs.
    let accumulators = if op.def().name == "ConvTranspose" { &accumulators[..2] } else { &accumulators[..] };
    let arithmetic = Arithmetic {
        requantize: rng.pick(&Requantize::ALL),
        rounding: rng.pick(&Rounding::ALL),
        accumulator: rng.pick(accumulators),
    };
    let wide = [DType::I16, DType::U16].contains(&dtypes[0]);
    let mut most_bias = 0u64;
    let mut inputs = Vec::new();
    let mut of_inputs = Vec::new();
    // Halves are seen with powers of two only.
    let shift = arithmetic.requantize == Requantize::Shift || rng.int(0, 3) == 0;
    let power = |p: QParams| -> QParams {
        let scales = p.scales().iter().map(|s| libm::exp2f(libm::floorf(libm::log2f(*s)))).collect();
        let made = QParams::new(p.dtype(), p.narrow(), scales, p.zero_points().to_vec(), p.axis());
        if shift { made.expect("legal") } else { p }
    };
    // One more than the products of a sum.
    let k = sample.reduction;
    for (i, input) in sample.inputs.iter().enumerate() {
        let n: usize = input.shape.iter().product();
        if channel_axis.is_some() && i == 2 {
            let most = rng.pick(&[1 << 12, 1 << 20, i32::MAX - 1]);
            most_bias = most.unsigned_abs().into();
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
        let symmetric = if channel_axis.is_some() && i == 1 { rng.int(0, 3) > 0 } else { rng.int(0, 3) == 0 };
        // Points about the picture.
        let fine = if op.def().name == "GridSample" && i == 1 && wide { 1.0 / 256.0 } else { 1.0 };
        let mut p = params(rng, dtype, symmetric, 0.02 * fine);
        if let (Some(axis), 1, true) = (channel_axis, i, input.constant && rng.int(0, 1) == 1)
            && let Some(axis) = crate::graph::attrs::normalize_axis(axis, input.shape.len())
            && input.shape[axis] > 0
            && input.shape.len() > 1
        {
            let scales = (0..input.shape[axis]).map(|_| rng.float(0.01, 0.05)).collect();
            let (low, high) = dtype.limits().expect("codes");
            let zeros =
                (0..input.shape[axis]).map(|_| if symmetric { 0 } else { rng.code(low, high) }).collect();
            p = QParams::per_channel(dtype, scales, zeros, axis).expect("legal");
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
    let out_dtype =
        if wide { rng.pick(&[DType::I16, DType::U16]) } else { rng.pick(&[DType::I8, DType::U8]) };
    let scale = |i: usize| of_inputs.get(i).and_then(Option::as_ref).map_or(1.0, |p| p.scales()[0]);
    let own = scale(0) * size(dtypes[0]);
    // Of which the output's codes are about as large as codes are.
    let real = if channel_axis.is_some() {
        2.0 * own * scale(1) * size(dtypes[1]) * libm::sqrtf(k as f32)
    } else if op.def().name == "ReduceSum" {
        own * libm::sqrtf(k as f32)
    } else if op.def().name == "Mul" {
        2.0 * own * scale(1) * size(dtypes[0])
    } else {
        own.max(if types.len() > 1 { scale(1) * size(dtypes[0]) } else { 0.0 })
    };
    let fitting = (real / size(out_dtype)).clamp(1e-9, 1e9);
    let symmetric = rng.int(0, 1) == 0;
    let mut out = power(params(rng, out_dtype, symmetric, fitting));
    if types.len() == 1 && rng.int(0, 1) == 0 {
        // Means of equal scales have halves.
        out = QParams::per_tensor(out_dtype, scale(0), out.zero_points()[0]).expect("legal");
    }
    let (least, most) = out.codes();
    let output = match rng.int(0, 5) {
        0 if channel_axis.is_some() => CodeOutput::Sums,
        1 if channel_axis.is_some() || matches!(op.quant_rule(), QuantRule::Mean) => CodeOutput::Real,
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
        p.bound = bound(&p, k) + most_bias;
        if p.bound >= 1 << 47 {
            return None;
        }
        let codes = matches!(p.output, CodeOutput::Codes { .. });
        if codes && rng.int(0, 2) == 0 {
            let addend = params(rng, out_dtype, symmetric, fitting);
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
fn bound(p: &CodeParams, k: usize) -> u64 {
    let farthest = |p: &Option<QParams>| {
        let p = p.as_ref().expect("both are codes");
        let (low, high) = p.codes();
        let most = p.zero_points().iter().map(|z| low.abs_diff(*z).max(high.abs_diff(*z))).max();
        u64::from(most.unwrap_or(0))
    };
    let taken_away = p.arithmetic.accumulator.takes_away(i8::MIN.into());
    (k as u64) * (farthest(&p.inputs[0]) * farthest(&p.inputs[1]) + taken_away)
}
