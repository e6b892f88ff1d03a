//! `Div` of codes.

use crate::graph::codes::codes_of;
use crate::graph::{Attrs, CodeParams, Internals, OpError, Part, Tap};
use crate::ops::broadcast::{Walk, concrete};
use crate::ops::build;
use crate::quant::{Mantissa, Multiplier, Step};
use crate::tensor::{DType, Tensor, TensorType};

/// The mantissa of the divisor's reciprocal.
pub(super) fn internals(divisor: &TensorType) -> Result<Internals, OpError> {
    let divisor = std::slice::from_ref(divisor);
    let steps = vec![
        (build("Reciprocal", Attrs::new(), divisor)?, vec![Part::Input(1)]),
        (build("Mantissa", Attrs::new(), divisor)?, vec![Part::Step(0, 0)]),
    ];
    let tap = Tap { name: "reciprocal", of: Part::Step(1, 0), dtype: DType::I16, bound: Some(2.0) };
    Ok(Internals { steps, taps: vec![tap] })
}

/// The dividend times the 16-bit mantissa of the divisor's reciprocal, requantized once. A quotient by zero saturates;
/// 0 / 0 is 0.
pub(super) fn integer(params: &CodeParams, inputs: &[Tensor]) -> Result<Tensor, OpError> {
    let (a, b, y) = (params.input(0)?, params.input(1)?, params.output()?);
    let real = |s: &Step| f64::from(s.scale());
    let to_y = Multiplier::new(real(&a) / (real(&b) * real(&y)));
    let quotient = |p: i32, q: i32| {
        let (p, q) = (a.steps(p), b.steps(q));
        if q == 0 {
            return y.place(p.signum() * i64::from(u32::MAX));
        }
        let inverse = Mantissa::reciprocal(u128::from(q.unsigned_abs()));
        let product = i128::from(p * q.signum()) * i128::from(inverse.code);
        y.place(to_y.apply(product, 14 + inverse.shift, y.rounding()))
    };
    let (p, q) = (codes_of(inputs, 0)?, codes_of(inputs, 1)?);
    let shapes = [inputs[0].shape(), inputs[1].shape()];
    let shape = concrete(&shapes);
    let mut out = vec![0; shape.iter().product()];
    let walk = Walk::new(&shape, shapes);
    let [in_p, in_q] = [0, 1].map(|k| usize::from(!walk.is_splat(k)));
    walk.rows(0..out.len(), |piece, [i, j]| {
        for (k, o) in out[piece].iter_mut().enumerate() {
            *o = quotient(p[i + k * in_p], q[j + k * in_q]);
        }
    });
    Ok(params.store(&shape, &out))
}
