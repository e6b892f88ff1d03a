//! What the integer form of an operator computes with: parameters of codes, and the target's arithmetic.

use super::op::{OpError, QuantRule};
use super::{Graph, ValueId};
use crate::quant::{Arithmetic, QParams, Requantize, Step};
use crate::tensor::{DType, Tensor, element_count};
use std::collections::HashMap;

impl Graph {
    /// What the codes of inputs stand for, by what takes them.
    fn input_params(&self) -> HashMap<ValueId, QParams> {
        let mut taken: HashMap<ValueId, QParams> = HashMap::new();
        for node in self.nodes().iter().rev() {
            for (i, v) in node.inputs.iter().enumerate() {
                let passes = i == 0 && matches!(node.op.quant_rule(), QuantRule::Codes);
                let through = || taken.get(node.outputs.first()?).filter(|_| passes).cloned();
                let params = node.op.takes(i).cloned().or_else(through);
                let fits = |p: &QParams| self.value(*v).ty.dtype == p.dtype();
                taken.extend(params.filter(fits).map(|p| (*v, p)));
            }
        }
        self.inputs.iter().filter_map(|v| Some((*v, taken.remove(v)?))).collect()
    }

    /// What the codes stand for of inputs, and those that operators on codes and those that pass codes through give.
    pub fn code_params(&self) -> HashMap<ValueId, QParams> {
        let mut out = self.input_params();
        for node in self.nodes() {
            let params = match node.op.codes() {
                Some(output) => output.params().cloned(),
                // The first input, or where that is a constant the one behind it.
                None => node.inputs.iter().find_map(|v| out.get(v)).cloned(),
            };
            let Some(params) = params else { continue };
            let alike = |v: &&ValueId| self.value(**v).ty.dtype == params.dtype();
            out.extend(node.outputs.iter().filter(alike).map(|v| (*v, params.clone())));
        }
        out
    }
}

/// What an operator on codes gives.
#[derive(Clone, Debug, PartialEq)]
pub enum CodeOutput {
    /// Codes, none below or above these two: a clamp that is part of the operator.
    Codes {
        /// Of what they are codes.
        params: QParams,
        /// Least one.
        low: i32,
        /// Greatest one.
        high: i32,
    },
    /// The sums themselves, in 32 bits.
    Sums,
    /// f32(sum) to the nearest even, times f32 of the product of the inputs' scales.
    Real,
}

impl CodeOutput {
    /// All codes of a type.
    pub fn codes(params: QParams) -> CodeOutput {
        let (low, high) = params.codes();
        CodeOutput::Codes { params, low, high }
    }

    /// Type of its elements.
    pub fn dtype(&self) -> DType {
        match self {
            CodeOutput::Codes { params, .. } => params.dtype(),
            CodeOutput::Sums => DType::I32,
            CodeOutput::Real => DType::F32,
        }
    }

    /// Parameters of the codes.
    pub fn params(&self) -> Option<&QParams> {
        match self {
            CodeOutput::Codes { params, .. } => Some(params),
            _ => None,
        }
    }
}

/// The parameters of an integer form.
#[derive(Clone, Debug, PartialEq)]
pub struct CodeParams {
    /// One for each input; `None` for what is no code: a bias in units of the sums, indices.
    pub inputs: Vec<Option<QParams>>,
    /// What comes of it.
    pub output: CodeOutput,
    /// One for each tap of [`super::Op::internals`] that is no input, in their order.
    pub internals: Vec<QParams>,
    /// Parameters of one input more, the last one, which is added to the sums before they are rounded.
    pub addend: Option<QParams>,
    /// What no sum of products exceeds in magnitude, where the operator sums products.
    pub bound: u64,
    /// How the target computes it.
    pub arithmetic: Arithmetic,
}

impl CodeParams {
    /// Of an operator that sums no products.
    pub fn new(
        inputs: impl IntoIterator<Item = QParams>,
        output: QParams,
        internals: Vec<QParams>,
    ) -> CodeParams {
        CodeParams {
            inputs: inputs.into_iter().map(Some).collect(),
            output: CodeOutput::codes(output),
            internals,
            addend: None,
            bound: 0,
            arithmetic: Arithmetic::default(),
        }
    }

    fn single(params: Option<&QParams>, what: &'static str, index: usize) -> Result<Step, OpError> {
        match params {
            Some(p) if p.scales().len() == 1 => Ok(p.step(0)),
            _ => Err(OpError::Parameters { what, index }),
        }
    }

    /// The one quantizer of an input.
    ///
    /// # Errors
    /// Several scales, or none.
    pub fn input(&self, i: usize) -> Result<Step, OpError> {
        CodeParams::single(self.inputs.get(i).and_then(Option::as_ref), "input", i)
    }

    /// The one quantizer of a tap.
    ///
    /// # Errors
    /// Several scales, or none.
    pub fn internal(&self, i: usize) -> Result<Step, OpError> {
        CodeParams::single(self.internals.get(i), "internal", i)
    }

    /// The quantizer of the output, between whose bounds codes are placed; it rounds as the target does.
    ///
    /// # Errors
    /// Several scales, or an output that is no code.
    pub fn output(&self) -> Result<Step, OpError> {
        let CodeOutput::Codes { params, low, high } = &self.output else {
            return Err(OpError::Parameters { what: "output", index: 0 });
        };
        Ok(CodeParams::single(Some(params), "output", 0)?
            .within(*low, *high)
            .rounded(self.arithmetic.rounding))
    }

    /// Those that means of windows are taken with. `TFLite` sums the codes themselves, where both tensors have the same
    /// parameters: halves go away from code 0, not from the number 0.
    #[must_use]
    pub fn of_mean(&self) -> CodeParams {
        let mut out = self.clone();
        let doubling =
            [Requantize::DoublingAway, Requantize::DoublingUp].contains(&self.arithmetic.requantize);
        if let (true, [Some(x)], CodeOutput::Codes { params: y, .. }) =
            (doubling, &mut out.inputs[..], &mut out.output)
            && x.scales() == y.scales()
            && x.zero_points() == y.zero_points()
        {
            for p in [x, y] {
                *p = p.clone().without_zero_point();
            }
        }
        out
    }

    /// The output from its codes.
    pub fn store(&self, shape: &[usize], codes: &[i32]) -> Tensor {
        debug_assert_eq!(element_count(shape), Some(codes.len()));
        Tensor::from_codes(self.output.dtype(), shape, codes).expect("codes were placed between their bounds")
    }
}

/// The codes of a tensor of them.
///
/// # Errors
/// A tensor of another type.
pub fn codes_of(inputs: &[Tensor], i: usize) -> Result<Vec<i32>, OpError> {
    let x = inputs.get(i).ok_or(OpError::MissingInput { input: i })?;
    x.codes().ok_or(OpError::DType { input: i, expected: "codes", got: x.dtype() })
}
