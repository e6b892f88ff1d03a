//! Reads an operator's attributes and notices what was not read.

use super::{AttrValue, Attrs, SymInt, normalize_axis, onnx_dtype};
use crate::graph::op::OpError;
use crate::tensor::{DType, Tensor, TensorType};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Where a [`Reader`] reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An ONNX node of this operator-set version.
    Onnx(i64),
    /// A graph file or text: attributes as [`crate::graph::Op::attrs`] wrote them, nothing left in constant inputs.
    Graph,
}

/// A constant input as the importer knows it.
#[derive(Clone, Debug)]
pub enum Known {
    /// Integers with their shape: `i64` beyond what [`DType::I32`] holds, or symbolic.
    Ints {
        /// Dimensions; empty for a scalar.
        shape: Vec<usize>,
        /// Elements, row-major.
        values: Vec<SymInt>,
    },
    /// A tensor.
    Tensor(Tensor),
}

/// One input of the node being read.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its type.
    pub ty: TensorType,
    /// Its value where it is constant.
    pub known: Option<Known>,
}

/// What an operator is read from: attributes, types of the inputs and, from ONNX, constant inputs that
/// become attributes. It remembers what was read, so that the rest can be reported.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    op_type: String,
    attrs: BTreeMap<String, (AttrValue, bool)>,
    inputs: Vec<Option<Input>>,
    /// Which inputs are given without their type being known.
    unknown: Vec<usize>,
    consumed: Vec<bool>,
    /// Attributes that were asked for, there or not.
    asked: BTreeSet<String>,
    /// What was looked for in an input, and which.
    in_inputs: Vec<(String, usize)>,
    outputs: usize,
}

impl Reader {
    /// A reader over a node. A missing optional input is `None`.
    pub fn new(
        source: Source,
        op_type: &str,
        attrs: Attrs,
        inputs: Vec<Option<Input>>,
        outputs: usize,
    ) -> Self {
        let consumed = vec![false; inputs.len()];
        let attrs = attrs.0.into_iter().map(|(k, v)| (k, (v, false))).collect();
        let op_type = op_type.to_owned();
        let (unknown, asked, in_inputs) = Default::default();
        Reader { source, op_type, attrs, inputs, unknown, consumed, asked, in_inputs, outputs }
    }

    /// Says which inputs are given although neither type nor value is known, because what produces them has a problem
    /// of its own. Who asks for one gets [`OpError::UnknownInput`].
    pub fn with_unknown(mut self, inputs: Vec<usize>) -> Self {
        self.unknown = inputs;
        self
    }

    /// The ONNX operator-set version; `i64::MAX` for a graph file.
    pub fn opset(&self) -> i64 {
        match self.source {
            Source::Onnx(v) => v,
            Source::Graph => i64::MAX,
        }
    }

    /// Where it reads from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The ONNX operator type, or the operator's own name from a graph file. One definition may serve several.
    pub fn op_type(&self) -> &str {
        &self.op_type
    }

    /// Number of outputs that the node names.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of inputs, trailing missing ones not counted.
    pub fn inputs(&self) -> usize {
        (0..self.inputs.len()).rev().find(|i| self.has_input(*i)).map_or(0, |i| i + 1)
    }

    /// Whether input `i` is given.
    pub fn has_input(&self, i: usize) -> bool {
        matches!(self.inputs.get(i), Some(Some(_))) || self.unknown.contains(&i)
    }

    /// Type of input `i`.
    pub fn input(&self, i: usize) -> Result<&TensorType, OpError> {
        match self.inputs.get(i) {
            Some(Some(input)) => Ok(&input.ty),
            _ if self.unknown.contains(&i) => Err(OpError::UnknownInput { input: i }),
            _ => Err(OpError::MissingInput { input: i }),
        }
    }

    /// Why input `i`, which says `what`, has no value of the `expected` type here.
    pub fn no_value(&self, i: usize, what: &str, expected: &'static str) -> OpError {
        match self.known(i) {
            _ if self.unknown.contains(&i) => OpError::UnknownInput { input: i },
            Some(Known::Tensor(t)) => OpError::DType { input: i, expected, got: t.dtype() },
            _ => OpError::NotConstant { input: i, what: what.to_owned() },
        }
    }

    /// Value of input `i` where it is constant, without consuming it.
    pub fn known(&self, i: usize) -> Option<&Known> {
        self.inputs.get(i)?.as_ref()?.known.as_ref()
    }

    /// Marks input `i` as turned into an attribute: it will not be an input of the operator.
    pub fn consume(&mut self, i: usize) {
        if let Some(c) = self.consumed.get_mut(i) {
            *c = true;
        }
    }

    /// Whether input `i` was turned into an attribute.
    pub fn is_consumed(&self, i: usize) -> bool {
        self.consumed.get(i).copied().unwrap_or(false)
    }

    /// Names and values that nobody read.
    pub fn unread(&self) -> Vec<(&str, &AttrValue)> {
        let unread = self.attrs.iter().filter(|(_, (_, read))| !read);
        unread.map(|(k, (v, _))| (k.as_str(), v)).collect()
    }

    /// Attributes that were asked for, there or not.
    pub fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }

    /// The input that says `name` where that is no attribute.
    pub fn input_of(&self, name: &str) -> Option<usize> {
        self.in_inputs.iter().find(|(n, _)| n == name).map(|(_, i)| *i)
    }

    /// Whether something was looked for in input `i`.
    pub fn reads_input(&self, i: usize) -> bool {
        self.in_inputs.iter().any(|(_, input)| *input == i)
    }

    /// An attribute's value, marked as read.
    pub fn raw(&mut self, name: &str) -> Option<AttrValue> {
        self.asked.insert(name.to_owned());
        let (v, read) = self.attrs.get_mut(name)?;
        *read = true;
        Some(v.clone())
    }

    /// Names of all attributes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attrs.keys().map(String::as_str)
    }

    /// One of the values that have names; the first of them where it is absent.
    pub fn named<T: Copy>(&mut self, name: &str, all: &[T], of: fn(T) -> &'static str) -> Result<T, OpError> {
        let names: Vec<&'static str> = all.iter().map(|v| of(*v)).collect();
        let found = self.one_of(name, names[0], &names)?;
        Ok(names.iter().position(|n| *n == found).map_or(all[0], |i| all[i]))
    }

    /// Marks an attribute that does not change inference as read.
    pub fn ignore(&mut self, name: &str) {
        self.raw(name);
    }

    fn wrong(name: &str, v: &AttrValue, supported: &str) -> OpError {
        OpError::Attribute { name: name.to_owned(), value: v.to_string(), supported: supported.to_owned() }
    }

    /// An error that says which values of `name` are supported.
    pub fn unsupported(&self, name: &str, value: impl fmt::Display, supported: &str) -> OpError {
        OpError::Attribute {
            name: name.to_owned(),
            value: value.to_string(),
            supported: supported.to_owned(),
        }
    }

    /// An optional integer.
    pub fn opt_int(&mut self, name: &str) -> Result<Option<i64>, OpError> {
        match self.raw(name) {
            None => Ok(None),
            Some(AttrValue::Int(v)) => Ok(Some(v)),
            Some(v) => Err(Self::wrong(name, &v, "an integer")),
        }
    }

    /// An integer with its default.
    pub fn int(&mut self, name: &str, default: i64) -> Result<i64, OpError> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// An integer that only graph files have: it states what ONNX says by operator-set version.
    pub fn own_int(&mut self, name: &str, from_onnx: i64) -> Result<i64, OpError> {
        match self.source {
            Source::Onnx(_) => Ok(from_onnx),
            Source::Graph => self.int(name, from_onnx),
        }
    }

    /// An integer that must be 0 or 1.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, OpError> {
        match self.int(name, i64::from(default))? {
            0 => Ok(false),
            1 => Ok(true),
            v => Err(self.unsupported(name, v, "0 or 1")),
        }
    }

    /// A number with its default.
    pub fn float(&mut self, name: &str, default: f32) -> Result<f32, OpError> {
        match self.raw(name) {
            None => Ok(default),
            Some(AttrValue::Float(v)) => Ok(v),
            Some(v) => Err(Self::wrong(name, &v, "a number")),
        }
    }

    /// Optional numbers.
    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, OpError> {
        match self.raw(name) {
            None => Ok(None),
            Some(AttrValue::Floats(v)) => Ok(Some(v)),
            // An empty list carries no element type.
            Some(AttrValue::Ints(v)) if v.is_empty() => Ok(Some(Vec::new())),
            Some(v) => Err(Self::wrong(name, &v, "numbers")),
        }
    }

    /// Optional dimensions, possibly multiples of the batch.
    pub fn sym_ints(&mut self, name: &str) -> Result<Option<Vec<SymInt>>, OpError> {
        match self.raw(name) {
            None => Ok(None),
            Some(AttrValue::Ints(v)) => Ok(Some(v)),
            Some(AttrValue::Floats(v)) if v.is_empty() => Ok(Some(Vec::new())),
            Some(v) => Err(Self::wrong(name, &v, "integers")),
        }
    }

    /// Optional integers.
    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, OpError> {
        let Some(v) = self.sym_ints(name)? else { return Ok(None) };
        let out: Option<Vec<i64>> = v.iter().map(|s| s.int()).collect();
        out.map(Some)
            .ok_or_else(|| Self::wrong(name, &AttrValue::Ints(v), "integers that do not depend on the batch"))
    }

    /// Optional non-negative integers.
    pub fn sizes(&mut self, name: &str) -> Result<Option<Vec<usize>>, OpError> {
        let Some(v) = self.ints(name)? else { return Ok(None) };
        let out: Option<Vec<usize>> = v.iter().map(|s| usize::try_from(*s).ok()).collect();
        match out {
            Some(out) => Ok(Some(out)),
            None => Err(self.unsupported(name, format!("{v:?}"), "non-negative integers")),
        }
    }

    /// One of the `supported` texts; `default` where it is absent.
    pub fn one_of(
        &mut self,
        name: &str,
        default: &'static str,
        supported: &[&'static str],
    ) -> Result<&'static str, OpError> {
        match self.raw(name) {
            None => Ok(default),
            Some(AttrValue::Str(v)) => supported
                .iter()
                .copied()
                .find(|s| *s == v)
                .ok_or_else(|| self.unsupported(name, format!("{v:?}"), &supported.join(", "))),
            Some(v) => Err(Self::wrong(name, &v, &supported.join(", "))),
        }
    }

    /// Optional text.
    pub fn opt_str(&mut self, name: &str) -> Result<Option<String>, OpError> {
        match self.raw(name) {
            None => Ok(None),
            Some(AttrValue::Str(v)) => Ok(Some(v)),
            Some(v) => Err(Self::wrong(name, &v, "a text")),
        }
    }

    /// Integers from attribute `name` or else from constant input `index`, which is then consumed.
    pub fn sym_ints_or_input(&mut self, name: &str, index: usize) -> Result<Option<Vec<SymInt>>, OpError> {
        if self.attrs.contains_key(name) {
            return self.sym_ints(name);
        }
        if !self.has_input(index) || self.source == Source::Graph {
            return Ok(None);
        }
        self.in_inputs.push((name.to_owned(), index));
        let values = match self.known(index) {
            Some(Known::Ints { values, .. }) => Some(values.clone()),
            Some(Known::Tensor(t)) => {
                t.as_i32().map(|v| v.iter().map(|x| SymInt::Int(i64::from(*x))).collect())
            }
            None => None,
        };
        let values = values.ok_or_else(|| self.no_value(index, name, "integers"))?;
        self.consume(index);
        Ok(Some(values))
    }

    /// Integers from attribute `name` or else from constant input `index`, which is then consumed.
    pub fn ints_or_input(&mut self, name: &str, index: usize) -> Result<Option<Vec<i64>>, OpError> {
        let Some(v) = self.sym_ints_or_input(name, index)? else { return Ok(None) };
        let out: Option<Vec<i64>> = v.iter().map(|s| s.int()).collect();
        out.map(Some)
            .ok_or_else(|| Self::wrong(name, &AttrValue::Ints(v), "integers that do not depend on the batch"))
    }

    /// One integer from attribute `name` or else from constant input `index`, which is then consumed.
    pub fn int_or_input(&mut self, name: &str, index: usize) -> Result<Option<i64>, OpError> {
        if matches!(self.attrs.get(name), Some((AttrValue::Int(_), _))) {
            return self.opt_int(name);
        }
        match self.ints_or_input(name, index)?.as_deref() {
            None => Ok(None),
            Some([v]) => Ok(Some(*v)),
            Some(v) => Err(self.unsupported(name, format!("{v:?}"), "one integer")),
        }
    }

    /// Numbers from attribute `name` or else from constant input `index`, which is then consumed.
    pub fn floats_or_input(&mut self, name: &str, index: usize) -> Result<Option<Vec<f32>>, OpError> {
        if let Some((v, _)) = self.attrs.get(name) {
            if let AttrValue::Float(x) = *v {
                self.ignore(name);
                return Ok(Some(vec![x]));
            }
            return self.floats(name);
        }
        if !self.has_input(index) || self.source == Source::Graph {
            return Ok(None);
        }
        self.in_inputs.push((name.to_owned(), index));
        let values: Option<Vec<f32>> = match self.known(index) {
            Some(Known::Tensor(t)) => match (t.as_f32(), t.as_i32()) {
                (Some(v), _) => Some(v.to_vec()),
                #[allow(clippy::cast_precision_loss, reason = "an integer bound of a float operator")]
                (_, Some(v)) => Some(v.iter().map(|x| *x as f32).collect()),
                _ => None,
            },
            #[allow(clippy::cast_precision_loss, reason = "an integer bound of a float operator")]
            Some(Known::Ints { values, .. }) => values.iter().map(|s| s.int().map(|v| v as f32)).collect(),
            None => None,
        };
        let values = values.ok_or_else(|| self.no_value(index, name, "numbers"))?;
        self.consume(index);
        Ok(Some(values))
    }

    /// One number from attribute `name` or else from constant input `index`, which is then consumed.
    pub fn float_or_input(&mut self, name: &str, index: usize) -> Result<Option<f32>, OpError> {
        match self.floats_or_input(name, index)?.as_deref() {
            None => Ok(None),
            Some([v]) => Ok(Some(*v)),
            Some(v) => Err(self.unsupported(name, format!("{v:?}"), "one number")),
        }
    }

    /// Attribute `name` as an axis of input `input`; negative counts from the end.
    pub fn axis_of(&mut self, input: usize, name: &str, default: i64) -> Result<usize, OpError> {
        let v = self.int(name, default)?;
        let rank = self.input(input)?.rank();
        normalize_axis(v, rank).ok_or(OpError::Axis { axis: v, rank })
    }

    /// Element type of attribute `name`, an ONNX type number or one of our names.
    pub fn dtype(&mut self, name: &str, default: DType) -> Result<DType, OpError> {
        let supported = "float (1), uint8 (2), int8 (3), uint16 (4), int16 (5), int32 (6), int64 (7), bool (9), float16 (10), double (11), bfloat16 (16), uint4 (21), int4 (22)";
        match self.raw(name) {
            None => Ok(default),
            Some(AttrValue::Str(s)) => DType::from_name(&s)
                .ok_or_else(|| self.unsupported(name, s, "f32, i32, bool, i4, i8, i16, u4, u8, u16")),
            Some(AttrValue::Int(v)) => onnx_dtype(v).ok_or_else(|| self.unsupported(name, v, supported)),
            Some(v) => Err(Self::wrong(name, &v, supported)),
        }
    }
}
