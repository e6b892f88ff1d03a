//! Problems for the three operators.

use crate::graph::Attrs;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::tensor::{DType, Tensor};

const CODES: [DType; 6] = [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16];

/// Shapes of a tensor, its axis, block size, and the shape of its scales.
fn cases(rng: &mut Rng) -> Vec<(Vec<usize>, i64, usize, Vec<usize>)> {
    let (c, w) = (rng.int(2, 9), rng.int(1, 30));
    vec![
        (vec![7, c, 3, w], 1, 0, vec![]),
        (vec![7, c, 3, w], 1, 0, vec![c]),
        (vec![2, c, w], -2, 0, vec![c]),
        (vec![3, c], -1, 0, vec![c]),
        (vec![c, 5], 0, 0, vec![c]),
        (vec![c], 0, 0, vec![1]),
        (vec![], 1, 0, vec![]),
        (vec![0, 3], 1, 0, vec![3]),
        (vec![3, 5, c], 1, 2, vec![3, 3, c]),
        (vec![2, 7, w], 2, 4, vec![2, 7, w.div_ceil(4)]),
        (vec![9, c], 0, 3, vec![3, c]),
    ]
}

fn attrs(axis: i64, block: usize) -> Attrs {
    Attrs::new().int("axis", axis).int("block_size", i64::try_from(block).expect("small"))
}

fn codes(rng: &mut Rng, dtype: DType, shape: &[usize]) -> SampleInput {
    let (low, high) = dtype.limits().expect("integers");
    let codes: Vec<i32> = (0..shape.iter().product()).map(|_| rng.code(low, high)).collect();
    SampleInput::of(shape, Fill::Exact(Tensor::from_codes(dtype, shape, &codes).expect("in range")))
}

/// Scales by which numbers up to 9 take all the codes of a type.
fn scales(rng: &mut Rng, dtype: DType, shape: &[usize]) -> SampleInput {
    let high = dtype.limits().expect("integers").1 as f32;
    let values = (0..shape.iter().product()).map(|_| rng.float(0.5, 8.0) / high).collect();
    SampleInput::of(shape, Fill::Exact(Tensor::from_f32(shape, values)))
}

pub(super) fn quantize(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for dtype in CODES {
        for (i, (shape, axis, block, scale)) in cases(rng).into_iter().enumerate() {
            let x = SampleInput::of(shape, Fill::Range(-9.0, 9.0));
            let mut inputs = vec![x, scales(rng, dtype, &scale)];
            if i % 3 != 2 {
                inputs.push(codes(rng, dtype, &scale));
            }
            if i % 2 == 0 {
                inputs[1..].iter_mut().for_each(|i| i.constant = true);
            }
            out.push(Sample::new(attrs(axis, block).str("output_dtype", dtype.name()), inputs));
        }
    }
    out
}

pub(super) fn dequantize(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for dtype in CODES.into_iter().chain([DType::I32]) {
        for (i, (shape, axis, block, scale)) in cases(rng).into_iter().enumerate() {
            let mut inputs = vec![codes(rng, dtype, &shape), scales(rng, dtype, &scale)];
            if i % 3 != 2 && dtype != DType::I32 {
                inputs.push(codes(rng, dtype, &scale));
            }
            if i % 2 == 0 {
                inputs[1..].iter_mut().for_each(|i| i.constant = true);
            }
            out.push(Sample::new(attrs(axis, block), inputs));
        }
    }
    out
}

pub(super) fn dynamic(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(1, 40);
    let (low, high) = (rng.float(-9.0, -0.1), rng.float(0.1, 9.0));
    let mut out = Vec::new();
    for shape in [vec![], vec![w], vec![7, 3, w], vec![2, 1300, 2], vec![0, 3]] {
        for (low, high) in [(low, high), (0.5, high), (low, -0.05), (0.0, 0.0), (-1e-30, 1e-33)] {
            out.push(Sample::new(Attrs::new(), [SampleInput::of(shape.clone(), Fill::Range(low, high))]));
        }
    }
    let special = vec![f32::NAN, 3.0, -0.0, 1e-45, -2.5, f32::MIN_POSITIVE];
    let fill = Fill::Exact(Tensor::from_f32([6], special));
    out.push(Sample::new(Attrs::new(), [SampleInput::of([6], fill)]));
    out
}
