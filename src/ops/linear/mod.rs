//! ONNX's own quantizers: `QuantizeLinear`, `DequantizeLinear`, `DynamicQuantizeLinear`. Scales and zero points are inputs.

pub(super) mod dequantize;
pub(super) mod dynamic;
mod grain;
pub(super) mod quantize;
mod samples;
