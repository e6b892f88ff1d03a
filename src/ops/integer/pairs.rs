//! Sums whose pairs of products saturate in 16 bits: [`Accumulator::SaturatingPairs`].
//!
//! With p of each pair, and sat(p) what is left of it, such a sum less what zero points add is the exact sum of products
//! of steps and the sum of sat(p) - p: exact sums are formed as for every other target, and pairs are looked at for what
//! they lose. This emulates a machine; it is written to be read.

use crate::graph::codes::codes_of;
use crate::graph::{CodeParams, OpError};
use crate::quant::{Accumulator, QParams};
use crate::tensor::{DType, Tensor};

/// Whether sums are formed so.
pub(in crate::ops) fn saturate(params: &CodeParams) -> bool {
    params.arithmetic.accumulator == Accumulator::SaturatingPairs
}

/// Whether the accumulator of a product takes its types.
///
/// # Errors
/// Types that it does not take.
pub(super) fn check(params: &CodeParams) -> Result<(), OpError> {
    let [Some(x), Some(w), ..] = &params.inputs[..] else { return Ok(()) };
    let accumulator = params.arithmetic.accumulator;
    if accumulator.takes(x.dtype(), w.dtype()) {
        return Ok(());
    }
    let message = format!(
        "the target sums products as {accumulator}, which takes u8 or i8 times i8; here it is {} times {}: quantize it so, \
         or take another target",
        x.dtype(),
        w.dtype()
    );
    Err(OpError::Arithmetic { message })
}

/// What makes codes of input 0 unsigned.
pub(in crate::ops) fn shift(params: &CodeParams) -> u8 {
    let dtype = params.inputs.first().and_then(Option::as_ref).map(QParams::dtype);
    if dtype == Some(DType::I8) { 128 } else { 0 }
}

/// The zero point of input 0 as its unsigned codes have it.
pub(in crate::ops) fn zero(params: &CodeParams) -> Result<i16, OpError> {
    Ok(narrow(params.input(0)?.zero_point()) + i16::from(shift(params)))
}

/// The codes of input 0, unsigned, and those of input 1.
pub(in crate::ops) fn codes(params: &CodeParams, inputs: &[Tensor]) -> Result<[Vec<i16>; 2], OpError> {
    let by = i16::from(shift(params));
    let x = codes_of(inputs, 0)?.into_iter().map(|code| narrow(code) + by);
    Ok([x.collect(), codes_of(inputs, 1)?.into_iter().map(narrow).collect()])
}

#[allow(clippy::cast_possible_truncation, reason = "codes of 8 bits")]
fn narrow(code: i32) -> i16 {
    code as i16
}

/// Adds to sums of pairs `a * x[i] + b * y[i]` what these lose.
pub(in crate::ops) fn lose(sums: &mut [i64], [a, b]: [i16; 2], [x, y]: [&[i16]; 2]) {
    for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
        let p = i32::from(a) * i32::from(*x) + i32::from(b) * i32::from(*y);
        *s += i64::from(p.clamp(i16::MIN.into(), i16::MAX.into()) - p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_keeps_what_16_bits_hold() {
        let pair = |a, b, x: i16, y: i16| {
            let mut sum = [i64::from(i32::from(a) * i32::from(x) + i32::from(b) * i32::from(y))];
            lose(&mut sum, [a, b], [&[x], &[y]]);
            sum[0]
        };
        assert_eq!(pair(255, 255, 127, 127), 32767);
        assert_eq!(pair(255, 255, -128, -128), -32768);
        assert_eq!(pair(255, 255, 127, -128), -255);
        assert_eq!(pair(255, 0, -128, -128), -32640);
        assert_eq!(pair(129, 129, 127, 127), 32766);
        assert_eq!(pair(129, 130, 127, 127), 32767);
        assert_eq!(pair(128, 128, -128, -128), -32768);
        assert_eq!(pair(129, 128, -128, -128), -32768);
    }

    #[test]
    fn no_pair_loses_more_than_its_bound() {
        let pairs = Accumulator::SaturatingPairs;
        for a in -128..=127i16 {
            for b in -128..=127i16 {
                let most = pairs.takes_away(a.into()) + pairs.takes_away(b.into());
                for ends in [[0, 255], [255, 0], [255, 255]] {
                    let mut lost = [0];
                    lose(&mut lost, [a, b], [&ends[..1], &ends[1..]]);
                    assert!(lost[0].unsigned_abs() <= most, "{a} {b}: {lost:?} {most}");
                }
            }
        }
        assert_eq!(Accumulator::Exact.takes_away(-128), 0);
    }
}
