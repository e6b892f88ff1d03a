//! `NonMaxSuppression`: the best boxes of each class that do not overlap a better one too much.
//!
//! *Shapes*: `[n, boxes, 4], [n, c, boxes] -> i32[n * c * min(max, boxes), 3]`, rows `(image, class, box)`.
//!
//! How many boxes are selected depends on the data, and shapes here do not: the output has room for all that could be,
//! the selected ones come first in ONNX's order, and every row behind them is `(-1, -1, -1)`.

use crate::graph::lower::{Io, Lowering};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

pub(super) static DEF: OpDef =
    OpDef { name: "NonMaxSuppression", onnx: &["NonMaxSuppression"], read, kernels: &[], samples };

#[derive(Debug)]
struct NonMaxSuppression {
    /// Boxes are `[x, y, width, height]` around the centre, else two opposite corners `[y, x, y, x]`.
    center: bool,
    /// Most boxes of one class of one image.
    max: usize,
    iou_threshold: f32,
    score_threshold: Option<f32>,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let center = r.flag("center_point_box", false)?;
    let max = r.int_or_input("max_output_boxes_per_class", 2)?.unwrap_or(0);
    let max = usize::try_from(max.max(0)).unwrap_or(usize::MAX);
    let iou_threshold = r.float_or_input("iou_threshold", 3)?.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&iou_threshold) {
        return Err(r.unsupported("iou_threshold", iou_threshold, "0 to 1"));
    }
    let score_threshold = r.float_or_input("score_threshold", 4)?;
    Ok(Arc::new(NonMaxSuppression { center, max, iou_threshold, score_threshold }))
}

/// Lowest and highest corner.
#[derive(Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    fn new(b: &[f32], center: bool) -> Corners {
        if center {
            let (w, h) = (b[2] / 2.0, b[3] / 2.0);
            return Corners { low: [b[0] - w, b[1] - h], high: [b[0] + w, b[1] + h] };
        }
        Corners { low: [b[0].min(b[2]), b[1].min(b[3])], high: [b[0].max(b[2]), b[1].max(b[3])] }
    }

    fn area(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Whether the intersection is more than `threshold` of the union.
    fn overlaps(&self, other: &Corners, threshold: f32) -> bool {
        let side = |i: usize| (self.high[i].min(other.high[i]) - self.low[i].max(other.low[i])).max(0.0);
        let both = side(0) * side(1);
        let union = self.area() + other.area() - both;
        both > 0.0 && union > 0.0 && both / union > threshold
    }
}

impl NonMaxSuppression {
    /// Boxes of one class of one image, best first.
    fn select(&self, boxes: &[f32], scores: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> =
            (0..scores.len()).filter(|i| self.score_threshold.is_none_or(|t| scores[*i] > t)).collect();
        // Stable: of equal scores the box in front comes first.
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let mut kept: Vec<(usize, Corners)> = Vec::new();
        for i in order {
            if kept.len() >= self.max {
                break;
            }
            let corners = Corners::new(&boxes[4 * i..4 * i + 4], self.center);
            if !kept.iter().any(|(_, k)| k.overlaps(&corners, self.iou_threshold)) {
                kept.push((i, corners));
            }
        }
        kept.into_iter().map(|(i, _)| i).collect()
    }
}

impl Op for NonMaxSuppression {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new()
            .int("center_point_box", i64::from(self.center))
            .int("max_output_boxes_per_class", i64::try_from(self.max).unwrap_or(i64::MAX))
            .at_place(Place::Input(2))
            .float("iou_threshold", self.iou_threshold)
            .at_place(Place::Input(3))
            .wide_output(0);
        match self.score_threshold {
            Some(t) => attrs.float("score_threshold", t).at_place(Place::Input(4)),
            None => attrs,
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2 (the limits are attributes)")?;
        for (i, t) in inputs.iter().enumerate() {
            check::f32(inputs, i)?;
            if t.rank() != 3 {
                return Err(OpError::Rank { input: i, expected: "3", got: t.rank() });
            }
        }
        let (boxes, scores) = (&inputs[0], &inputs[1]);
        // What is selected in one image moves the rows of the next.
        check::frames_apart(inputs, 0, [0])?;
        let count = check::fixed(inputs, 0, 1)?;
        if boxes.shape[2] != Dim::Fixed(4) {
            return Err(OpError::shape(0, "[n, boxes, 4]", boxes));
        }
        if scores.shape[0] != boxes.shape[0] || scores.shape[2] != boxes.shape[1] {
            let expected = format!("[{}, classes, {count}]", boxes.shape[0]);
            return Err(OpError::shape(1, expected, scores));
        }
        let each = Dim::Fixed(check::fixed(inputs, 1, 1)?).times(Dim::Fixed(self.max.min(count)));
        let rows = each.and_then(|e| e.times(boxes.shape[0]));
        let rows = rows.ok_or_else(|| OpError::TooLarge { shape: format!("for {scores}") })?;
        let out = TensorType { dtype: DType::I32, shape: vec![rows, Dim::Fixed(3)] };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
        let shape = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let (boxes, scores) = (inputs[0].f32s(), inputs[1].f32s());
        let (c, count) = (inputs[1].shape()[1], inputs[1].shape()[2]);
        let mut y = vec![-1; shape[0] * 3];
        if !y.is_empty() {
            let of_class = |(i, scores): (usize, &[f32])| {
                let boxes = &boxes[i / c * count * 4..][..count * 4];
                self.select(boxes, scores).into_iter().map(|b| [i / c, i % c, b]).collect::<Vec<_>>()
            };
            let rows: Vec<[usize; 3]> =
                scores.par_chunks(count).enumerate().map(of_class).flatten_iter().collect();
            for (y, v) in y.iter_mut().zip(rows.into_iter().flatten()) {
                *y = i32::try_from(v).expect("axes are shorter than 2^31");
            }
        }
        Ok(vec![Tensor::from_i32(shape, y)])
    }

    fn lower(&self, _io: &Io) -> Result<Lowering, OpError> {
        Err(OpError::NoKernel { reason: "each box depends on every better one" })
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let count = rng.int(1, 30);
    let case = |center: i64, max: i64, score: Option<f32>, n: usize, c: usize| {
        let attrs = Attrs::new()
            .int("center_point_box", center)
            .int("max_output_boxes_per_class", max)
            .float("iou_threshold", 0.3);
        let attrs = score.iter().fold(attrs, |a, s| a.float("score_threshold", *s));
        let unit = |shape: [usize; 3]| SampleInput::of(shape, Fill::Range(0.0, 1.0));
        Sample::new(attrs, [unit([n, count, 4]), unit([n, c, count])])
    };
    vec![
        case(0, 5, Some(0.4), 7, 2),
        case(1, 100, None, 1, 3),
        case(0, 0, None, 2, 1),
        case(0, 3, None, 0, 1),
    ]
}
