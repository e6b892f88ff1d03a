//! A quantizer of one scale: a monotone step function of an f32.

use super::{Division, Rounding};

/// Quantizes and dequantizes with one scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    scale: f32,
    inverse: f32,
    zero_point: i32,
    low: i32,
    high: i32,
    rounding: Rounding,
    division: Division,
}

impl Step {
    pub(super) fn new(
        scale: f32,
        zero_point: i32,
        low: i32,
        high: i32,
        rounding: Rounding,
        division: Division,
    ) -> Step {
        Step { scale, inverse: 1.0 / scale, zero_point, low, high, rounding, division }
    }

    /// The same with no codes below or above these.
    pub fn within(self, low: i32, high: i32) -> Step {
        Step { low: low.max(self.low), high: high.min(self.high), ..self }
    }

    /// The same with another way to round.
    pub fn rounded(self, rounding: Rounding) -> Step {
        Step { rounding, ..self }
    }

    /// Real units per step.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// f32(1 / scale).
    pub fn inverse(&self) -> f32 {
        self.inverse
    }

    /// Code of zero.
    pub fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// The least and the greatest code.
    pub fn codes(&self) -> (i32, i32) {
        (self.low, self.high)
    }

    /// How quotients are rounded.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// How quotients are formed.
    pub fn division(&self) -> Division {
        self.division
    }

    /// How many steps a code is from zero.
    #[inline]
    pub fn steps(&self, code: i32) -> i64 {
        i64::from(code) - i64::from(self.zero_point)
    }

    /// The code that is this many steps from zero, or the nearest one there is.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
    pub fn place(&self, steps: i64) -> i32 {
        steps.saturating_add(i64::from(self.zero_point)).clamp(i64::from(self.low), i64::from(self.high))
            as i32
    }

    /// The code that a number is, its zero point included, halves to even.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "clamped to codes of at most 16 bits"
    )]
    pub fn place_code(&self, code: f32) -> i32 {
        code.round_ties_even().clamp(self.low as f32, self.high as f32) as i32
    }

    /// The code of a number of f64, the quotient formed in f64: for the entries of tables.
    #[allow(clippy::cast_possible_truncation, reason = "clamped by `place`")]
    pub fn quantize_exact(&self, x: f64) -> i32 {
        self.place(self.rounding.round(x / f64::from(self.scale)) as i64)
    }

    /// The code of a number; the zero point of NaN.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
    pub fn quantize(&self, x: f32) -> i32 {
        if x.is_nan() {
            return self.zero_point;
        }
        let v = match self.division {
            Division::Multiply => f64::from(x * self.inverse),
            Division::Divide => f64::from(x / self.scale),
            // Both have 24 significant bits, and the nearest half is at most 17 bits long: a quotient that is no half
            // differs from the nearest one by more than half an ulp of f64, so that it cannot round to it.
            Division::Real => f64::from(x) / f64::from(self.scale),
        };
        let code = self.rounding.round(v) + f64::from(self.zero_point);
        code.clamp(f64::from(self.low), f64::from(self.high)) as i32
    }

    /// The number that a code stands for.
    #[inline]
    #[allow(
        clippy::cast_precision_loss,
        reason = "codes of up to 16 bits are exact, wider ones round to nearest"
    )]
    pub fn dequantize(&self, code: i32) -> f32 {
        self.steps(code) as f32 * self.scale
    }

    /// What is left of a number after quantizing: NaN becomes zero.
    #[inline]
    pub fn fake_quantize(&self, x: f32) -> f32 {
        self.dequantize(self.quantize(x))
    }

    /// [`Step::fake_quantize`] of each element, in its place, in loops without branches. How many of them were NaN.
    pub fn fake_quantize_all(&self, x: &mut [f32]) -> u64 {
        #[allow(clippy::cast_precision_loss, reason = "codes of up to 17 bits are exact")]
        let zero = self.zero_point as f32;
        let all = x.iter_mut().map(|x| (*x, x));
        let nans = self.codes_of(all, |x, code| *x = (code - zero) * self.scale);
        nans.unwrap_or_else(|| {
            let of = |x: &mut f32| {
                let nan = x.is_nan();
                *x = self.fake_quantize(*x);
                u64::from(nan)
            };
            x.iter_mut().map(of).sum()
        })
    }

    /// [`Step::quantize`] of each element, in loops without branches; `narrow` makes an element of a code.
    #[inline(always)]
    pub fn quantize_all<T>(&self, x: &[f32], out: &mut [T], narrow: impl Fn(i32) -> T) {
        let all = x.iter().zip(&mut *out).map(|(x, out)| (*x, out));
        if self.codes_of(all, |out, code| *out = narrow(integer(code))).is_none() {
            x.iter().zip(out).for_each(|(x, out)| *out = narrow(self.quantize(*x)));
        }
    }

    /// The codes of numbers, each given with where `put` puts its code. How many were NaN; `None`, with nothing done, where
    /// f32 is not enough for it.
    #[inline(always)]
    fn codes_of<O>(&self, all: impl Iterator<Item = (f32, O)>, put: impl Fn(O, f32)) -> Option<u64> {
        let narrow = self.low >= -65536 && self.high <= 65536;
        Some(match (narrow, self.division, self.rounding) {
            (false, ..) | (_, Division::Real, _) => return None,
            (_, Division::Multiply, Rounding::HalfEven) => {
                self.each(all, |x| x * self.inverse, |even, _| even, put)
            }
            (_, division, rounding) => {
                let quotient =
                    |x| if division == Division::Multiply { x * self.inverse } else { x / self.scale };
                match rounding {
                    Rounding::HalfEven => self.each(all, quotient, |even, _| even, put),
                    Rounding::HalfUp => self.each(all, quotient, half_up, put),
                    Rounding::HalfAway => self.each(all, quotient, half_away, put),
                }
            }
        })
    }

    /// `round` makes an integer of a quotient that was rounded half to even, and of what that left of it, exactly. How
    /// many elements were NaN, which their quotients are then, and only then.
    #[inline(always)]
    #[allow(clippy::cast_precision_loss, reason = "codes of up to 17 bits are exact")]
    fn each<O>(
        &self,
        all: impl Iterator<Item = (f32, O)>,
        quotient: impl Fn(f32) -> f32,
        round: impl Fn(f32, f32) -> f32,
        put: impl Fn(O, f32),
    ) -> u64 {
        // Beyond every code of 16 bits, whatever the zero point.
        const MOST: f32 = 131_072.0;
        let [low, high, zero] = [self.low, self.high, self.zero_point].map(|code| code as f32);
        // Of the width of a float, so that it is counted in the lanes of the loop; a tensor has fewer elements.
        let mut nans = 0u32;
        all.for_each(|(x, to)| {
            let v = quotient(x);
            nans += u32::from(v.is_nan());
            let v = if v.is_nan() { 0.0 } else { v };
            let v = v.clamp(-MOST, MOST);
            let even = (v + WHOLE) - WHOLE;
            put(to, (round(even, v - even) + zero).clamp(low, high));
        });
        u64::from(nans)
    }

    /// The smallest number whose code is at least `code`; `None` where no number's is.
    pub fn threshold(&self, code: i32) -> Option<f32> {
        const INFINITY: i64 = 0x7f80_0000;
        let number = |key: i64| {
            let bits = u32::try_from(key.abs()).expect("within the bits of a float");
            f32::from_bits(if key < 0 { bits | 1 << 31 } else { bits })
        };
        if self.quantize(f32::INFINITY) < code {
            return None;
        }
        // Keys are integers ordered as floats are. The code of `at` is high enough, that of `below` is not.
        let (mut below, mut at) = (-INFINITY - 1, INFINITY);
        while at - below > 1 {
            let middle = (at + below).div_euclid(2);
            if self.quantize(number(middle)) >= code { at = middle } else { below = middle }
        }
        Some(number(at))
    }
}

/// 1.5 * 2^23. Numbers of its size are integers, so that adding it rounds half to even, and their bits count them.
const WHOLE: f32 = 12_582_912.0;

/// A whole number of at most 22 bits as an integer; a cast would saturate, which vectors have no instruction for.
#[inline(always)]
fn integer(whole: f32) -> i32 {
    (whole + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed()
}

#[inline(always)]
fn half_up(even: f32, rest: f32) -> f32 {
    if rest == 0.5 { even + 1.0 } else { even }
}

#[inline(always)]
fn half_away(even: f32, rest: f32) -> f32 {
    // A tie that went down to 0 or more, or up to 0 or less, went toward zero.
    if rest == 0.5 && even >= 0.0 {
        even + 1.0
    } else if rest == -0.5 && even <= 0.0 {
        even - 1.0
    } else {
        even
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::sample::Rng;
    use crate::quant::{Division, QParams, Rounding};
    use crate::tensor::DType;

    const DTYPES: [DType; 6] = [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16];

    /// Quantizers of every type, rounding and division with random scales and zero points.
    fn all(rng: &mut Rng) -> Vec<QParams> {
        let mut out = Vec::new();
        for dtype in DTYPES {
            let (low, high) = dtype.limits().unwrap();
            for rounding in Rounding::ALL {
                for division in Division::ALL {
                    let exponent = rng.float(-20.0, 20.0);
                    let zero_point = if dtype.limits().unwrap().0 < 0 { 0 } else { rng.code(low, high) };
                    let q = QParams::per_tensor(dtype, exponent.exp2(), zero_point).unwrap();
                    out.push(q.rounded(rounding).divided(division));
                }
            }
        }
        out
    }

    fn next(x: f32, by: i32) -> f32 {
        (0..by.abs()).fold(x, |x, _| if by > 0 { x.next_up() } else { x.next_down() })
    }

    #[test]
    fn codes_follow_from_exact_arithmetic_at_every_boundary() {
        // x / scale against k + 1/2 in integers: both sides times 2^(an exponent) fit an i128.
        let exact = |x: f32, scale: f32, rounding: Rounding| -> i64 {
            let parts = |v: f32| {
                let bits = v.abs().to_bits();
                (i128::from(bits & 0x7f_ffff | 0x80_0000), (bits >> 23).cast_signed() - 150)
            };
            if x == 0.0 {
                return 0;
            }
            let ((mx, ex), (ms, es)) = (parts(x), parts(scale));
            let shift = ex - es;
            if shift < -60 {
                return 0;
            }
            let (n, d) = if shift >= 0 { (mx << shift.min(60), ms) } else { (mx, ms << -shift) };
            let n = if x < 0.0 { -n } else { n };
            // floor((2n + d) / 2d) rounds halves up; the others differ at ties only.
            let up = (2 * n + d).div_euclid(2 * d);
            let tie = (2 * n + d).rem_euclid(2 * d) == 0;
            let down_at_tie = match rounding {
                Rounding::HalfUp => false,
                Rounding::HalfEven => up % 2 != 0,
                Rounding::HalfAway => n < 0,
            };
            i64::try_from(up - i128::from(tie && down_at_tie)).unwrap()
        };
        let mut rng = Rng::new(5);
        for round in 0..4 {
            for q in all(&mut rng) {
                let step = q.step(0);
                let (low, high) = q.codes();
                let codes: Vec<i32> = if high - low < 300 {
                    (low..=high).collect()
                } else {
                    (0..200).map(|_| rng.code(low, high)).collect()
                };
                for code in codes {
                    let t = step.threshold(code).unwrap();
                    for by in -3..=3 {
                        let x = next(t, by);
                        let want = match q.division {
                            Division::Real => exact(x, step.scale(), q.rounding),
                            Division::Multiply => exact(x * step.inverse(), 1.0, q.rounding),
                            Division::Divide => exact(x / step.scale(), 1.0, q.rounding),
                        };
                        if !x.is_finite() {
                            continue;
                        }
                        let want = (want + i64::from(step.zero_point())).clamp(low.into(), high.into());
                        assert_eq!(i64::from(step.quantize(x)), want, "round {round}: {x:?} by {q:?}");
                        assert_eq!(
                            step.quantize(x) >= code,
                            by >= 0,
                            "{t:?} is no threshold of {code} in {q:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn dequantized_codes_quantize_to_themselves() {
        let mut rng = Rng::new(6);
        for _ in 0..8 {
            for q in all(&mut rng) {
                let step = q.step(0);
                let (low, high) = q.codes();
                for code in low..=high {
                    assert_eq!(step.quantize(step.dequantize(code)), code, "{q:?}");
                }
            }
        }
    }

    #[test]
    fn infinities_saturate_and_nan_becomes_the_zero_point() {
        for q in all(&mut Rng::new(7)) {
            let step = q.step(0);
            let (low, high) = q.codes();
            assert_eq!(step.quantize(f32::INFINITY), high);
            assert_eq!(step.quantize(f32::NEG_INFINITY), low);
            assert_eq!(step.quantize(f32::NAN), step.zero_point());
            assert_eq!(step.quantize(-0.0), step.zero_point());
            assert_eq!(step.fake_quantize(0.0).to_bits(), 0);
        }
    }

    #[test]
    fn slices_are_quantized_as_their_elements() {
        let mut rng = Rng::new(8);
        for _ in 0..4 {
            for q in all(&mut rng) {
                let step = q.step(0);
                let (low, high) = q.codes();
                let mut x = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-45, -1e-45];
                for _ in 0..300 {
                    let t = step.threshold(rng.code(low + 1, high)).unwrap();
                    x.extend((-3..=3).map(|by| next(t, by)));
                    x.push(rng.float(-2.0, 2.0) * step.scale() * high as f32);
                }
                let mut y = x.clone();
                assert_eq!(step.fake_quantize_all(&mut y), 1, "NaN are counted");
                let mut codes = vec![0; x.len()];
                step.quantize_all(&x, &mut codes, |code| code);
                for (x, code) in x.iter().zip(codes) {
                    assert_eq!(code, step.quantize(*x), "{x:?} by {q:?}");
                }
                for (x, y) in x.iter().zip(y) {
                    assert_eq!(y.to_bits(), step.fake_quantize(*x).to_bits(), "{x:?} by {q:?}");
                }
            }
        }
    }

    #[test]
    fn halves_go_where_the_rounding_says() {
        let of = |rounding| {
            let step = QParams::per_tensor(DType::I8, 1.0, 0).unwrap().rounded(rounding).step(0);
            [-2.5f32, -1.5, -0.5, 0.5, 1.5, 2.5, 0.499_999_97, -0.500_000_06].map(|x| step.quantize(x))
        };
        assert_eq!(of(Rounding::HalfEven), [-2, -2, 0, 0, 2, 2, 0, -1]);
        assert_eq!(of(Rounding::HalfUp), [-2, -1, 0, 1, 2, 3, 0, -1]);
        assert_eq!(of(Rounding::HalfAway), [-3, -2, -1, 1, 2, 3, 0, -1]);
    }
}
