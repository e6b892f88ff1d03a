//! What is measured on a model's outputs: accuracy where there are labels, agreement with another model, and metrics
//! of the user's own.

use crate::tensor::Tensor;

/// Outputs of one batch, axis 0 = frame, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    /// Name and values of each output of the model.
    pub outputs: &'a [(String, Tensor)],
    /// Class of each frame, where the data set has labels.
    pub labels: Option<&'a [i64]>,
    /// Name of each frame.
    pub ids: &'a [String],
}

impl<'a> Frames<'a> {
    /// The output called `name`; its axis 0 counts the frames.
    ///
    /// # Errors
    /// No such output, or one that does not have one row per frame.
    pub fn output(&self, name: &str) -> Result<&'a Tensor, MetricError> {
        let found = self.outputs.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let tensor = found.ok_or_else(|| MetricError::NoOutput {
            name: name.into(),
            outputs: self.outputs.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>().join(", "),
        })?;
        if tensor.shape().first() != Some(&self.ids.len()) {
            return Err(MetricError::Frames {
                name: name.into(),
                shape: tensor.shape().to_vec(),
                frames: self.ids.len(),
            });
        }
        Ok(tensor)
    }
}

/// Why a metric cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The model has no such output.
    #[error("no output {name:?}; there are {outputs}")]
    NoOutput {
        /// The output that was asked for.
        name: String,
        /// Those there are.
        outputs: String,
    },
    /// Axis 0 does not count the frames.
    #[error("output {name} has shape {shape:?} for {frames} frames; axis 0 must count them")]
    Frames {
        /// The output.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Frames of the batch.
        frames: usize,
    },
    /// The data set has no labels.
    #[error("the data set has no labels")]
    NoLabels,
    /// A label is not one of the classes.
    #[error("sample {id} has label {label}, output {name} has {classes} classes")]
    Label {
        /// The sample.
        id: String,
        /// Its label.
        label: i64,
        /// The output.
        name: String,
        /// Elements of a frame.
        classes: usize,
    },
    /// Two models' outputs differ in shape.
    #[error("output {name} has shape {got:?}, the first model's has {expected:?}")]
    Shapes {
        /// The output.
        name: String,
        /// The first model's shape.
        expected: Vec<usize>,
        /// The other's.
        got: Vec<usize>,
    },
    /// A metric of the user's own cannot be had.
    #[error("{0}")]
    Other(String),
}

/// A figure over a data set, fed batch by batch in the data set's order.
pub trait Metric {
    /// Name, for messages.
    fn name(&self) -> &str;

    /// Takes the outputs of the next frames in.
    ///
    /// # Errors
    /// Outputs or labels it cannot use.
    fn observe(&mut self, frames: &Frames<'_>) -> Result<(), MetricError>;

    /// The figures so far, by name. How the frames were split in batches makes no difference to them.
    fn finish(&self) -> Vec<(String, f64)>;
}

/// All elements as f64, frame by frame: each frame as one list, whatever its axes.
fn frames_of(t: &Tensor) -> (Vec<f64>, usize) {
    let values = (0..t.len()).map(|i| t.number(i)).collect();
    let frame = t.shape().iter().skip(1).product();
    (values, frame)
}

/// Whether frames of this shape, without the frame axis, are lists of classes: at most one axis is longer than 1. The
/// largest element of a feature map is no class.
pub fn is_classes(frame: &[usize]) -> bool {
    !frame.is_empty() && frame.iter().filter(|d| **d != 1).count() <= 1
}

/// Position of the largest element; of equal ones the first, and a NaN before all numbers, as NumPy's `argmax`.
fn argmax(frame: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in frame.iter().enumerate() {
        if frame[best].is_nan() {
            break;
        }
        if v.is_nan() || *v > frame[best] {
            best = i;
        }
    }
    best
}

/// Elements that come before element `i` when the largest come first, equal ones in their order and NaN before all.
fn rank(frame: &[f64], i: usize) -> usize {
    let x = frame[i];
    let before = |(j, v): (usize, &f64)| *v > x || (v.is_nan() && !x.is_nan()) || (*v == x && j < i);
    frame.iter().enumerate().filter(|(j, v)| before((*j, v))).count()
}

/// Share of the frames whose label is the class with the largest output, and among the five largest (with at least
/// five classes). A frame's elements are its classes (see [`is_classes`]); a frame whose label's output is NaN is wrong.
#[derive(Clone, Debug)]
pub struct TopK {
    output: Option<String>,
    frames: u64,
    top1: u64,
    top5: Option<u64>,
}

impl TopK {
    /// Accuracy of an output; by default the model's first.
    pub fn new(output: Option<String>) -> TopK {
        TopK { output, frames: 0, top1: 0, top5: None }
    }
}

impl Metric for TopK {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn observe(&mut self, frames: &Frames<'_>) -> Result<(), MetricError> {
        let (places, classes) = self.places(frames)?;
        places.into_iter().for_each(|place| self.add(place, classes));
        Ok(())
    }

    fn finish(&self) -> Vec<(String, f64)> {
        let share = |n: u64| n as f64 / self.frames as f64;
        let mut out = vec![("top1".into(), share(self.top1))];
        out.extend(self.top5.map(|n| ("top5".into(), share(n))));
        out
    }
}

impl TopK {
    /// Place of each frame's label among the classes, the largest output first, and the number of classes.
    ///
    /// # Errors
    /// Outputs or labels that cannot be used.
    pub fn places(&self, frames: &Frames<'_>) -> Result<(Vec<u32>, usize), MetricError> {
        let labels = frames.labels.ok_or(MetricError::NoLabels)?;
        let name = match (&self.output, frames.outputs.first()) {
            (Some(name), _) | (None, Some((name, _))) => name.as_str(),
            (None, None) => "",
        };
        let (values, classes) = frames_of(frames.output(name)?);
        let mut places = Vec::with_capacity(labels.len());
        for (k, (label, id)) in labels.iter().zip(frames.ids).enumerate() {
            let class = usize::try_from(*label).ok().filter(|c| *c < classes).ok_or_else(|| {
                MetricError::Label { id: id.clone(), label: *label, name: name.into(), classes }
            })?;
            let frame = &values[k * classes..(k + 1) * classes];
            let place = if frame[class].is_nan() { classes } else { rank(frame, class) };
            places.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        Ok((places, classes))
    }

    /// Takes in a frame whose label has this place.
    pub fn add(&mut self, place: u32, classes: usize) {
        self.frames += 1;
        self.top1 += u64::from(place == 0);
        if classes >= 5 {
            *self.top5.get_or_insert(0) += u64::from(place < 5);
        }
    }
}

/// How far an output of one model is from the same output of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgreementFigures {
    /// Share of the frames whose largest element is at the same place.
    pub argmax: f64,
    /// x.y / (|x| |y|) over all elements; 1 where both are zero, 0 where one is.
    pub cosine: f64,
    /// 20 log10(|x| / |x - y|); infinite where they are equal.
    pub sqnr_db: f64,
    /// Largest |x - y|; NaN where one is.
    pub max_abs: f64,
}

/// Agreement of one output of two models, frame by frame; x is the first model's.
///
/// Sums are in f64 and in an order that depends on a frame's size only, so that the batch makes no difference.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    frames: u64,
    same: u64,
    sums: Sums,
}

/// What one frame adds to an [`Agreement`].
#[derive(Clone, Copy, Debug)]
pub struct FrameAgreement {
    same: bool,
    sums: Sums,
}

impl FrameAgreement {
    /// How many numbers it is.
    pub const NUMBERS: usize = 6;

    /// As numbers, for files.
    pub fn to_numbers(self) -> [f64; Self::NUMBERS] {
        let Sums { xx, yy, xy, dd, max } = self.sums;
        [f64::from(u8::from(self.same)), xx, yy, xy, dd, max]
    }

    /// From the numbers of [`FrameAgreement::to_numbers`].
    pub fn from_numbers([same, xx, yy, xy, dd, max]: [f64; Self::NUMBERS]) -> FrameAgreement {
        FrameAgreement { same: same != 0.0, sums: Sums { xx, yy, xy, dd, max } }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    xx: f64,
    yy: f64,
    xy: f64,
    dd: f64,
    max: f64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.xx += other.xx;
        self.yy += other.yy;
        self.xy += other.xy;
        self.dd += other.dd;
        self.max = largest(self.max, other.max);
    }

    fn of(x: &[f64], y: &[f64]) -> Sums {
        const LANES: usize = 8;
        let mut lanes = [Sums::default(); LANES];
        for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
            for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                // Equal infinities differ by nothing.
                let d = if x == y { 0.0 } else { x - y };
                lane.xx += x * x;
                lane.yy += y * y;
                lane.xy += x * y;
                lane.dd += d * d;
                lane.max = largest(lane.max, d.abs());
            }
        }
        let mut sum = Sums::default();
        lanes.into_iter().for_each(|lane| sum.add(lane));
        sum
    }
}

/// The larger; NaN where one is.
fn largest(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

impl Agreement {
    /// Nothing compared yet.
    pub fn new() -> Agreement {
        Agreement::default()
    }

    /// Takes the next frames of an output of both models in.
    ///
    /// # Errors
    /// Outputs of different shapes, or without an axis for the frames.
    pub fn observe(&mut self, name: &str, first: &Tensor, other: &Tensor) -> Result<(), MetricError> {
        Agreement::compare(name, first, other)?.into_iter().for_each(|frame| self.add(frame));
        Ok(())
    }

    /// What each of these frames adds.
    ///
    /// # Errors
    /// As for [`Agreement::observe`].
    pub fn compare(name: &str, first: &Tensor, other: &Tensor) -> Result<Vec<FrameAgreement>, MetricError> {
        if first.shape() != other.shape() || first.shape().is_empty() {
            return Err(MetricError::Shapes {
                name: name.into(),
                expected: first.shape().to_vec(),
                got: other.shape().to_vec(),
            });
        }
        let ((x, frame), (y, _)) = (frames_of(first), frames_of(other));
        let frames = (0..first.shape()[0]).map(|i| (&x[i * frame..][..frame], &y[i * frame..][..frame]));
        Ok(frames
            .map(|(x, y)| FrameAgreement { same: argmax(x) == argmax(y), sums: Sums::of(x, y) })
            .collect())
    }

    /// Takes in a frame; the order of frames makes a difference to the last bits of the figures.
    pub fn add(&mut self, frame: FrameAgreement) {
        self.frames += 1;
        self.same += u64::from(frame.same);
        self.sums.add(frame.sums);
    }

    /// Frames that were compared.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The figures so far; NaN without a frame.
    pub fn figures(&self) -> AgreementFigures {
        let Sums { xx, yy, xy, dd, max } = self.sums;
        let cosine = match (xx == 0.0, yy == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            _ => (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0),
        };
        let nothing = self.frames == 0;
        let or_nan = |v: f64| if nothing { f64::NAN } else { v };
        AgreementFigures {
            argmax: or_nan(self.same as f64 / self.frames as f64),
            cosine: or_nan(cosine),
            sqnr_db: or_nan(if dd == 0.0 { f64::INFINITY } else { 10.0 * libm::log10(xx / dd) }),
            max_abs: or_nan(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|i| i.to_string()).collect()
    }

    fn accuracy(frames: &[&[f32]], labels: &[i64]) -> Result<Vec<f64>, MetricError> {
        let classes = frames[0].len();
        let t = Tensor::from_f32([frames.len(), classes, 1, 1], frames.concat());
        let mut metric = TopK::new(None);
        let outputs = [("p".to_owned(), t)];
        metric.observe(&Frames { outputs: &outputs, labels: Some(labels), ids: &ids(frames.len()) })?;
        Ok(metric.finish().into_iter().map(|(_, v)| v).collect())
    }

    #[test]
    fn ties_go_to_the_first_class_as_numpy_argmax_has_it() {
        assert_eq!(accuracy(&[&[1.0, 1.0]], &[0]), Ok(vec![1.0]));
        assert_eq!(accuracy(&[&[1.0, 1.0]], &[1]), Ok(vec![0.0]));
        let flat: &[f32] = &[0.5; 6];
        assert_eq!(accuracy(&[flat, flat, flat], &[0, 4, 5]), Ok(vec![1.0 / 3.0, 2.0 / 3.0]));
        let n = f32::NAN;
        assert_eq!(accuracy(&[&[n, 1.0], &[n, 1.0]], &[0, 1]), Ok(vec![0.0]));
        assert_eq!((argmax(&[1.0, f64::NAN, f64::NAN, 9.0]), argmax(&[])), (1, 0));
    }

    #[test]
    fn a_label_that_is_no_class_is_named() {
        let e = accuracy(&[&[0.0, 1.0], &[0.0, 1.0]], &[1, 2]).expect_err("two classes");
        assert_eq!(e.to_string(), "sample 1 has label 2, output p has 2 classes");
        assert!(accuracy(&[&[0.0, 1.0]], &[-1]).is_err());
    }

    #[test]
    fn missing_outputs_and_labels_are_named() {
        let outputs = [("p".to_owned(), Tensor::from_f32([3, 2], vec![0.0; 6]))];
        let mut metric = TopK::new(Some("q".into()));
        let frames = Frames { outputs: &outputs, labels: Some(&[0, 0]), ids: &ids(2) };
        assert_eq!(metric.observe(&frames).expect_err("no q").to_string(), "no output \"q\"; there are p");
        let e = TopK::new(None).observe(&frames).expect_err("three rows").to_string();
        assert!(e.contains("[3, 2] for 2 frames"), "{e}");
        let e = TopK::new(None).observe(&Frames { labels: None, ..frames });
        assert_eq!(e, Err(MetricError::NoLabels));
    }

    fn agreement(x: &[f32], y: &[f32], frames: usize) -> AgreementFigures {
        let shape = [frames, x.len() / frames];
        let mut a = Agreement::new();
        a.observe("p", &Tensor::from_f32(shape, x.to_vec()), &Tensor::from_f32(shape, y.to_vec()))
            .expect("same shape");
        a.figures()
    }

    #[test]
    fn agreement_follows_its_definitions() {
        let a = agreement(&[3.0, 4.0, 0.0, 1.0], &[3.0, 5.0, 1.0, 0.0], 2);
        assert_eq!((a.argmax, a.max_abs), (0.5, 1.0));
        assert!((a.cosine - 29.0 / (26f64.sqrt() * 35f64.sqrt())).abs() < 1e-15);
        assert!((a.sqnr_db - 20.0 * (26f64 / 3.0).sqrt().log10()).abs() < 1e-12);
        let same = agreement(&[1.0, f32::INFINITY], &[1.0, f32::INFINITY], 1);
        assert_eq!((same.sqnr_db, same.max_abs), (f64::INFINITY, 0.0));
        let zeros = agreement(&[0.0; 2], &[0.0; 2], 1);
        assert_eq!((zeros.cosine, zeros.sqnr_db), (1.0, f64::INFINITY));
        let one = agreement(&[0.0; 2], &[0.0, 1.0], 1);
        assert_eq!((one.cosine, one.sqnr_db), (0.0, f64::NEG_INFINITY));
        assert!(agreement(&[1.0, 2.0], &[f32::NAN, 2.0], 1).max_abs.is_nan());
        assert!(Agreement::new().figures().argmax.is_nan());
    }

    #[test]
    fn the_batch_makes_no_difference_to_a_single_bit() {
        let x: Vec<f32> = (0..7 * 13).map(|i| ((i * 37 % 101) as f32).sqrt() - 4.0).collect();
        let y: Vec<f32> = x.iter().enumerate().map(|(i, v)| v + (i % 5) as f32 * 0.01).collect();
        let whole = agreement(&x, &y, 7);
        let mut parts = Agreement::new();
        for (x, y) in x.chunks(3 * 13).zip(y.chunks(3 * 13)) {
            let shape = [x.len() / 13, 13];
            parts
                .observe("p", &Tensor::from_f32(shape, x.to_vec()), &Tensor::from_f32(shape, y.to_vec()))
                .expect("same shape");
        }
        assert_eq!(parts.figures(), whole);
    }

    #[test]
    fn outputs_of_different_shapes_are_refused() {
        let (a, b) = (
            Tensor::zeros(crate::tensor::DType::F32, [2, 3]),
            Tensor::zeros(crate::tensor::DType::F32, [2, 4]),
        );
        let e = Agreement::new().observe("p", &a, &b).expect_err("3 and 4").to_string();
        assert!(e.contains("[2, 4]") && e.contains("[2, 3]"), "{e}");
    }
}
