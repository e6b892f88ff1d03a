//! Element types, symbolic and concrete shapes, and dense tensors.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Highest rank a tensor may have.
pub const MAX_RANK: usize = 6;

/// Largest number of elements of one tensor: element indices are `u32` on the device.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Element type. ONNX's 64-bit integers become [`DType::I32`] at import, its other float types [`DType::F32`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// 32-bit two's complement.
    I32,
    /// Truth value, stored as 0 or 1 in a byte on the host.
    Bool,
    /// 8-bit two's complement.
    I8,
    /// 8-bit unsigned.
    U8,
    /// 16-bit two's complement.
    I16,
    /// 16-bit unsigned.
    U16,
    /// 4-bit two's complement, stored in a byte on the host.
    I4,
    /// 4-bit unsigned, stored in a byte on the host.
    U4,
}

impl DType {
    /// Every element type, for parsers and listings.
    pub const ALL: [DType; 9] = [
        DType::F32,
        DType::I32,
        DType::Bool,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I4,
        DType::U4,
    ];

    /// The name used in text, JSON and messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::Bool => "bool",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I16 => "i16",
            DType::U16 => "u16",
            DType::I4 => "i4",
            DType::U4 => "u4",
        }
    }

    /// The type called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Bytes of one element on the host.
    pub fn size_bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::I16 | DType::U16 => 2,
            DType::Bool | DType::I8 | DType::U8 | DType::I4 | DType::U4 => 1,
        }
    }

    /// Lowest and highest integer, `None` for floats and truth values.
    pub fn limits(self) -> Option<(i32, i32)> {
        match self {
            DType::F32 | DType::Bool => None,
            DType::I32 => Some((i32::MIN, i32::MAX)),
            DType::I16 => Some((-32768, 32767)),
            DType::U16 => Some((0, 65535)),
            DType::I8 => Some((-128, 127)),
            DType::U8 => Some((0, 255)),
            DType::I4 => Some((-8, 7)),
            DType::U4 => Some((0, 15)),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dimension: an integer, or a multiple of N, the one symbolic batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// This many.
    Fixed(usize),
    /// k * N, k at least 1.
    Batch(usize),
}

impl Dim {
    /// The dimension when N is `batch`; `None` when it overflows.
    pub fn at(self, batch: usize) -> Option<usize> {
        match self {
            Dim::Fixed(d) => Some(d),
            Dim::Batch(k) => k.checked_mul(batch),
        }
    }

    /// The number, unless it depends on the batch.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(d) => Some(d),
            Dim::Batch(_) => None,
        }
    }

    /// Product, where it is a dimension again (N*N is none).
    pub fn times(self, other: Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(0), _) | (_, Dim::Fixed(0)) => Some(Dim::Fixed(0)),
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_mul(b).map(Dim::Fixed),
            (Dim::Fixed(a), Dim::Batch(k)) | (Dim::Batch(k), Dim::Fixed(a)) => {
                a.checked_mul(k).map(Dim::Batch)
            }
            (Dim::Batch(_), Dim::Batch(_)) => None,
        }
    }

    /// Sum, where it is a dimension again (N+1 is none).
    pub fn plus(self, other: Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(0), d) | (d, Dim::Fixed(0)) => Some(d),
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_add(b).map(Dim::Fixed),
            (Dim::Batch(a), Dim::Batch(b)) => a.checked_add(b).map(Dim::Batch),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(d) => write!(f, "{d}"),
            Dim::Batch(1) => f.write_str("N"),
            Dim::Batch(k) => write!(f, "{k}N"),
        }
    }
}

impl From<usize> for Dim {
    fn from(d: usize) -> Self {
        Dim::Fixed(d)
    }
}

/// Element type and shape, in logical (ONNX) axis order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// A type with the given dimensions.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        TensorType { dtype, shape: shape.into_iter().map(Into::into).collect() }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The dimensions as numbers; `None` while one depends on the batch.
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|d| d.fixed()).collect()
    }

    /// Whether a dimension depends on the batch.
    pub fn is_symbolic(&self) -> bool {
        self.shape.iter().any(|d| matches!(d, Dim::Batch(_)))
    }

    /// Product of the dimensions, where that is a dimension.
    pub fn elements(&self) -> Option<Dim> {
        self.shape.iter().try_fold(Dim::Fixed(1), |acc, d| acc.times(*d))
    }

    /// The type when N is `batch`; `None` when a dimension overflows.
    pub fn at(&self, batch: usize) -> Option<TensorType> {
        let shape: Option<Vec<_>> = self.shape.iter().map(|d| d.at(batch).map(Dim::Fixed)).collect();
        Some(TensorType { dtype: self.dtype, shape: shape? })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// Element storage, shared between clones.
#[derive(Clone, Debug)]
pub enum Data {
    /// [`DType::F32`].
    F32(Arc<Vec<f32>>),
    /// [`DType::I32`].
    I32(Arc<Vec<i32>>),
    /// [`DType::Bool`], each element 0 or 1.
    Bool(Arc<Vec<u8>>),
    /// [`DType::I8`].
    I8(Arc<Vec<i8>>),
    /// [`DType::U8`].
    U8(Arc<Vec<u8>>),
    /// [`DType::I16`].
    I16(Arc<Vec<i16>>),
    /// [`DType::U16`].
    U16(Arc<Vec<u16>>),
    /// [`DType::I4`], each element in -8..=7.
    I4(Arc<Vec<i8>>),
    /// [`DType::U4`], each element in 0..=15.
    U4(Arc<Vec<u8>>),
}

/// A dense row-major tensor in logical axis order. Cloning shares the elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

/// Product of dimensions, `None` beyond [`MAX_ELEMENTS`]. Zeros do not excuse the other dimensions from the limit,
/// so that strides of every accepted shape fit, too.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    let bound = shape.iter().try_fold(1usize, |acc, d| acc.checked_mul((*d).max(1)))?;
    let n = if shape.contains(&0) { 0 } else { bound };
    (bound <= MAX_ELEMENTS).then_some(n)
}

/// Row-major strides in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        out[i] = out[i + 1] * shape[i + 1];
    }
    out
}

macro_rules! typed {
    ($variant:ident, $ty:ty, $new:ident, $get:ident, $what:literal) => {
        #[doc = concat!("A tensor of ", $what, " elements, row-major. Panics when the count does not fit the shape.")]
        pub fn $new(shape: impl Into<Vec<usize>>, data: Vec<$ty>) -> Tensor {
            let shape = shape.into();
            assert_eq!(element_count(&shape), Some(data.len()), "elements of shape {shape:?}");
            Tensor { shape, data: Data::$variant(Arc::new(data)) }
        }

        #[doc = concat!("The ", $what, " elements, `None` for another type.")]
        pub fn $get(&self) -> Option<&[$ty]> {
            match &self.data {
                Data::$variant(v) => Some(v.as_slice()),
                _ => None,
            }
        }
    };
}

impl Tensor {
    typed!(F32, f32, from_f32, as_f32, "`f32`");
    typed!(I32, i32, from_i32, as_i32, "`i32`");
    typed!(Bool, u8, from_bool, as_bool, "truth value (0 or 1)");
    typed!(I8, i8, from_i8, as_i8, "`i8`");
    typed!(U8, u8, from_u8, as_u8, "`u8`");
    typed!(I16, i16, from_i16, as_i16, "`i16`");
    typed!(U16, u16, from_u16, as_u16, "`u16`");

    /// A tensor of integers from wider ones; `None` when one is outside the type or the type has no integers.
    pub fn from_codes(dtype: DType, shape: &[usize], codes: &[i32]) -> Option<Tensor> {
        let (low, high) = dtype.limits()?;
        if element_count(shape)? != codes.len() || !codes.iter().all(|c| (low..=high).contains(c)) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let data = match dtype {
            DType::I32 => Data::I32(Arc::new(codes.to_vec())),
            DType::I8 => Data::I8(Arc::new(codes.iter().map(|c| *c as i8).collect())),
            DType::U8 => Data::U8(Arc::new(codes.iter().map(|c| *c as u8).collect())),
            DType::I16 => Data::I16(Arc::new(codes.iter().map(|c| *c as i16).collect())),
            DType::U16 => Data::U16(Arc::new(codes.iter().map(|c| *c as u16).collect())),
            DType::I4 => Data::I4(Arc::new(codes.iter().map(|c| *c as i8).collect())),
            DType::U4 => Data::U4(Arc::new(codes.iter().map(|c| *c as u8).collect())),
            DType::F32 | DType::Bool => return None,
        };
        Some(Tensor { shape: shape.to_vec(), data })
    }

    /// The elements as integers; `None` for floats and truth values.
    pub fn codes(&self) -> Option<Vec<i32>> {
        match &self.data {
            Data::F32(_) | Data::Bool(_) => None,
            Data::I32(v) => Some(v.to_vec()),
            Data::I8(v) | Data::I4(v) => Some(v.iter().map(|c| i32::from(*c)).collect()),
            Data::U8(v) | Data::U4(v) => Some(v.iter().map(|c| i32::from(*c)).collect()),
            Data::I16(v) => Some(v.iter().map(|c| i32::from(*c)).collect()),
            Data::U16(v) => Some(v.iter().map(|c| i32::from(*c)).collect()),
        }
    }

    /// Element `i` as a number; truth values are 0 and 1.
    pub fn number(&self, i: usize) -> f64 {
        match &self.data {
            Data::F32(v) => f64::from(v[i]),
            Data::I32(v) => f64::from(v[i]),
            Data::Bool(v) | Data::U8(v) | Data::U4(v) => f64::from(v[i]),
            Data::I8(v) | Data::I4(v) => f64::from(v[i]),
            Data::I16(v) => f64::from(v[i]),
            Data::U16(v) => f64::from(v[i]),
        }
    }

    /// The elements of a tensor that [`crate::graph::Op::infer`] has accepted as f32. Panics on another type.
    pub fn f32s(&self) -> &[f32] {
        self.as_f32().expect("the type was checked")
    }

    /// The elements of a tensor that [`crate::graph::Op::infer`] has accepted as i32. Panics on another type.
    pub fn i32s(&self) -> &[i32] {
        self.as_i32().expect("the type was checked")
    }

    /// A tensor without axes.
    pub fn scalar(v: f32) -> Tensor {
        Tensor::from_f32([], vec![v])
    }

    /// A tensor of zeros. Panics beyond [`MAX_ELEMENTS`].
    pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        let n = element_count(&shape).expect("shape was checked");
        let data = match dtype {
            DType::F32 => Data::F32(Arc::new(vec![0.0; n])),
            DType::I32 => Data::I32(Arc::new(vec![0; n])),
            DType::Bool => Data::Bool(Arc::new(vec![0; n])),
            DType::I8 => Data::I8(Arc::new(vec![0; n])),
            DType::U8 => Data::U8(Arc::new(vec![0; n])),
            DType::I16 => Data::I16(Arc::new(vec![0; n])),
            DType::U16 => Data::U16(Arc::new(vec![0; n])),
            DType::I4 => Data::I4(Arc::new(vec![0; n])),
            DType::U4 => Data::U4(Arc::new(vec![0; n])),
        };
        Tensor { shape, data }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::Bool(_) => DType::Bool,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
            Data::I16(_) => DType::I16,
            Data::U16(_) => DType::U16,
            Data::I4(_) => DType::I4,
            Data::U4(_) => DType::U4,
        }
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::Bool(v) | Data::U8(v) | Data::U4(v) => v.len(),
            Data::I8(v) | Data::I4(v) => v.len(),
            Data::I16(v) => v.len(),
            Data::U16(v) => v.len(),
        }
    }

    /// Whether a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type with fixed dimensions.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype(), self.shape.iter().copied())
    }

    /// The storage.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements as what is shared between clones, by which a tensor can be told from others.
    pub(crate) fn storage(&self) -> Arc<dyn Any + Send + Sync> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::I32(v) => v.clone(),
            Data::Bool(v) | Data::U8(v) | Data::U4(v) => v.clone(),
            Data::I8(v) | Data::I4(v) => v.clone(),
            Data::I16(v) => v.clone(),
            Data::U16(v) => v.clone(),
        }
    }

    /// The elements of an f32 tensor to be changed; a copy of them where another tensor shares them. Panics on another type.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Data::F32(v) => Arc::make_mut(v).as_mut_slice(),
            _ => panic!("the type was checked"),
        }
    }

    /// Takes the storage out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::I32(v) => bytemuck::cast_slice(v),
            Data::Bool(v) | Data::U8(v) | Data::U4(v) => v,
            Data::I8(v) | Data::I4(v) => bytemuck::cast_slice(v),
            Data::I16(v) => bytemuck::cast_slice(v),
            Data::U16(v) => bytemuck::cast_slice(v),
        }
    }

    /// A tensor from little-endian bytes; `None` when their number does not fit the shape, a truth value is neither 0 nor 1,
    /// or a 4-bit element is outside its range.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
        let n = element_count(shape)?;
        if n.checked_mul(dtype.size_bytes())? != bytes.len() {
            return None;
        }
        let legal = match dtype {
            DType::Bool => bytes.iter().all(|b| *b <= 1),
            DType::U4 => bytes.iter().all(|b| *b <= 15),
            DType::I4 => bytes.iter().all(|b| (-8..=7).contains(&b.cast_signed())),
            _ => true,
        };
        if !legal {
            return None;
        }
        let data = match dtype {
            DType::F32 => Data::F32(Arc::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::I32 => Data::I32(Arc::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::Bool => Data::Bool(Arc::new(bytes.to_vec())),
            DType::I8 => Data::I8(Arc::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::U8 => Data::U8(Arc::new(bytes.to_vec())),
            DType::I16 => Data::I16(Arc::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::U16 => Data::U16(Arc::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::I4 => Data::I4(Arc::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::U4 => Data::U4(Arc::new(bytes.to_vec())),
        };
        Some(Tensor { shape: shape.to_vec(), data })
    }

    /// The same elements under another shape. Panics when their number differs.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        assert_eq!(element_count(&shape), Some(self.len()));
        Tensor { shape, data: self.data.clone() }
    }
}

/// Equal type, shape and bits: a NaN equals itself, and 0 differs from -0.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype() == other.dtype() && self.shape == other.shape && self.bytes() == other.bytes()
    }
}
