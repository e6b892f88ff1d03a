//! The operators: one definition each, in the list [`OPS`].

mod arg_reduce;
mod batch_norm;
mod binary;
mod broadcast;
mod cast;
mod clip;
mod concat;
mod conv;
mod conv_transpose;
mod cum_sum;
mod depth_space;
mod einsum;
mod element;
mod expand;
mod fake_quant;
mod fill;
mod gather;
mod gather_elements;
mod gemm;
mod gemm_cpu;
mod grid_sample;
mod identity;
mod integer;
mod linear;
mod lookup;
mod lp_normalize;
mod lrn;
mod matmul;
mod non_max_suppression;
mod normalize;
mod one_hot;
mod order;
mod pad;
mod pointwise;
mod pool;
mod product;
mod range;
mod reduce;
mod resample;
mod reshape;
mod resize;
mod rows;
mod scatter;
mod slice;
mod softmax;
mod split;
mod strided;
mod tile;
mod top_k;
mod transpose;
mod trilu;
mod unary;
mod r#where;

pub use fake_quant::{fake_quant, fake_quantize};
pub use identity::new as identity;
pub use integer::bound::{Bias, bound, bound_of, sharing_groups};
pub use integer::integer;
pub use integer::quantize::{dequantize, quantize};
pub use integer::table::{TableError, Tabled, has_table, table, table_error};

use crate::graph::attrs::Input;
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Source};
use crate::tensor::TensorType;
use std::sync::Arc;

/// Every operator, sorted by name. Import, files, text, tests and benches walk it.
pub static OPS: &[&OpDef] = &[
    &unary::abs::DEF,
    &unary::acos::DEF,
    &unary::acosh::DEF,
    &binary::add::DEF,
    &binary::and::DEF,
    &arg_reduce::max::DEF,
    &arg_reduce::min::DEF,
    &unary::asin::DEF,
    &unary::asinh::DEF,
    &unary::atan::DEF,
    &unary::atanh::DEF,
    &pool::average::AVERAGE,
    &batch_norm::DEF,
    &binary::bitwise_and::DEF,
    &unary::bitwise_not::DEF,
    &binary::bitwise_or::DEF,
    &binary::bitwise_xor::DEF,
    &cast::DEF,
    &unary::ceil::DEF,
    &unary::celu::DEF,
    &clip::DEF,
    &concat::DEF,
    &conv::DEF,
    &conv_transpose::DEF,
    &unary::cos::DEF,
    &unary::cosh::DEF,
    &cum_sum::DEF,
    &depth_space::DEPTH_TO_SPACE,
    &integer::quantize::DEQUANTIZE,
    &linear::dequantize::DEF,
    &binary::div::DEF,
    &linear::dynamic::DEF,
    &einsum::DEF,
    &unary::elu::DEF,
    &binary::equal::DEF,
    &unary::erf::DEF,
    &unary::exp::DEF,
    &expand::DEF,
    &fake_quant::DEF,
    &fill::DEF,
    &unary::floor::DEF,
    &gather::GATHER,
    &gather_elements::DEF,
    &gather::GATHER_ND,
    &unary::gelu::DEF,
    &gemm::DEF,
    &reduce::global_average_pool::DEF,
    &reduce::global_max_pool::DEF,
    &binary::greater::DEF,
    &binary::greater_or_equal::DEF,
    &grid_sample::DEF,
    &normalize::group::DEF,
    &unary::hard_sigmoid::DEF,
    &unary::hard_swish::DEF,
    &identity::DEF,
    &normalize::instance::DEF,
    &integer::DEF,
    &unary::is_inf::DEF,
    &unary::is_nan::DEF,
    &lrn::DEF,
    &normalize::layer::DEF,
    &unary::leaky_relu::DEF,
    &binary::less::DEF,
    &binary::less_or_equal::DEF,
    &unary::log::DEF,
    &softmax::log::DEF,
    &lp_normalize::DEF,
    &pool::average::LP,
    &unary::mantissa::DEF,
    &matmul::DEF,
    &binary::max::DEF,
    &pool::max::DEF,
    &binary::mean::DEF,
    &normalize::mean_variance::DEF,
    &binary::min::DEF,
    &unary::mish::DEF,
    &binary::modulo::DEF,
    &binary::mul::DEF,
    &unary::neg::DEF,
    &non_max_suppression::DEF,
    &unary::not::DEF,
    &one_hot::DEF,
    &binary::or::DEF,
    &binary::prelu::DEF,
    &pad::DEF,
    &binary::pow::DEF,
    &integer::quantize::QUANTIZE,
    &linear::quantize::DEF,
    &unary::quick_gelu::DEF,
    &range::DEF,
    &unary::reciprocal::DEF,
    &reduce::l1::DEF,
    &reduce::l2::DEF,
    &reduce::log_sum::DEF,
    &reduce::log_sum_exp::DEF,
    &reduce::max::DEF,
    &reduce::mean::DEF,
    &reduce::min::DEF,
    &reduce::prod::DEF,
    &reduce::sum_all::DEF,
    &reduce::sum_square::DEF,
    &unary::relu::DEF,
    &reshape::DEF,
    &resize::DEF,
    &unary::round::DEF,
    &scatter::ELEMENTS,
    &scatter::ND,
    &unary::selu::DEF,
    &unary::shrink::DEF,
    &unary::sigmoid::DEF,
    &unary::sign::DEF,
    &unary::sin::DEF,
    &unary::sinh::DEF,
    &slice::DEF,
    &softmax::plain::DEF,
    &unary::softplus::DEF,
    &unary::softsign::DEF,
    &depth_space::SPACE_TO_DEPTH,
    &split::DEF,
    &unary::sqrt::DEF,
    &binary::sub::DEF,
    &binary::sum::DEF,
    &integer::table::DEF,
    &unary::tan::DEF,
    &unary::tanh::DEF,
    &unary::thresholded_relu::DEF,
    &tile::DEF,
    &top_k::DEF,
    &transpose::DEF,
    &trilu::DEF,
    &r#where::DEF,
    &binary::xor::DEF,
];

/// The operator with this name of ours.
pub fn by_name(name: &str) -> Option<&'static OpDef> {
    OPS.iter().copied().find(|d| d.name == name)
}

/// An operator from attributes as graph files hold them and the types of its inputs, for passes and operators that make
/// others.
///
/// # Errors
/// What the operator says of them.
pub fn build(name: &'static str, attrs: Attrs, inputs: &[TensorType]) -> Result<Arc<dyn Op>, OpError> {
    let def = by_name(name).expect("an operator of ours");
    let typed = inputs.iter().map(|ty| Some(Input { ty: ty.clone(), known: None }));
    (def.read)(&mut Reader::new(Source::Graph, def.name, attrs, typed.collect(), 1))
}

/// ONNX types that are read as operators with other names of ours: they have no samples and no kernels of their own.
pub static FOREIGN: &[&OpDef] = &[&integer::qoperator::DEF];

/// The operator that reads this ONNX type: `Conv`, or `domain:Type` outside the default domain.
pub fn by_onnx(op_type: &str) -> Option<&'static OpDef> {
    OPS.iter().chain(FOREIGN).copied().find(|d| d.onnx.contains(&op_type))
}
