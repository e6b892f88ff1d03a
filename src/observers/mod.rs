//! Calibration statistics: one summary of a tensor that adds up exactly, and the observers that find a range in it.

mod exact_sum;
mod frame;
mod summary;

pub use exact_sum::ExactSum;
pub use frame::{FRAME_WORDS, FrameStats, HISTOGRAM, LANES, RUN, plane};
pub use summary::{Bin, Parts, Summary, SummaryError};
