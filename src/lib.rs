//! A GPU engine for quantized models whose integer results are the same bits on every device.

pub mod analysis;
pub mod atomic;
pub mod cli;
pub mod data;
pub mod digest;
pub mod error;
pub mod exec;
pub mod gpu;
pub mod graph;
pub mod model;
mod names;
pub mod observers;
pub mod onnx;
pub mod ops;
pub mod passes;
pub mod quant;
pub mod tensor;
