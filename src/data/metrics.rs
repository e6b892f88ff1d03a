//! What is measured on a model's outputs: accuracy where there are labels, agreement with another model, and metrics
//! of the user's own.

pub use super::agreement::{Agreement, AgreementFigures, FrameAgreement};
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
pub(super) fn frames_of(t: &Tensor) -> (Vec<f64>, usize) {
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
pub(super) fn argmax(frame: &[f64]) -> usize {
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
}
