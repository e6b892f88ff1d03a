//! Attributes of operators.

mod form;
mod reader;

pub use form::{OnnxForm, Place};
pub use reader::{Input, Known, Reader, Source};

use crate::tensor::{DType, Dim, Tensor};
use std::fmt;

/// An integer, or a multiple of the symbolic batch: what shape arithmetic computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymInt {
    /// This integer.
    Int(i64),
    /// k * N, k at least 1.
    Batch(i64),
}

impl SymInt {
    /// The integer, unless it depends on the batch.
    pub fn int(self) -> Option<i64> {
        match self {
            SymInt::Int(v) => Some(v),
            SymInt::Batch(_) => None,
        }
    }

    /// As a dimension; `None` when negative.
    pub fn dim(self) -> Option<Dim> {
        match self {
            SymInt::Int(v) => usize::try_from(v).ok().map(Dim::Fixed),
            SymInt::Batch(k) => usize::try_from(k).ok().map(Dim::Batch),
        }
    }
}

impl From<Dim> for SymInt {
    fn from(d: Dim) -> Self {
        match d {
            Dim::Fixed(v) => SymInt::Int(i64::try_from(v).unwrap_or(i64::MAX)),
            Dim::Batch(k) => SymInt::Batch(i64::try_from(k).unwrap_or(i64::MAX)),
        }
    }
}

impl fmt::Display for SymInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SymInt::Int(v) => write!(f, "{v}"),
            SymInt::Batch(1) => f.write_str("N"),
            SymInt::Batch(k) => write!(f, "{k}N"),
        }
    }
}

/// The value of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// One integer.
    Int(i64),
    /// Integers, each possibly a multiple of the batch.
    Ints(Vec<SymInt>),
    /// One number. Compared by bits in [`Attrs::same_bits`].
    Float(f32),
    /// Numbers.
    Floats(Vec<f32>),
    /// Text.
    Str(String),
    /// Texts.
    Strs(Vec<String>),
    /// A tensor (ONNX `Constant` and `ConstantOfShape` only; never in a graph's own attributes).
    Tensor(Tensor),
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, v: &[T]) -> fmt::Result {
            let text: Vec<String> = v.iter().map(T::to_string).collect();
            write!(f, "[{}]", text.join(", "))
        }
        match self {
            AttrValue::Int(v) => write!(f, "{v}"),
            AttrValue::Ints(v) => list(f, v),
            AttrValue::Float(v) => write!(f, "{v:?}"),
            AttrValue::Floats(v) => {
                let text: Vec<String> = v.iter().map(|x| format!("{x:?}")).collect();
                write!(f, "[{}]", text.join(", "))
            }
            AttrValue::Str(v) => write!(f, "{v:?}"),
            AttrValue::Strs(v) => write!(f, "{v:?}"),
            AttrValue::Tensor(t) => write!(f, "tensor {}", t.ty()),
        }
    }
}

/// Attributes of one operator, in the order in which it prints them, and how ONNX writes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(pub Vec<(String, AttrValue)>, pub OnnxForm);

impl From<Vec<(String, AttrValue)>> for Attrs {
    fn from(list: Vec<(String, AttrValue)>) -> Attrs {
        Attrs(list, OnnxForm::default())
    }
}

impl Attrs {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, v: AttrValue) -> Self {
        self.0.push((name.to_owned(), v));
        self
    }

    /// Says where ONNX has the attribute that was added last.
    pub fn at_place(mut self, place: Place) -> Self {
        if let Some((name, _)) = self.0.last() {
            self.1.places.push((name.clone(), place));
        }
        self
    }

    /// Says that ONNX takes this input as int64.
    pub fn wide_input(mut self, i: usize) -> Self {
        self.1.wide_inputs.push(i);
        self
    }

    /// Says that ONNX gives this output as int64.
    pub fn wide_output(mut self, i: usize) -> Self {
        self.1.wide_outputs.push(i);
        self
    }

    /// Adds integers that may depend on the batch.
    pub fn sym_ints(self, name: &str, v: &[SymInt]) -> Self {
        self.with(name, AttrValue::Ints(v.to_vec()))
    }

    /// Adds an integer.
    pub fn int(self, name: &str, v: i64) -> Self {
        self.with(name, AttrValue::Int(v))
    }

    /// Adds integers.
    pub fn ints(self, name: &str, v: impl IntoIterator<Item = i64>) -> Self {
        self.with(name, AttrValue::Ints(v.into_iter().map(SymInt::Int).collect()))
    }

    /// Adds sizes.
    pub fn sizes(self, name: &str, v: &[usize]) -> Self {
        self.dims(name, &v.iter().map(|d| Dim::Fixed(*d)).collect::<Vec<_>>())
    }

    /// Adds dimensions.
    pub fn dims(self, name: &str, v: &[Dim]) -> Self {
        self.with(name, AttrValue::Ints(v.iter().map(|d| SymInt::from(*d)).collect()))
    }

    /// Adds a number.
    pub fn float(self, name: &str, v: f32) -> Self {
        self.with(name, AttrValue::Float(v))
    }

    /// Adds numbers.
    pub fn floats(self, name: &str, v: &[f32]) -> Self {
        self.with(name, AttrValue::Floats(v.to_vec()))
    }

    /// Adds a text.
    pub fn str(self, name: &str, v: &str) -> Self {
        self.with(name, AttrValue::Str(v.to_owned()))
    }

    /// Equality of names and values, in which a NaN equals itself.
    pub fn same_bits(&self, other: &Attrs) -> bool {
        format!("{:?}", self.0) == format!("{:?}", other.0)
    }

    /// Replaces every multiple of N by its value; `None` when one overflows.
    pub fn at(&self, batch: usize) -> Option<Attrs> {
        let batch = i64::try_from(batch).ok()?;
        let mut out = self.clone();
        for (_, v) in &mut out.0 {
            if let AttrValue::Ints(list) = v {
                for s in list {
                    if let SymInt::Batch(k) = *s {
                        *s = SymInt::Int(k.checked_mul(batch)?);
                    }
                }
            }
        }
        Some(out)
    }
}

/// ONNX's type number of an element type.
pub fn onnx_number(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::Bool => 9,
        DType::U4 => 21,
        DType::I4 => 22,
    }
}

/// The element type that stands for ONNX's type number.
pub fn onnx_dtype(number: i64) -> Option<DType> {
    match number {
        1 | 10 | 11 | 16 => Some(DType::F32),
        2 => Some(DType::U8),
        3 => Some(DType::I8),
        4 => Some(DType::U16),
        5 => Some(DType::I16),
        6 | 7 => Some(DType::I32),
        9 => Some(DType::Bool),
        21 => Some(DType::U4),
        22 => Some(DType::I4),
        _ => None,
    }
}

/// `axis` counted from the front; `None` outside -rank..rank.
pub fn normalize_axis(axis: i64, rank: usize) -> Option<usize> {
    let r = i64::try_from(rank).ok()?;
    let a = if axis < 0 { axis.checked_add(r)? } else { axis };
    (0..r).contains(&a).then(|| usize::try_from(a).ok()).flatten()
}
