//! Calibration statistics: one summary of a tensor that adds up exactly, and the observers that find a range in it.

mod clip_std;
mod exact_sum;
mod fixed;
mod frame;
mod kl;
mod loss;
mod minmax;
mod mix;
mod moving;
mod mse;
mod norm;
mod percentile;
mod piece;
mod summary;

pub use exact_sum::ExactSum;
pub use frame::{FRAME_WORDS, FrameStats, HISTOGRAM, LANES, RUN, Shown, plane};
pub use loss::squared_error;
pub use moving::MovingMinMax;
pub use summary::{Bin, Parts, Summary, SummaryError};

use crate::quant::{QuantError, Range, Scheme};
use crate::tensor::{DType, Tensor};
use std::fmt::Debug;

/// Finds the range in which a tensor's numbers are to be quantized.
pub trait Observer: Debug + Send + Sync {
    /// The range for codes of a type, made into a scale by a scheme.
    ///
    /// # Errors
    /// A summary of nothing, or without any finite number; a type without codes.
    fn range(&self, summary: &Summary, dtype: DType, scheme: Scheme) -> Result<Range, ObserverError>;

    /// The weight of a new batch, of an observer that follows the batches in order: a [`MovingMinMax`] finds its range,
    /// which no summary holds.
    fn moving(&self) -> Option<f32> {
        None
    }
}

/// What is known of an observer before it has parameters.
#[derive(Debug)]
pub struct ObserverDef {
    /// Its name in configurations.
    pub name: &'static str,
    /// How it is written: `percentile[=P]`.
    pub usage: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Makes it from what follows the `=`, if anything does.
    pub parse: fn(Option<&str>) -> Option<Box<dyn Observer>>,
}

/// Every observer, sorted by name.
pub static OBSERVERS: &[&ObserverDef] = &[
    &clip_std::DEF,
    &fixed::DEF,
    &kl::DEF,
    &minmax::DEF,
    &mix::DEF,
    &moving::DEF,
    &mse::DEF,
    &norm::DEF,
    &percentile::DEF,
];

/// Name of the observer that is used unless said otherwise.
pub const DEFAULT: &str = "mix";

/// An observer cannot be made or finds no range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserverError {
    /// A name of none.
    #[error("there is no observer {name:?}; there are {}", names())]
    Unknown {
        /// The name.
        name: String,
    },
    /// Parameters that it does not take.
    #[error("observer {text:?}: write {usage} ({about})")]
    Parameters {
        /// What was written.
        text: String,
        /// How it is written.
        usage: &'static str,
        /// What it does.
        about: &'static str,
    },
    /// A summary of nothing.
    #[error("no element was observed")]
    Empty,
    /// A summary without numbers.
    #[error("none of the {elements} elements observed is a finite number")]
    NoNumbers {
        /// Elements observed.
        elements: u64,
    },
    /// A range that depends on the order of the frames was asked of a summary.
    #[error(
        "a moving average depends on the order of the frames, which statistics do not keep: run the data, or take minmax"
    )]
    Sequential,
    /// A weight's axis that it does not have, or elements that are not f32.
    #[error("a tensor of type {ty} has no f32 channels along axis {axis}")]
    Channels {
        /// Its type.
        ty: String,
        /// The axis.
        axis: usize,
    },
    /// A range or type that no quantizer has.
    #[error(transparent)]
    Quant(#[from] QuantError),
}

fn names() -> String {
    OBSERVERS.iter().map(|d| d.usage).collect::<Vec<_>>().join(", ")
}

/// The observer that a text says: `mse`, `percentile=99.99`, `clip_std=3`, `norm=2,4.5`, `fixed=-1..1`.
///
/// # Errors
/// A name of none, or parameters that it does not take.
pub fn parse(text: &str) -> Result<Box<dyn Observer>, ObserverError> {
    let (name, parameters) = match text.split_once('=') {
        Some((name, p)) => (name.trim(), Some(p.trim())),
        None => (text.trim(), None),
    };
    let def = OBSERVERS.iter().find(|d| d.name == name);
    let def = def.ok_or_else(|| ObserverError::Unknown { name: name.to_owned() })?;
    (def.parse)(parameters).ok_or_else(|| ObserverError::Parameters {
        text: text.to_owned(),
        usage: def.usage,
        about: def.about,
    })
}

/// The range of each index of an axis, from a constant's own numbers.
///
/// # Errors
/// Elements that are not f32, an axis that the tensor does not have, and what the observer says of a channel.
pub fn channel_ranges(
    observer: &dyn Observer,
    x: &Tensor,
    axis: usize,
    dtype: DType,
    scheme: Scheme,
) -> Result<Vec<Range>, ObserverError> {
    if x.dtype() != DType::F32 || axis >= x.rank() {
        return Err(ObserverError::Channels { ty: x.ty().to_string(), axis });
    }
    let channels = x.shape()[axis];
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let of_channel = |c: usize| -> Vec<f32> {
        let runs = x.f32s().chunks(inner.max(1)).skip(c).step_by(channels);
        runs.flatten().copied().collect()
    };
    (0..channels)
        .map(|c| {
            let numbers = of_channel(c);
            let mut summary = Summary::new();
            summary.observe(&numbers, &[numbers.len()]);
            observer.range(&summary, dtype, scheme)
        })
        .collect()
}

/// The exact ends of what was observed.
fn ends(summary: &Summary) -> Result<Range, ObserverError> {
    if summary.elements() == 0 {
        return Err(ObserverError::Empty);
    }
    summary.range().ok_or(ObserverError::NoNumbers { elements: summary.elements() })
}

/// The part of a range in which magnitudes are at most `most`.
#[allow(clippy::cast_possible_truncation, reason = "rounds to nearest")]
fn clip(range: Range, most: f64) -> Range {
    let most = (most as f32).min(f32::MAX);
    Range { low: range.low.clamp(-most, most), high: range.high.clamp(-most, most) }
}

/// A number in this range, from text.
fn number(text: &str, allowed: impl std::ops::RangeBounds<f64>) -> Option<f64> {
    text.trim().parse().ok().filter(|v| allowed.contains(v))
}
