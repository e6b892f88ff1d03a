//! Attributes of operators, and the reader that notices what was not read.

use super::op::OpError;
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::collections::BTreeMap;
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

/// Where the newest operator set of ONNX has what an attribute of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In an attribute of its name.
    Attribute,
    /// In input `index`: integers as int64, numbers as float, one alone as a scalar.
    Input(usize),
    /// In input `index`, one alone as a list of one.
    List(usize),
    /// In input `index`, a scalar of the element type of output 0.
    Element(usize),
    /// In an attribute that is a tensor of one element of the type of output 0.
    Tensor,
    /// In an attribute that is the number of an element type.
    Type,
    /// Nowhere, because it follows from the rest of the node.
    Implied,
    /// Nowhere: what it says cannot be said.
    Unsaid,
}

/// How ONNX writes an operator, as far as it differs from attributes of the same names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxForm {
    /// Attributes that ONNX has elsewhere.
    pub places: Vec<(String, Place)>,
    /// Inputs that must be of int64.
    pub wide_inputs: Vec<usize>,
    /// Outputs that are of int64.
    pub wide_outputs: Vec<usize>,
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

/// Where a [`Reader`] reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An ONNX node of this operator-set version.
    Onnx(i64),
    /// A graph file or text: attributes as [`super::Op::attrs`] wrote them, nothing left in constant inputs.
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
        Reader { source, op_type, attrs, inputs, unknown: Vec::new(), consumed, outputs }
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

    /// An attribute's value, marked as read.
    pub fn raw(&mut self, name: &str) -> Option<AttrValue> {
        let (v, read) = self.attrs.get_mut(name)?;
        *read = true;
        Some(v.clone())
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
