//! Constants as codes, and back.

use crate::graph::OpError;
use crate::quant::QParams;
use crate::tensor::Tensor;

/// The place of an element of a tensor among parameters along their axis.
fn index(params: &QParams, shape: &[usize], i: usize) -> usize {
    let inner: usize = params.axis().map_or(1, |a| shape[a + 1..].iter().product());
    i / inner.max(1) % params.scales().len()
}

/// What constant codes stand for.
pub(super) fn numbers_of(codes: &Tensor, params: &QParams) -> Tensor {
    let steps: Vec<_> = (0..params.scales().len()).map(|i| params.step(i)).collect();
    let all = codes.codes().expect("codes that were made before");
    let one = |(i, c): (usize, i32)| steps[index(params, codes.shape(), i)].dequantize(c);
    Tensor::from_f32(codes.shape(), all.into_iter().enumerate().map(one).collect())
}

/// Codes of a constant.
pub(super) fn constant_codes(tensor: &Tensor, params: &QParams) -> Result<Tensor, OpError> {
    let numbers = tensor.as_f32().ok_or(OpError::DType { input: 0, expected: "f32", got: tensor.dtype() })?;
    let steps: Vec<_> = (0..params.scales().len()).map(|i| params.step(i)).collect();
    let code = |(i, x): (usize, &f32)| steps[index(params, tensor.shape(), i)].quantize(*x);
    let codes: Vec<i32> = numbers.iter().enumerate().map(code).collect();
    let made = Tensor::from_codes(params.dtype(), tensor.shape(), &codes);
    made.ok_or(OpError::Parameters { what: "constant", index: 0 })
}
