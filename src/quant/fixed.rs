//! Requantization in integers: real multipliers as 31-bit integers with one rounding shift, and mantissas of reciprocals
//! and of reciprocal square roots.

use super::Rounding;

/// Where a left shift saturates.
const LIMIT: i128 = i64::MAX as i128;

impl Rounding {
    /// `v / n` rounded once, for a positive n, saturating at 63 bits.
    pub fn quotient(self, v: i128, n: u64) -> i64 {
        let n = i128::from(n);
        let (down, rest) = (v.div_euclid(n), v.rem_euclid(n));
        let up = match (2 * rest).cmp(&n) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => match self {
                Rounding::HalfEven => down & 1 == 1,
                Rounding::HalfUp => true,
                Rounding::HalfAway => v > 0,
            },
        };
        i64::try_from((down + i128::from(up)).clamp(-LIMIT, LIMIT)).unwrap_or(0)
    }

    /// `v / 2^by` rounded once; a negative `by` multiplies, saturating at 63 bits.
    pub fn shift(self, v: i128, by: i32) -> i64 {
        let shifted = match by {
            126.. => 0,
            1.. => {
                let (down, half) = (v >> by, 1i128 << (by - 1));
                let rest = v - (down << by);
                let up = match self {
                    Rounding::HalfEven => rest > half || (rest == half && down & 1 == 1),
                    Rounding::HalfUp => rest >= half,
                    Rounding::HalfAway => rest > half || (rest == half && v > 0),
                };
                down + i128::from(up)
            }
            0 => v,
            -62..0 => v.clamp(-LIMIT, LIMIT) << -by,
            _ => v.signum() * LIMIT,
        };
        i64::try_from(shifted.clamp(-LIMIT, LIMIT)).unwrap_or(0)
    }
}

/// A positive real number as `m * 2^-shift` with m in [2^30, 2^31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplier {
    /// The integer.
    pub m: u32,
    /// How far its products are shifted to the right.
    pub shift: i32,
}

impl Multiplier {
    /// The nearest one to a positive finite number, halves away from zero.
    pub fn new(real: f64) -> Multiplier {
        let (fraction, exponent) = libm::frexp(real);
        let m = Rounding::HalfAway.round(fraction * f64::from(1u32 << 31));
        if m >= f64::from(1u32 << 31) {
            return Multiplier { m: 1 << 30, shift: 30 - exponent };
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in [2^30, 2^31)")]
        let m = m as u32;
        Multiplier { m, shift: 31 - exponent }
    }

    /// `v * 2^-by` times the number, the product exact, rounded once.
    pub fn apply(self, v: i128, by: i32, rounding: Rounding) -> i64 {
        rounding.shift(v * i128::from(self.m), self.shift + by)
    }
}

/// Two real multipliers with one shift, for sums of two products that are rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multipliers {
    /// The integers.
    pub m: [i64; 2],
    /// How far the sum is shifted to the right.
    pub shift: i32,
}

impl Multipliers {
    /// Those of two numbers that are not negative, the larger one positive: 31 bits, or fewer where products with operands
    /// of at most these magnitudes would reach 2^61.
    pub fn new(real: [f64; 2], most: [u64; 2]) -> Multipliers {
        let mut shift = Multiplier::new(real[0].max(real[1])).shift;
        loop {
            #[allow(clippy::cast_possible_truncation, reason = "checked right below: below 2^61")]
            let m = real.map(|r| Rounding::HalfAway.round(libm::ldexp(r, shift)) as i64);
            let fits = |i: usize| i128::from(m[i]) * i128::from(most[i]) < 1 << 61;
            if fits(0) && fits(1) {
                return Multipliers { m, shift };
            }
            shift -= 1;
        }
    }

    /// `a` times the first number plus `b` times the second, rounded once.
    pub fn apply(self, a: i64, b: i64, rounding: Rounding) -> i64 {
        let sum = i128::from(a) * i128::from(self.m[0]) + i128::from(b) * i128::from(self.m[1]);
        rounding.shift(sum, self.shift)
    }
}

/// A number as `code * 2^-14 * 2^-shift` with code in [2^14, 2^15): 16-bit codes of a mantissa in [1, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mantissa {
    /// Its code.
    pub code: u32,
    /// What it is divided by, as a power of two, beside 2^14.
    pub shift: i32,
}

/// `v / 2^by` to the nearest, halves up; a negative `by` multiplies.
fn nearest(v: u128, by: i32) -> u128 {
    match by {
        1.. => (v + (1 << (by - 1))) >> by,
        _ => v << -by,
    }
}

fn log2(v: u128) -> i32 {
    v.checked_ilog2().and_then(|l| i32::try_from(l).ok()).unwrap_or(0)
}

impl Mantissa {
    /// 1 / v for a positive v below 2^100. With n, the nearest 16 bits of v: 2^30 / n, halves up.
    pub fn reciprocal(v: u128) -> Mantissa {
        let mut log = log2(v);
        let mut n = nearest(v, log - 15);
        if n == 1 << 16 {
            (n, log) = (1 << 15, log + 1);
        }
        if n <= 1 << 15 {
            return Mantissa { code: 1 << 14, shift: log };
        }
        let code = ((1 << 30) + n / 2) / n;
        Mantissa { code: u32::try_from(code).unwrap_or(0), shift: log + 1 }
    }

    /// 1 / sqrt(v) for a positive v below 2^100. With n, the nearest 15 or 16 bits of v by an even power of two:
    /// 2^22 / sqrt(n), halves up.
    pub fn reciprocal_root(v: u128) -> Mantissa {
        let mut half = log2(v) / 2;
        let mut n = nearest(v, 2 * half - 14);
        if n == 1 << 16 {
            (n, half) = (1 << 14, half + 1);
        }
        if n <= 1 << 14 {
            return Mantissa { code: 1 << 14, shift: half };
        }
        let twice = ((1u128 << 46) / n).isqrt();
        Mantissa { code: u32::try_from((twice + 1) >> 1).unwrap_or(0), shift: half + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    #[test]
    fn shifts_round_as_they_say() {
        let all = |v: i128, by: i32| Rounding::ALL.map(|r| r.shift(v, by));
        // In the order half_even, half_up, half_away.
        assert_eq!(all(5, 1), [2, 3, 3]);
        assert_eq!(all(-5, 1), [-2, -2, -3]);
        assert_eq!(all(7, 2), [2, 2, 2]);
        assert_eq!(all(-6, 2), [-2, -1, -2]);
        assert_eq!(all(3, -2), [12, 12, 12]);
        assert_eq!(all(i128::MAX, 126), [0, 0, 0]);
        assert_eq!(all(1, -70), [i64::MAX; 3]);
        assert_eq!(all(-1, -63), [-i64::MAX; 3]);
        let mut rng = Rng::new(1);
        for _ in 0..10_000 {
            let (v, by) =
                (i128::from(rng.bits() % (1 << 20)) - (1 << 19), i32::try_from(rng.int(1, 24)).unwrap());
            for r in Rounding::ALL {
                #[allow(clippy::cast_precision_loss, reason = "20 bits")]
                let exact = v as f64 / f64::from(1u32 << by);
                assert_eq!(r.shift(v, by) as f64, r.round(exact), "{v} {by} {r}");
            }
        }
    }

    #[test]
    fn multipliers_are_the_nearest_of_31_bits() {
        assert_eq!(Multiplier::new(1.0), Multiplier { m: 1 << 30, shift: 30 });
        assert_eq!(Multiplier::new(0.75), Multiplier { m: 3 << 29, shift: 31 });
        // Rounds up to the next power of two.
        assert_eq!(Multiplier::new(1.0 - 2f64.powi(-40)), Multiplier { m: 1 << 30, shift: 30 });
        let mut rng = Rng::new(2);
        for _ in 0..10_000 {
            let real =
                f64::from(rng.float(0.5, 1.0)) * 2f64.powi(i32::try_from(rng.int(0, 80)).unwrap() - 40);
            let m = Multiplier::new(real);
            assert!((1 << 30..1 << 31).contains(&m.m));
            let back = f64::from(m.m) * 2f64.powi(-m.shift);
            assert!((back - real).abs() <= real * 2f64.powi(-31), "{real} {back}");
        }
    }

    #[test]
    fn a_pair_keeps_its_products_below_61_bits() {
        for real in [[1.0, 1.0], [1e-6, 3e5], [0.0, 7.0], [1e9, 1e-9]] {
            for most in [[1u64 << 30, 1 << 15], [255, 255], [u64::from(u32::MAX), u64::from(u32::MAX)]] {
                let p = Multipliers::new(real, most);
                let larger = if real[0] > real[1] { 0 } else { 1 };
                let back = |i: usize| p.m[i] as f64 * 2f64.powi(-p.shift);
                assert!(p.m.iter().zip(most).all(|(m, n)| i128::from(*m) * i128::from(n) < 1 << 61), "{p:?}");
                assert!((back(larger) / real[larger] - 1.0).abs() < 2f64.powi(-28), "{p:?}");
            }
        }
    }

    /// Every one of the 2^15 mantissas and numbers of all lengths, against f64.
    #[test]
    fn mantissas_are_good_to_their_bits() {
        let check = |v: u128| {
            #[allow(clippy::cast_precision_loss, reason = "relative errors of 2^-53")]
            let real = v as f64;
            for (got, exact) in
                [(Mantissa::reciprocal(v), 1.0 / real), (Mantissa::reciprocal_root(v), 1.0 / real.sqrt())]
            {
                assert!((1 << 14..1 << 15).contains(&got.code), "{v} {got:?}");
                let back = f64::from(got.code) * 2f64.powi(-14 - got.shift);
                // Half a unit of n and half a unit of the code: relatively 2^-17 + 2^-15 where n is largest, the code least.
                assert!((back / exact - 1.0).abs() <= 2f64.powi(-15) * 1.26, "{v} {got:?} {exact}");
            }
        };
        (1u128..1 << 17).for_each(check);
        let mut rng = Rng::new(3);
        for _ in 0..100_000 {
            check((u128::from(rng.bits()) << rng.int(0, 35) >> rng.int(0, 60)) | 1);
        }
        check(1 << 99);
    }
}
