//! Pooling over windows: `MaxPool`, `AveragePool`, `LpPool`.
//!
//! *Shapes*: `[n, c, spatial..] -> [n, c, spatial'..]` with one to three spatial axes. With `indices` 1, `MaxPool` also gives
//! the position of each largest element in the whole tensor, i32.

pub(super) mod average;
pub(super) mod max;
mod samples;
mod window;
