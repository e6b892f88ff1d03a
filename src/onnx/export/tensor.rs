//! Tensors as ONNX stores them.

use crate::graph::attrs::onnx_number;
use crate::onnx::proto::TensorProto;
use crate::tensor::{DType, Tensor};

fn raw(name: &str, number: i64, shape: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: i32::try_from(number).ok(),
        dims: shape.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect(),
        raw_data: Some(bytes.into()),
        ..TensorProto::default()
    }
}

/// A tensor; of 4-bit elements two lie in a byte, the first in its lower half.
pub(super) fn stored(name: &str, t: &Tensor) -> TensorProto {
    let bytes = match t.dtype() {
        DType::I4 | DType::U4 => {
            let half = |b: Option<&u8>| b.map_or(0, |b| b & 15);
            t.bytes().chunks(2).map(|pair| half(pair.first()) | half(pair.get(1)) << 4).collect()
        }
        _ => t.bytes().to_vec(),
    };
    raw(name, onnx_number(t.dtype()), t.shape(), bytes)
}

/// Integers of 64 bits.
pub(super) fn int64s(name: &str, shape: &[usize], values: &[i64]) -> TensorProto {
    raw(name, 7, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}
