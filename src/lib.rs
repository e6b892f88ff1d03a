//! A GPU engine for quantized models whose integer results are the same bits on every device.

pub mod atomic;
pub mod data;
pub mod exec;
pub mod gpu;
pub mod graph;
pub mod onnx;
pub mod ops;
pub mod tensor;
