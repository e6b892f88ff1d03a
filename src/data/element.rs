//! Types of stored elements.

use crate::tensor::{DType, Tensor};

/// Type of a stored element, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum Element {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
}

use Element as E;

impl Element {
    /// Every type with its name in data set files and its NumPy code.
    pub const ALL: [(Element, &'static str, &'static str); 12] = [
        (E::Bool, "bool", "b1"),
        (E::I8, "i8", "i1"),
        (E::U8, "u8", "u1"),
        (E::I16, "i16", "i2"),
        (E::U16, "u16", "u2"),
        (E::I32, "i32", "i4"),
        (E::U32, "u32", "u4"),
        (E::I64, "i64", "i8"),
        (E::U64, "u64", "u8"),
        (E::F16, "f16", "f2"),
        (E::F32, "f32", "f4"),
        (E::F64, "f64", "f8"),
    ];

    /// The type called `name` in data set files.
    pub fn from_name(name: &str) -> Option<Element> {
        Self::ALL.iter().find(|(_, n, _)| *n == name).map(|(e, ..)| *e)
    }

    /// Stored type of a tensor's elements.
    pub fn of(dtype: DType) -> Element {
        match dtype {
            DType::F32 => E::F32,
            DType::I32 => E::I32,
            DType::Bool => E::Bool,
            DType::I8 | DType::I4 => E::I8,
            DType::U8 | DType::U4 => E::U8,
            DType::I16 => E::I16,
            DType::U16 => E::U16,
        }
    }

    /// NumPy's `descr`, such as `<f4` or `|u1`.
    pub(super) fn from_descr(descr: &str) -> Option<Element> {
        let (order, code) = descr.split_at_checked(1)?;
        let found = Self::ALL.iter().find(|(_, _, c)| *c == code).map(|(e, ..)| *e)?;
        (order == "<" || (found.size_bytes() == 1 && order != ">")).then_some(found)
    }

    pub(super) fn descr(self) -> String {
        let (_, _, code) = Self::ALL[self as usize];
        format!("{}{code}", if self.size_bytes() == 1 { '|' } else { '<' })
    }

    /// Bytes of one stored element.
    pub fn size_bytes(self) -> usize {
        match self {
            E::Bool | E::I8 | E::U8 => 1,
            E::I16 | E::U16 | E::F16 => 2,
            E::I32 | E::U32 | E::F32 => 4,
            E::I64 | E::U64 | E::F64 => 8,
        }
    }

    /// Type of the tensor that is read: other floats become f32, other integers i32.
    pub fn dtype(self) -> DType {
        match self {
            E::Bool => DType::Bool,
            E::I8 => DType::I8,
            E::U8 => DType::U8,
            E::I16 | E::U16 | E::I32 | E::U32 | E::I64 | E::U64 => DType::I32,
            E::F16 | E::F32 | E::F64 => DType::F32,
        }
    }

    /// The tensor that `bytes`, row-major, hold. The count was checked by the caller.
    ///
    /// # Errors
    /// An integer beyond i32 or a truth value beyond 0 and 1, with the value.
    pub(super) fn tensor(self, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
        let shape = shape.to_vec();
        Ok(match self {
            E::Bool => match bytes.iter().position(|b| *b > 1) {
                Some(i) => return Err(format!("element {i} is {}, not a truth value (0 or 1)", bytes[i])),
                None => Tensor::from_bool(shape, bytes.to_vec()),
            },
            E::U8 => Tensor::from_u8(shape, bytes.to_vec()),
            E::I8 => Tensor::from_i8(shape, bytemuck::pod_collect_to_vec(bytes)),
            E::F32 => Tensor::from_f32(shape, numbers(bytes, f32::from_le_bytes)),
            E::F16 => Tensor::from_f32(shape, numbers(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            E::F64 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "rounds to nearest, as documented")]
                Tensor::from_f32(shape, numbers(bytes, |b| f64::from_le_bytes(b) as f32))
            }
            E::I32 => Tensor::from_i32(shape, numbers(bytes, i32::from_le_bytes)),
            _ => {
                let wide = self.integers(bytes).ok_or("a value does not fit i64")?;
                let narrow: Result<Vec<i32>, _> = wide
                    .iter()
                    .enumerate()
                    .map(|(i, v)| {
                        i32::try_from(*v).map_err(|_| format!("element {i} is {v}, which does not fit i32"))
                    })
                    .collect();
                Tensor::from_i32(shape, narrow?)
            }
        })
    }

    /// The integers that `bytes` hold; `None` for floats and for values beyond i64.
    pub(super) fn integers(self, bytes: &[u8]) -> Option<Vec<i64>> {
        Some(match self {
            E::Bool | E::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
            E::I8 => numbers(bytes, |b| i64::from(i8::from_le_bytes(b))),
            E::I16 => numbers(bytes, |b| i64::from(i16::from_le_bytes(b))),
            E::U16 => numbers(bytes, |b| i64::from(u16::from_le_bytes(b))),
            E::I32 => numbers(bytes, |b| i64::from(i32::from_le_bytes(b))),
            E::U32 => numbers(bytes, |b| i64::from(u32::from_le_bytes(b))),
            E::I64 => numbers(bytes, i64::from_le_bytes),
            E::U64 => {
                let wide = numbers(bytes, u64::from_le_bytes);
                return wide.into_iter().map(|v| i64::try_from(v).ok()).collect();
            }
            E::F16 | E::F32 | E::F64 => return None,
        })
    }
}

fn numbers<T, const B: usize>(bytes: &[u8], read: impl Fn([u8; B]) -> T) -> Vec<T> {
    bytes.as_chunks::<B>().0.iter().map(|b| read(*b)).collect()
}
