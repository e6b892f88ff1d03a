//! Values known at import: tensors, and integers in 64 bits that may be multiples of the batch.

use super::problem::TensorProblem;
use crate::graph::attrs::{Known, SymInt};
use crate::tensor::{DType, Data, Tensor, TensorType};
use std::sync::Arc;

/// What an integer of shape arithmetic is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntKind {
    I64,
    I32,
    Bool,
}

/// Integers with a shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ints {
    pub kind: IntKind,
    pub shape: Vec<usize>,
    pub values: Arc<Vec<SymInt>>,
}

impl Ints {
    pub(super) fn new(kind: IntKind, shape: Vec<usize>, values: Vec<SymInt>) -> Ints {
        Ints { kind, shape, values: Arc::new(values) }
    }

    /// The elements, unless one depends on the batch.
    pub(super) fn concrete(&self) -> Option<Vec<i64>> {
        self.values.iter().map(|v| v.int()).collect()
    }
}

/// A value known at import.
#[derive(Clone, Debug)]
pub(super) enum Constant {
    Ints(Ints),
    Tensor(Tensor),
}

/// Why a constant cannot be a tensor of the graph.
#[derive(Debug)]
pub(super) enum NoTensor {
    DependsOnBatch,
    Range(TensorProblem),
}

impl Constant {
    pub(super) fn ty(&self) -> TensorType {
        match self {
            Constant::Tensor(t) => t.ty(),
            Constant::Ints(v) => {
                let dtype = if v.kind == IntKind::Bool { DType::Bool } else { DType::I32 };
                TensorType::new(dtype, v.shape.iter().copied())
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Constant::Tensor(t) => t.len(),
            Constant::Ints(v) => v.values.len(),
        }
    }

    /// As an operator sees it.
    pub(super) fn known(&self) -> Known {
        match self {
            Constant::Tensor(t) => Known::Tensor(t.clone()),
            Constant::Ints(v) => match self.tensor("") {
                Ok(t) if v.kind == IntKind::Bool => Known::Tensor(t),
                _ => Known::Ints { shape: v.shape.clone(), values: v.values.to_vec() },
            },
        }
    }

    /// As shape arithmetic sees it; `None` for numbers and 8-bit integers.
    pub(super) fn ints(&self) -> Option<Ints> {
        match self {
            Constant::Ints(v) => Some(v.clone()),
            Constant::Tensor(t) => match t.data() {
                Data::I32(v) => {
                    let values = v.iter().map(|x| SymInt::Int(i64::from(*x))).collect();
                    Some(Ints::new(IntKind::I32, t.shape().to_vec(), values))
                }
                Data::Bool(v) => {
                    let values = v.iter().map(|x| SymInt::Int(i64::from(*x))).collect();
                    Some(Ints::new(IntKind::Bool, t.shape().to_vec(), values))
                }
                _ => None,
            },
        }
    }

    /// As a tensor of the graph; `name` is for the error.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, NoTensor> {
        let v = match self {
            Constant::Tensor(t) => return Ok(t.clone()),
            Constant::Ints(v) => v,
        };
        let values = v.concrete().ok_or(NoTensor::DependsOnBatch)?;
        if v.kind == IntKind::Bool {
            return Ok(Tensor::from_bool(
                v.shape.clone(),
                values.iter().map(|x| u8::from(*x != 0)).collect(),
            ));
        }
        let narrow = |(index, value): (usize, &i64)| {
            let value = *value;
            i32::try_from(value)
                .map_err(|_| NoTensor::Range(TensorProblem::Range { tensor: name.to_owned(), index, value }))
        };
        let values: Result<Vec<i32>, NoTensor> = values.iter().enumerate().map(narrow).collect();
        Ok(Tensor::from_i32(v.shape.clone(), values?))
    }
}
