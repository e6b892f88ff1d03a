//! From sums in integers to codes, as targets do it.

use super::{Multiplier, Multipliers, Rounding, Step};
use std::fmt;

/// How a target brings sums to the scale of the output. Each is a property of an operator on a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Requantize {
    /// A multiplier of 31 bits, the product exact, one rounding: [`Multiplier`].
    #[default]
    Fixed,
    /// The same multiplier, rounded twice: a high half of the doubled product, halves up, then a rounding shift, halves
    /// away from zero. The reference kernels of `TFLite`.
    DoublingAway,
    /// The same with halves up in the shift: its optimised kernels, and fully connected ones of both sets.
    DoublingUp,
    /// f32(sum) * f32(scale), halves to even: ONNX Runtime's operators on codes.
    Float,
    /// A rounding shift, which takes scales that are powers of two.
    Shift,
}

impl Requantize {
    /// All of them, in the order of their numbers in `shaders/shared/requantize.wgsl`.
    pub const ALL: [Requantize; 5] = [
        Requantize::Fixed,
        Requantize::DoublingAway,
        Requantize::DoublingUp,
        Requantize::Float,
        Requantize::Shift,
    ];

    /// Its name in profiles, files and text.
    pub fn name(self) -> &'static str {
        match self {
            Requantize::Fixed => "fixed",
            Requantize::DoublingAway => "fixed_doubling_away",
            Requantize::DoublingUp => "fixed_doubling_up",
            Requantize::Float => "float",
            Requantize::Shift => "shift",
        }
    }
}

impl fmt::Display for Requantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A real factor that sums are multiplied by, as a mode has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factor {
    /// One rounding.
    Fixed(Multiplier, Rounding),
    /// Two roundings; of halves in the second one `up`, else away from zero.
    Doubling(Multiplier, bool),
    /// In f32.
    Float(f32),
    /// Two to the power of minus this.
    Shift(i32, Rounding),
    /// Two to the power of the first number over the second.
    Quotient(u32, u64, Rounding),
}

impl Factor {
    /// The factor `inputs / output` of a product of two scales, or of one and 1.
    ///
    /// `None` where the mode is a shift and the factor is no power of two.
    pub fn new(mode: Requantize, rounding: Rounding, inputs: [f32; 2], output: f32) -> Option<Factor> {
        let real = f64::from(inputs[0]) * f64::from(inputs[1]) / f64::from(output);
        Some(match mode {
            Requantize::Fixed => Factor::Fixed(Multiplier::new(real), rounding),
            Requantize::DoublingAway => Factor::Doubling(Multiplier::new(real), false),
            Requantize::DoublingUp => Factor::Doubling(Multiplier::new(real), true),
            Requantize::Float => Factor::Float(inputs[0] * inputs[1] / output),
            Requantize::Shift => {
                let (fraction, exponent) = libm::frexp(real);
                if fraction.to_bits() != 0.5f64.to_bits() {
                    return None;
                }
                Factor::Shift(1 - exponent, rounding)
            }
        })
    }

    /// The sum times the factor, as an integer.
    #[inline]
    pub fn apply(self, sum: i64) -> i64 {
        match self {
            Factor::Fixed(m, rounding) => m.apply(i128::from(sum), 0, rounding),
            Factor::Doubling(m, up) => doubling(sum, m, up),
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "rounds to the nearest f32, as it is defined; saturates far beyond every code"
            )]
            Factor::Float(m) => (sum as f32 * m).round_ties_even() as i64,
            Factor::Shift(by, rounding) => rounding.shift(i128::from(sum), by),
            Factor::Quotient(left, n, rounding) => rounding.quotient(i128::from(sum) << left, n),
        }
    }
}

/// `TFLite`'s `MultiplyByQuantizedMultiplier` for sums of 32 bits.
#[inline]
fn doubling(sum: i64, m: Multiplier, up: bool) -> i64 {
    let exponent = 31 - m.shift;
    let limit = |v: i64| v.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    // Far from any sum of 32 bits that could still count.
    let left = exponent.clamp(0, 31);
    let right = (-exponent).clamp(0, 62);
    let high = limit((limit(limit(sum) << left) * i64::from(m.m) + (1 << 30)) >> 31);
    let rounding = if up { Rounding::HalfUp } else { Rounding::HalfAway };
    rounding.shift(i128::from(high), right)
}

/// From sums, one channel after the other, to codes of one scale.
#[derive(Clone, Debug)]
pub struct Requantizer {
    factors: Vec<Factor>,
    output: Step,
}

impl Requantizer {
    /// For sums in units of `input` times each of `weights`. `None` where the mode has no such factor.
    pub fn new(
        mode: Requantize,
        rounding: Rounding,
        input: f32,
        weights: &[f32],
        output: Step,
    ) -> Option<Requantizer> {
        let factors = weights.iter().map(|w| Factor::new(mode, rounding, [input, *w], output.scale()));
        Some(Requantizer { factors: factors.collect::<Option<_>>()?, output })
    }

    /// The factor of each channel; one where all have the same.
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// The factor of a channel.
    pub fn factor(&self, channel: usize) -> Factor {
        self.factors[if self.factors.len() == 1 { 0 } else { channel }]
    }

    /// What codes are.
    pub fn output(&self) -> &Step {
        &self.output
    }

    /// The code of a sum.
    #[inline]
    pub fn apply(&self, channel: usize, sum: i64) -> i32 {
        self.output.place(self.factor(channel).apply(sum))
    }
}

/// Means of sums of codes.
#[derive(Clone, Debug)]
pub struct Mean {
    /// The factor of a mean of so many, where the scales differ.
    mode: Requantize,
    scales: [f32; 2],
    output: Step,
}

impl Mean {
    /// From codes of scale `input`; the sums are of codes less their zero point.
    pub fn new(mode: Requantize, input: f32, output: Step) -> Mean {
        Mean { mode, scales: [input, output.scale()], output }
    }

    /// The code of `sum / n`: an exact quotient where the scales are equal, as halves are real there, and where they are
    /// powers of two apart on a target that shifts.
    ///
    /// `None` where the mode is a shift and scales are other numbers.
    pub fn factor(&self, n: usize) -> Option<Factor> {
        let [x, y] = self.scales;
        let rounding = self.output.rounding();
        let n = u32::try_from(n).unwrap_or(u32::MAX).max(1);
        if x.to_bits() == y.to_bits() && self.mode != Requantize::Float {
            return Some(Factor::Quotient(0, n.into(), rounding));
        }
        let real = f64::from(x) / f64::from(y) / f64::from(n);
        match self.mode {
            Requantize::Fixed => Some(Factor::Fixed(Multiplier::new(real), rounding)),
            Requantize::DoublingAway => Some(Factor::Doubling(Multiplier::new(real), false)),
            Requantize::DoublingUp => Some(Factor::Doubling(Multiplier::new(real), true)),
            #[allow(clippy::cast_precision_loss, reason = "windows have fewer than 2^24 elements")]
            Requantize::Float => Some(Factor::Float(x / (n as f32 * y))),
            Requantize::Shift => {
                let Factor::Shift(by, _) = Factor::new(self.mode, rounding, [x, 1.0], y)? else {
                    return None;
                };
                // Beyond 40 bits the quotient is zero, or far beyond every code.
                let (left, right) = ((-by).clamp(0, 40).unsigned_abs(), by.clamp(0, 40).unsigned_abs());
                Some(Factor::Quotient(left, u64::from(n) << right, rounding))
            }
        }
    }

    /// What codes are.
    pub fn output(&self) -> &Step {
        &self.output
    }
}

/// Two factors with one shift, for a product's sum to which a tensor is added before the one rounding.
#[derive(Clone, Debug)]
pub struct Adder {
    pairs: Vec<Multipliers>,
    output: Step,
}

impl Adder {
    /// For sums of at most `bound`, in units of `input` times each of `weights`, and codes of `addend`.
    pub fn new(
        rounding: Rounding,
        input: f32,
        weights: &[f32],
        bound: u64,
        addend: &Step,
        output: Step,
    ) -> Adder {
        let real = |a: f32, b: f32| f64::from(a) * f64::from(b) / f64::from(output.scale());
        let (low, high) = addend.codes();
        let most = addend.steps(low).unsigned_abs().max(addend.steps(high).unsigned_abs());
        let pair = |w: &f32| Multipliers::new([real(input, *w), real(addend.scale(), 1.0)], [bound, most]);
        Adder { pairs: weights.iter().map(pair).collect(), output: output.rounded(rounding) }
    }

    /// What codes are.
    pub fn output(&self) -> &Step {
        &self.output
    }

    /// The two factors of each channel; one pair where all have the same.
    pub fn pairs(&self) -> &[Multipliers] {
        &self.pairs
    }

    /// The two factors of a channel.
    pub fn pair(&self, channel: usize) -> Multipliers {
        self.pairs[if self.pairs.len() == 1 { 0 } else { channel }]
    }

    /// The code of a sum and of what is added to it, in steps of its quantizer.
    #[inline]
    pub fn apply(&self, channel: usize, sum: i64, addend: i64) -> i32 {
        self.output.place(self.pair(channel).apply(sum, addend, self.output.rounding()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;
    use rayon::prelude::*;

    /// The words of the gemmlowp functions, with their truncating division.
    #[allow(clippy::cast_possible_truncation, reason = "as the original does")]
    fn gemmlowp(sum: i32, m: u32, exponent: i32, up: bool) -> i32 {
        let (left, right) = (exponent.max(0), (-exponent).max(0));
        let x = (i64::from(sum) << left).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let product = x * i64::from(m);
        let nudge = if product >= 0 { 1i64 << 30 } else { 1 - (1i64 << 30) };
        let high = ((product + nudge) / (1i64 << 31)) as i32;
        if right == 0 {
            return high;
        }
        if up {
            return ((i64::from(high) + (1i64 << (right - 1))) >> right) as i32;
        }
        let mask = ((1i64 << right) - 1) as i32;
        let rest = high & mask;
        let threshold = (mask >> 1) + i32::from(high < 0);
        (high >> right) + i32::from(rest > threshold)
    }

    /// Cases of each test of random ones.
    const CASES: usize = 10_000_000;

    /// Runs many cases, each part with random numbers of its own.
    fn cases(seed: u64, one: impl Fn(usize, &mut Rng) + Sync) {
        const PARTS: usize = 100;
        (0..PARTS).into_par_iter().for_each(|part| {
            let mut rng = Rng::new(seed << 32 | part as u64);
            (0..CASES / PARTS).for_each(|i| one(i, &mut rng));
        });
    }

    /// Sums of 32 bits, every other one small or at an end.
    fn sum_of_32_bits(i: usize, rng: &mut Rng) -> i32 {
        match i % 8 {
            0..4 => rng.code(i32::MIN, i32::MAX),
            4..6 => rng.code(-2000, 2000),
            6 => rng.code(i32::MAX - 8, i32::MAX),
            _ => rng.code(i32::MIN, i32::MIN + 8),
        }
    }

    #[test]
    fn doubling_is_what_gemmlowp_computes() {
        cases(4, |i, rng| {
            let exponent = i32::try_from(rng.int(0, 34)).unwrap() - 30;
            let m = Multiplier { m: rng.code(1 << 30, i32::MAX).cast_unsigned(), shift: 31 - exponent };
            let sum = sum_of_32_bits(i, rng);
            for up in [false, true] {
                let got = Factor::Doubling(m, up).apply(sum.into());
                assert_eq!(got, i64::from(gemmlowp(sum, m.m, exponent, up)), "{sum} {m:?} {up}");
            }
        });
    }

    /// Whether `got` is `product / 2^shift`, ties as the rounding says: `|got * 2^shift - product| <= 2^(shift - 1)`.
    fn is_rounded(got: i64, product: i128, shift: i32, rounding: Rounding) -> bool {
        let off = product - (i128::from(got) << shift);
        let half = 1i128 << (shift - 1);
        off.abs() < half
            || off.abs() == half
                && match rounding {
                    Rounding::HalfEven => got & 1 == 0,
                    Rounding::HalfUp => off < 0,
                    Rounding::HalfAway => (off < 0) == (product > 0),
                }
    }

    #[test]
    fn one_rounding_is_that_of_the_rational_product() {
        cases(5, |i, rng| {
            let shift = i32::try_from(rng.int(0, 80)).unwrap() - 8;
            // Even multipliers now and then, as others have no halves.
            let m = rng.code(1 << 30, i32::MAX).cast_unsigned() >> (i % 3 * 12) << (i % 3 * 12);
            let m = Multiplier { m, shift };
            let sum = i64::from(rng.code(i32::MIN, i32::MAX));
            let sum = match i % 4 {
                0 | 1 => sum,
                2 => sum >> rng.int(0, 31),
                _ => (sum << 16) + i64::from(rng.code(0, 65535)),
            };
            let product = i128::from(sum) * i128::from(m.m);
            for rounding in Rounding::ALL {
                let got = Factor::Fixed(m, rounding).apply(sum);
                if shift <= 0 {
                    let exact = (product << -shift).clamp(-i128::from(i64::MAX), i128::from(i64::MAX));
                    assert_eq!(i128::from(got), exact);
                } else if product >> shift >= i128::from(i64::MAX) || product >> shift < -i128::from(i64::MAX)
                {
                    assert_eq!(got, i64::MAX * i64::try_from(product.signum()).unwrap());
                } else {
                    assert!(is_rounded(got, product, shift, rounding), "{sum} {m:?} {rounding}: {got}");
                }
            }
        });
    }

    #[test]
    fn shifts_are_rounded_as_they_say() {
        cases(6, |i, rng| {
            let by = i32::try_from(rng.int(0, 40)).unwrap() - 8;
            let sum = i64::from(sum_of_32_bits(i, rng));
            // Halves, where there are some.
            let sum = if i % 3 == 0 && by > 0 { (sum >> by << by) + (1 << (by - 1)) } else { sum };
            for rounding in Rounding::ALL {
                let got = Factor::Shift(by, rounding).apply(sum);
                if by <= 0 {
                    assert_eq!(got, sum << -by);
                } else {
                    assert!(is_rounded(got, sum.into(), by, rounding), "{sum} {by} {rounding}: {got}");
                }
            }
        });
    }

    /// A positive integer to 24 bits, halves to even: what is left, and by how many bits it was shifted.
    fn to_24_bits(v: u128) -> (u128, u32) {
        let by = (128 - v.leading_zeros()).saturating_sub(24);
        if by == 0 {
            return (v, 0);
        }
        let (down, rest, half) = (v >> by, v & ((1 << by) - 1), 1 << (by - 1));
        (down + u128::from(rest > half || (rest == half && down & 1 == 1)), by)
    }

    /// Two roundings to 24 bits and one to an integer, all in integers.
    #[test]
    fn floats_are_rounded_three_times() {
        cases(7, |i, rng| {
            let (m, exponent) = (rng.code(1 << 23, (1 << 24) - 1), rng.int(10, 60));
            let sum = i64::from(sum_of_32_bits(i, rng));
            #[allow(clippy::cast_precision_loss, reason = "24 bits")]
            let scale = m as f32 * 2f32.powi(-i32::try_from(exponent).unwrap());
            let got = Factor::Float(scale).apply(sum);
            let (f, by) = to_24_bits(sum.unsigned_abs().into());
            let (p, more) = to_24_bits(f * u128::try_from(m).unwrap());
            let shift = i32::try_from(exponent).unwrap() - i32::try_from(by + more).unwrap();
            let size = if shift <= 0 {
                p << -shift
            } else {
                Rounding::HalfEven.shift(i128::try_from(p).unwrap(), shift).unsigned_abs().into()
            };
            assert_eq!(
                i128::from(got),
                i128::from(sum.signum()) * i128::try_from(size).unwrap(),
                "{sum} {scale}"
            );
        });
    }

    #[test]
    fn quotients_are_rounded_as_they_say() {
        for rounding in Rounding::ALL {
            for n in 1..40u32 {
                for sum in -500i64..=500 {
                    let exact = rounding.round(sum as f64 / f64::from(n));
                    assert_eq!(
                        Factor::Quotient(0, n.into(), rounding).apply(sum) as f64,
                        exact,
                        "{sum} / {n} {rounding}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_shift_takes_powers_of_two_alone() {
        let shift = |a, b, y| Factor::new(Requantize::Shift, Rounding::HalfUp, [a, b], y);
        assert_eq!(shift(0.25, 0.5, 0.0625), Some(Factor::Shift(-1, Rounding::HalfUp)));
        assert_eq!(shift(0.25, 0.25, 1.0), Some(Factor::Shift(4, Rounding::HalfUp)));
        assert_eq!(shift(0.3, 0.25, 1.0), None);
        assert_eq!(shift(0.25, 0.25, 1.0).unwrap().apply(24), 2);
        assert_eq!(shift(0.25, 0.25, 1.0).unwrap().apply(-24), -1);
    }
}
