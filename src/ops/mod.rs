//! The operators: one definition each, in the list [`OPS`].

mod concat;
mod conv;
mod element;
mod gemm_cpu;
mod reshape;
mod strided;
mod transpose;
mod unary;

use crate::graph::OpDef;

/// Every operator, sorted by name. Import, files, text, tests and benches walk it.
pub static OPS: &[&OpDef] = &[
    &concat::DEF,
    &conv::DEF,
    &unary::leaky_relu::DEF,
    &unary::relu::DEF,
    &reshape::DEF,
    &unary::sigmoid::DEF,
    &transpose::DEF,
];

/// The operator with this name of ours.
pub fn by_name(name: &str) -> Option<&'static OpDef> {
    OPS.iter().copied().find(|d| d.name == name)
}

/// The operator that reads this ONNX type: `Conv`, or `domain:Type` outside the default domain.
pub fn by_onnx(op_type: &str) -> Option<&'static OpDef> {
    OPS.iter().copied().find(|d| d.onnx.contains(&op_type))
}
