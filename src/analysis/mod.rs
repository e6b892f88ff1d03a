//! What is measured of models: their accuracy, and how far they agree.

pub mod accumulators;
pub mod calibrate;
pub mod check;
mod checkpoint;
pub mod eval;
pub mod fingerprint;
pub mod moving;
pub mod nan;
pub mod partial;
pub mod profile;
pub mod ranges;
mod running;
pub mod statistics;
pub mod verify;
