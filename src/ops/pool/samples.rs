//! Sample problems of the pools.

use crate::graph::Attrs;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::tensor::Tensor;

/// A window and the shape under it.
struct Case {
    shape: Vec<usize>,
    kernel: &'static [usize],
    strides: &'static [usize],
    dilations: &'static [usize],
    pads: &'static [usize],
    auto_pad: &'static str,
    ceil: i64,
}

fn cases(rng: &mut Rng) -> Vec<Case> {
    let (c, h, w) = (rng.int(1, 9), rng.int(5, 12), rng.int(5, 20));
    let case = |shape: &[usize], kernel, strides, dilations, pads, auto_pad, ceil| Case {
        shape: shape.into(),
        kernel,
        strides,
        dilations,
        pads,
        auto_pad,
        ceil,
    };
    vec![
        case(&[7, c, h, w], &[3, 3], &[2, 2], &[1, 1], &[1, 1, 1, 1], "NOTSET", 0),
        case(&[1, c, h, w], &[3, 2], &[2, 3], &[1, 1], &[1, 0, 0, 1], "NOTSET", 1),
        case(&[2, 8, h, w], &[2, 3], &[1, 2], &[2, 1], &[1, 2, 2, 1], "NOTSET", 1),
        case(&[2, c, h, w], &[3, 4], &[2, 2], &[1, 1], &[0, 0, 0, 0], "SAME_UPPER", 0),
        case(&[2, c, h, w], &[2, 3], &[1, 2], &[1, 1], &[0, 0, 0, 0], "SAME_LOWER", 0),
        case(&[1, c, h, w], &[2, 2], &[2, 2], &[1, 2], &[0, 0, 0, 0], "VALID", 0),
        case(&[2, c, w], &[4], &[3], &[1], &[1, 2], "NOTSET", 1),
        case(&[1, c, 4, h, w], &[2, 3, 2], &[1, 2, 2], &[1, 1, 2], &[0, 1, 1, 1, 1, 0], "NOTSET", 0),
        case(&[0, c, h, w], &[2, 2], &[1, 1], &[1, 1], &[0, 0, 0, 0], "NOTSET", 0),
    ]
}

fn attrs(c: &Case) -> Attrs {
    Attrs::new()
        .sizes("kernel_shape", c.kernel)
        .sizes("strides", c.strides)
        .sizes("dilations", c.dilations)
        .str("auto_pad", c.auto_pad)
        .sizes("pads", c.pads)
        .int("ceil_mode", c.ceil)
}

pub(super) fn max(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for (i, c) in cases(rng).iter().enumerate() {
        for indices in 0..2 {
            let attrs =
                attrs(c).int("storage_order", indices * i64::from(i % 2 == 1)).int("indices", indices);
            // Few distinct values, so that windows have several largest elements.
            let n = c.shape.iter().product();
            let x = match i % 3 {
                0 => Fill::Range(-2.0, 2.0),
                #[allow(clippy::cast_precision_loss, reason = "small")]
                1 => Fill::Exact(Tensor::from_f32(
                    c.shape.clone(),
                    (0..n).map(|_| rng.int(0, 3) as f32 - 2.0).collect(),
                )),
                _ => Fill::Exact(Tensor::from_i8(
                    c.shape.clone(),
                    (0..n).map(|_| i8::try_from(rng.int(0, 9)).expect("small") - 5).collect(),
                )),
            };
            out.push(Sample::new(attrs, [SampleInput::of(c.shape.clone(), x)]));
        }
    }
    out
}

pub(super) fn average(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for c in cases(rng) {
        for padded in 0..2 {
            let attrs = attrs(&c).int("count_include_pad", padded);
            let sample = Sample::new(attrs, [SampleInput::f32(c.shape.clone())]);
            out.push(sample.reduction(c.kernel.iter().product()));
        }
    }
    out
}

pub(super) fn lp(rng: &mut Rng) -> Vec<Sample> {
    let one = |(c, p): (Case, i64)| {
        let x = SampleInput::f32(c.shape.clone());
        let sample =
            Sample::new(attrs(&c).int("p", p), [x]).reduction(8 + c.kernel.iter().product::<usize>());
        // pow of a driver has the error of exp2(y * log2(x)): 2^-21 absolute of the logarithm (Vulkan specification).
        sample.extra(if p > 2 { 1e-5 } else { 0.0 })
    };
    cases(rng).into_iter().zip([2, 1, 3, 2, 2, 1, 5, 2, 2]).map(one).collect()
}
