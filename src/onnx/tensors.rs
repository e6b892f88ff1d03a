//! Tensors stored in the model file or beside it.

use super::constant::{Constant, IntKind, Ints};
use super::problem::TensorProblem;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataType;
use crate::graph::attrs::SymInt;
use crate::tensor::{DType, MAX_RANK, Tensor, element_count};
use bytes::Bytes;
use half::{bf16, f16};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// The folder in which external data may lie; `None` for a model from memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder(pub Option<PathBuf>);

/// ONNX's name of an element type, or its number.
pub(super) fn type_name(number: i32) -> String {
    match DataType::try_from(number) {
        Ok(t) => t.as_str_name().to_lowercase(),
        Err(_) => format!("number {number}"),
    }
}

/// Dimensions and element count of a stored tensor.
fn shape_of(t: &TensorProto) -> Option<(Vec<usize>, usize)> {
    let dims: Option<Vec<usize>> = t.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let dims = dims.filter(|d| d.len() <= MAX_RANK)?;
    let n = element_count(&dims)?;
    Some((dims, n))
}

/// Reads a stored tensor.
pub(super) fn read(t: &TensorProto, folder: &Folder) -> Result<Constant, TensorProblem> {
    let name = || t.name().to_owned();
    let element_type = || TensorProblem::ElementType { tensor: name(), got: type_name(t.data_type()) };
    if t.segment.is_some() {
        return Err(TensorProblem::Form { tensor: name(), form: "stored in segments" });
    }
    let bits = match DataType::try_from(t.data_type()).map_err(|_| element_type())? {
        DataType::Float | DataType::Int32 => 32,
        DataType::Int64 | DataType::Double => 64,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 16,
        DataType::Int8 | DataType::Uint8 | DataType::Bool => 8,
        DataType::Int4 | DataType::Uint4 => 4,
        _ => return Err(element_type()),
    };
    let (shape, n) =
        shape_of(t).ok_or_else(|| TensorProblem::Dims { tensor: name(), dims: t.dims.clone() })?;
    let bytes = (n as u64 * bits).div_ceil(8);
    let size = |unit, expected: u64, got: usize| TensorProblem::Size {
        tensor: name(),
        dims: t.dims.clone(),
        unit,
        expected,
        got: got as u64,
    };
    // 1 is EXTERNAL.
    let raw = if t.data_location.unwrap_or(0) == 1 {
        Some(external(t, folder, bytes)?)
    } else {
        t.raw_data.clone()
    };
    match raw {
        Some(raw) if raw.len() as u64 == bytes => from_raw(t, shape, &raw),
        Some(raw) => Err(size("bytes", bytes, raw.len())),
        None => {
            let (expected, got) = (if bits == 4 { n.div_ceil(2) } else { n }, typed_len(t));
            if got != expected {
                return Err(size("elements", expected as u64, got));
            }
            from_typed(t, shape)
        }
    }
}

fn from_raw(t: &TensorProto, shape: Vec<usize>, raw: &[u8]) -> Result<Constant, TensorProblem> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "numbers are f32 here; ONNX's double is rounded to it"
    )]
    let narrow = |x: f64| x as f32;
    let f32s = |v: Vec<f32>| Ok(Constant::Tensor(Tensor::from_f32(shape.clone(), v)));
    let ints = |kind, v: Vec<SymInt>| Ok(Constant::Ints(Ints::new(kind, shape.clone(), v)));
    match t.data_type() {
        1 => f32s(raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        2 => Ok(Constant::Tensor(Tensor::from_u8(shape, raw.to_vec()))),
        3 => Ok(Constant::Tensor(Tensor::from_i8(shape, bytemuck::pod_collect_to_vec(raw)))),
        4 => {
            let values = raw.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
            Ok(Constant::Tensor(Tensor::from_u16(shape, values)))
        }
        5 => {
            let values = raw.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
            Ok(Constant::Tensor(Tensor::from_i16(shape, values)))
        }
        21 | 22 => Ok(Constant::Tensor(four_bits(t, &shape, raw))),
        6 => {
            let int = |b: &[u8; 4]| SymInt::Int(i64::from(i32::from_le_bytes(*b)));
            ints(IntKind::I32, raw.as_chunks().0.iter().map(int).collect())
        }
        7 => {
            let int = |b: &[u8; 8]| SymInt::Int(i64::from_le_bytes(*b));
            ints(IntKind::I64, raw.as_chunks().0.iter().map(int).collect())
        }
        9 => {
            let wrong = raw.iter().enumerate().find(|(_, b)| **b > 1);
            if let Some((index, b)) = wrong {
                return Err(element(t, "bool", index, i64::from(*b)));
            }
            Ok(Constant::Tensor(Tensor::from_bool(shape, raw.to_vec())))
        }
        10 => f32s(raw.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        11 => f32s(raw.as_chunks().0.iter().map(|b| narrow(f64::from_le_bytes(*b))).collect()),
        _ => f32s(raw.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
    }
}

/// Elements packed two a byte, the first in the lower half.
fn four_bits(t: &TensorProto, shape: &[usize], raw: &[u8]) -> Tensor {
    let signed = t.data_type() == DataType::Int4 as i32;
    let code = |half: u8| i32::from(half) - if signed && half > 7 { 16 } else { 0 };
    let halves = raw.iter().flat_map(|b| [b & 15, b >> 4]);
    let codes: Vec<i32> = halves.take(shape.iter().product()).map(code).collect();
    let dtype = if signed { DType::I4 } else { DType::U4 };
    Tensor::from_codes(dtype, shape, &codes).expect("the number of bytes was checked")
}

fn element(t: &TensorProto, dtype: &'static str, index: usize, value: i64) -> TensorProblem {
    TensorProblem::Element { tensor: t.name().to_owned(), dtype, index, value }
}

fn typed_len(t: &TensorProto) -> usize {
    match t.data_type() {
        1 => t.float_data.len(),
        7 => t.int64_data.len(),
        11 => t.double_data.len(),
        _ => t.int32_data.len(),
    }
}

/// Each element of `int32_data` in a narrower type.
fn narrowed<T: TryFrom<i32>>(t: &TensorProto, dtype: &'static str) -> Result<Vec<T>, TensorProblem> {
    let one = |(i, v): (usize, &i32)| T::try_from(*v).map_err(|_| element(t, dtype, i, i64::from(*v)));
    t.int32_data.iter().enumerate().map(one).collect()
}

fn from_typed(t: &TensorProto, shape: Vec<usize>) -> Result<Constant, TensorProblem> {
    let tensor = match t.data_type() {
        1 => Tensor::from_f32(shape, t.float_data.clone()),
        2 => Tensor::from_u8(shape, narrowed(t, "uint8")?),
        3 => Tensor::from_i8(shape, narrowed(t, "int8")?),
        4 => Tensor::from_u16(shape, narrowed(t, "uint16")?),
        5 => Tensor::from_i16(shape, narrowed(t, "int16")?),
        21 | 22 => four_bits(t, &shape, &narrowed(t, "a byte of two uint4 or int4")?),
        6 => {
            let values = t.int32_data.iter().map(|v| SymInt::Int(i64::from(*v))).collect();
            return Ok(Constant::Ints(Ints::new(IntKind::I32, shape, values)));
        }
        7 => {
            let values = t.int64_data.iter().map(|v| SymInt::Int(*v)).collect();
            return Ok(Constant::Ints(Ints::new(IntKind::I64, shape, values)));
        }
        9 => {
            let wrong = t.int32_data.iter().enumerate().find(|(_, v)| !(0..=1).contains(*v));
            if let Some((index, v)) = wrong {
                return Err(element(t, "bool", index, i64::from(*v)));
            }
            Tensor::from_bool(shape, narrowed(t, "bool")?)
        }
        11 => {
            #[allow(clippy::cast_possible_truncation, reason = "numbers are f32 here")]
            let values = t.double_data.iter().map(|v| *v as f32).collect();
            Tensor::from_f32(shape, values)
        }
        number => {
            let bits: Vec<u16> = narrowed(t, if number == 10 { "float16" } else { "bfloat16" })?;
            let number = |b: u16| {
                if number == 10 { f16::from_bits(b).to_f32() } else { bf16::from_bits(b).to_f32() }
            };
            Tensor::from_f32(shape, bits.into_iter().map(number).collect())
        }
    };
    Ok(Constant::Tensor(tensor))
}

/// Reads `expected` bytes of a file beside the model. Nothing is allocated before the file is known to have them.
fn external(t: &TensorProto, folder: &Folder, expected: u64) -> Result<Bytes, TensorProblem> {
    let entry = |key: &str| t.external_data.iter().find(|e| e.key() == key).map(|e| e.value().to_owned());
    let location = entry("location").unwrap_or_default();
    let fail = |why: String| TensorProblem::External {
        tensor: t.name().to_owned(),
        location: location.clone(),
        why,
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(v) => {
            v.parse::<u64>().map(Some).map_err(|_| fail(format!("{key} {v:?} is not a non-negative integer")))
        }
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if let Some(got) = length.filter(|l| *l != expected) {
        return Err(fail(format!("has length {got}, the dimensions need {expected} bytes")));
    }
    let path = resolve(folder, &location).map_err(fail)?;
    let io = |e: std::io::Error| fail(e.to_string());
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if offset.checked_add(expected).is_none_or(|end| end > size) {
        return Err(fail(format!("needs {expected} bytes from offset {offset}, the file has {size}")));
    }
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let len = usize::try_from(expected).map_err(|e| fail(e.to_string()))?;
    let mut data = vec![0; len];
    file.read_exact(&mut data).map_err(io)?;
    Ok(data.into())
}

/// The file that `location` names, provided that it lies in the model's folder.
fn resolve(folder: &Folder, location: &str) -> Result<PathBuf, String> {
    let Some(folder) = &folder.0 else {
        return Err("the model was given as bytes, without a folder".into());
    };
    let relative = Path::new(location);
    let inside = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !relative.components().all(inside) {
        return Err("must be a relative path inside the model's folder".into());
    }
    let path = folder.join(relative);
    let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    let root = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    if !real.starts_with(&root) {
        return Err("leads out of the model's folder".into());
    }
    if !real.is_file() {
        return Err("is not a file".into());
    }
    Ok(real)
}
