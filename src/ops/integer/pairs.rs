//! Sums of products as x86 has them before VNNI: `vpmaddubsw` multiplies unsigned bytes with signed ones and adds
//! neighbours in 16 bits, saturating; what comes of that is added exactly.
//!
//! The left operand's codes are unsigned, those of i8 moved up by 128, its padding is the code of zero. What the zero
//! points add is subtracted exactly afterwards. Pairs are (0, 1), (2, 3), ... along k, which an odd k ends with a zero.

use super::sums::steps_of;
use crate::graph::codes::codes_of;
use crate::graph::{CodeParams, OpError};
use crate::quant::Accumulator;
use crate::tensor::{DType, Tensor};

/// Operands of products whose pairs saturate.
pub(in crate::ops) struct Pairs {
    /// Codes of the left operand less its zero point, so that padding is 0.
    pub x: Vec<i32>,
    /// Unsigned code of zero, which makes bytes of these again.
    pub zero: i32,
    /// Codes of the right operand, of 8 bits with sign.
    pub w: Vec<i32>,
    /// Its zero points, one or one a channel.
    w_zeros: Vec<i32>,
}

impl Pairs {
    /// The operands, where the target's sums are such.
    ///
    /// # Errors
    /// Codes that are not of 8 bits, or a right operand without sign.
    pub(in crate::ops) fn new(params: &CodeParams, inputs: &[Tensor]) -> Result<Option<Pairs>, OpError> {
        if params.arithmetic.accumulator != Accumulator::SaturatingPairs {
            return Ok(None);
        }
        let shift = match (inputs[0].dtype(), inputs[1].dtype()) {
            (DType::U8, DType::I8) => 0,
            (DType::I8, DType::I8) => 128,
            (x, w) => {
                let message =
                    format!("pairs saturate in 16 bits for u8 or i8 times i8, not for {x} times {w}");
                return Err(OpError::Arithmetic { message });
            }
        };
        let zeros = params.inputs.get(1).and_then(Option::as_ref).map(|p| p.zero_points().to_vec());
        Ok(Some(Pairs {
            x: steps_of(params, inputs, 0)?,
            zero: params.input(0)?.zero_point() + shift,
            w: codes_of(inputs, 1)?,
            w_zeros: zeros.ok_or(OpError::Parameters { what: "input", index: 1 })?,
        }))
    }

    /// The sums of a channel, from those of its saturated pairs: less what the zero points added, of which `weights` is the
    /// sum of the channel's codes and `steps` that of the left operand's.
    pub(in crate::ops) fn corrected(&self, pairs: i64, channel: usize, weights: i64, steps: i64) -> i64 {
        let w_zero = self.w_zeros[if self.w_zeros.len() == 1 { 0 } else { channel }];
        pairs - i64::from(self.zero) * weights - i64::from(w_zero) * steps
    }
}

/// `sums[j] += saturated(a0 * b0[j] + a1 * b1[j])`; an odd end has one product.
pub(in crate::ops) fn add_pair(sums: &mut [i64], a: &[i32], b: &[&[i32]]) {
    let saturated = |p: i32| i64::from(p.clamp(i16::MIN.into(), i16::MAX.into()));
    match (a, b) {
        ([a0, a1], [b0, b1]) => {
            for ((s, b0), b1) in sums.iter_mut().zip(*b0).zip(*b1) {
                *s += saturated(a0 * b0 + a1 * b1);
            }
        }
        // One product of bytes fits.
        ([a0], [b0]) => sums.iter_mut().zip(*b0).for_each(|(s, b0)| *s += i64::from(a0 * b0)),
        _ => debug_assert!(a.is_empty() && b.is_empty(), "pairs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;
    use crate::graph::{Attrs, CodeOutput};
    use crate::ops::{build, integer};
    use crate::quant::{Arithmetic, QParams};
    use crate::tensor::{TensorType, element_count};

    /// Sums of an operator on codes, without requantization.
    fn sums(op: &'static str, attrs: Attrs, p: [&QParams; 2], x: &Tensor, w: &Tensor, pairs: bool) -> Tensor {
        let types = [x, w].map(|t| TensorType::new(DType::F32, t.shape().to_vec()));
        let op = build(op, attrs, &types).expect("legal");
        let accumulator = if pairs { Accumulator::SaturatingPairs } else { Accumulator::Exact };
        let mut params = CodeParams::new(p.map(Clone::clone), p[0].clone(), Vec::new());
        params.output = CodeOutput::Sums;
        params.bound = 1 << 30;
        params.arithmetic = Arithmetic { accumulator, ..Arithmetic::default() };
        let made = integer(op, params);
        made.eval(&crate::graph::Scratch::new(), &[x.clone(), w.clone()]).expect("computes").remove(0)
    }

    fn params(dtype: DType, zero: i32) -> QParams {
        QParams::per_tensor(dtype, 0.1, zero).expect("legal")
    }

    fn draw(rng: &mut Rng, dtype: DType, shape: &[usize], (low, high): (i32, i32)) -> Tensor {
        let n = element_count(shape).expect("small");
        Tensor::from_codes(dtype, shape, &(0..n).map(|_| rng.code(low, high)).collect::<Vec<_>>())
            .expect("codes")
    }

    #[test]
    fn neighbours_saturate_in_16_bits() {
        let (x, w) = (params(DType::U8, 0), params(DType::I8, 0));
        let of = |x: &QParams, a: [i32; 5], b: [i32; 5]| {
            let a = Tensor::from_codes(x.dtype(), &[1, 5], &a).expect("codes");
            let b = Tensor::from_codes(DType::I8, &[5, 1], &b).expect("codes");
            sums("MatMul", Attrs::new(), [x, &w], &a, &b, true).i32s()[0]
        };
        // 255 * 127 is 32385: two of them do not fit, one does, and neighbours of other pairs do not meet.
        assert_eq!(of(&x, [255, 255, 0, 0, 0], [127, 127, 0, 0, 0]), 32767);
        assert_eq!(of(&x, [255, 0, 255, 0, 255], [127, 0, 127, 0, 127]), 3 * 32385);
        assert_eq!(of(&x, [0, 255, 255, 0, 0], [0, 127, 127, 0, 0]), 2 * 32385);
        assert_eq!(of(&x, [255, 255, 0, 0, 0], [-128, -128, 0, 0, 0]), -32768);
        assert_eq!(of(&x, [255, 255, 1, 0, 0], [127, -127, 3, 0, 0]), 3);
        // Codes of i8 are 128 more there; what that adds is taken off exactly: 255 * 254 became 32767.
        let i8s = params(DType::I8, 0);
        assert_eq!(of(&i8s, [127, 127, 0, 0, 0], [127, 127, 0, 0, 0]), 32767 - 128 * 254);
    }

    #[test]
    fn without_large_weights_sums_are_exact() {
        let mut rng = Rng::new(3);
        // Two weights of at most 64 cannot leave 16 bits, whatever the bytes.
        let small = (-64, 63);
        for (dtype, zero) in [(DType::U8, 0), (DType::U8, 200), (DType::I8, -128), (DType::I8, 5)] {
            for (c, groups) in [(3, 1), (4, 2), (6, 6), (1, 1)] {
                let (x, w) = (params(dtype, zero), params(DType::I8, 0));
                let a = draw(&mut rng, dtype, &[2, c, 6, 5], x.codes());
                let b = draw(&mut rng, DType::I8, &[6, c / groups, 3, 2], small);
                let attrs = || {
                    let a = Attrs::new().int("group", i64::try_from(groups).expect("small"));
                    a.sizes("kernel_shape", &[3, 2]).sizes("pads", &[1, 0, 2, 1]).sizes("strides", &[2, 1])
                };
                let of = |pairs| sums("Conv", attrs(), [&x, &w], &a, &b, pairs);
                assert_eq!(of(true), of(false), "{dtype} {zero}, {c} channels in {groups} groups");
            }
            for w_zero in [0, 7] {
                let (x, w) = (params(dtype, zero), params(DType::I8, w_zero));
                let a = draw(&mut rng, dtype, &[2, 3, 7], x.codes());
                let b = draw(&mut rng, DType::I8, &[2, 7, 4], small);
                let of = |pairs| sums("MatMul", Attrs::new(), [&x, &w], &a, &b, pairs);
                assert_eq!(of(true), of(false), "{dtype} {zero}, weights {w_zero}");
            }
        }
    }

    /// k runs over the taps, and within each over the channels: worked out with three loops.
    #[test]
    fn pairs_of_a_convolution_run_over_its_channels() {
        let mut rng = Rng::new(4);
        let (x, w) = (params(DType::U8, 9), params(DType::I8, 0));
        let a = draw(&mut rng, DType::U8, &[1, 3, 4, 4], (200, 255));
        let b = draw(&mut rng, DType::I8, &[2, 3, 2, 2], (60, 127));
        let (xs, ws) = (a.codes().expect("codes"), b.codes().expect("codes"));
        let mut want = Vec::new();
        for o in 0..2 {
            for p in 0..9 {
                let (mut products, mut weights) = (Vec::new(), 0);
                for tap in 0..4 {
                    for c in 0..3 {
                        let w = ws[(o * 3 + c) * 4 + tap];
                        products.push(w * xs[c * 16 + (p / 3 + tap / 2) * 4 + p % 3 + tap % 2]);
                        weights += w;
                    }
                }
                let pairs = products.chunks(2).map(|p| p.iter().sum::<i32>().clamp(-32768, 32767));
                want.push(pairs.sum::<i32>() - 9 * weights);
            }
        }
        let attrs = || Attrs::new().sizes("kernel_shape", &[2, 2]);
        let got = sums("Conv", attrs(), [&x, &w], &a, &b, true);
        assert_eq!(got.i32s(), want);
        assert_ne!(got, sums("Conv", attrs(), [&x, &w], &a, &b, false));
    }

    #[test]
    fn other_codes_are_refused() {
        let (x, w) = (params(DType::I16, 0), params(DType::I8, 0));
        let p = CodeParams {
            arithmetic: Arithmetic { accumulator: Accumulator::SaturatingPairs, ..Arithmetic::default() },
            ..CodeParams::new([x.clone(), w], x, Vec::new())
        };
        let inputs = [Tensor::zeros(DType::I16, [1, 2]), Tensor::zeros(DType::I8, [2, 1])];
        assert!(Pairs::new(&p, &inputs).is_err_and(|e| e.to_string().contains("i16 times i8")));
    }
}
