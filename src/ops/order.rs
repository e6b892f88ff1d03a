//! The order of elements as integers: what comparisons on both executors are made of.

use crate::graph::OpError;
use crate::tensor::{DType, Data, Tensor, TensorType};

/// As `key` in `shaders/order/f32.wgsl`: -0 equals 0, and NaN stands above infinity.
pub(super) fn key(x: f32) -> i32 {
    let bits = x.to_bits().cast_signed();
    match bits {
        _ if x.is_nan() => i32::MAX,
        i32::MIN => 0,
        _ if bits < 0 => bits ^ i32::MAX,
        _ => bits,
    }
}

/// The key of each element.
pub(super) fn keys(t: &Tensor) -> Vec<i32> {
    match t.data() {
        Data::F32(v) => v.iter().map(|x| key(*x)).collect(),
        Data::Bool(v) => v.iter().map(|x| i32::from(*x)).collect(),
        _ => t.codes().expect("integers"),
    }
}

/// Everything but truth values has an order.
pub(super) fn check(inputs: &[TensorType]) -> Result<(), OpError> {
    if inputs[0].dtype == DType::Bool {
        return Err(OpError::DType { input: 0, expected: "f32 or integers", got: DType::Bool });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_floats_do() {
        let v = [f32::NEG_INFINITY, -2.0, -f32::MIN_POSITIVE, 0.0, 1e-40, 1.0, f32::INFINITY, f32::NAN];
        assert!(v.windows(2).all(|w| key(w[0]) < key(w[1])));
        assert_eq!(key(-0.0), key(0.0));
        assert_eq!(key(-f32::NAN), key(f32::NAN));
    }
}
