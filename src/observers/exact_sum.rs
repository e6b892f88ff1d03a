//! Sums of f32 without rounding, so that their order does not matter.

/// Words of 64 bits: 277 bits hold every finite f32, the rest is room for 2^106 of them.
const LIMBS: usize = 6;

/// Weight of the lowest bit as a power of two: the smallest f32.
const LOWEST: i32 = -149;

/// A sum of finite f32 as a fixed-point number in two's complement, in units of 2^-149, the lowest word first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactSum([u64; LIMBS]);

impl ExactSum {
    /// Words of its serialised form.
    pub const WORDS: usize = LIMBS;

    /// The sum that these words say; the inverse of [`ExactSum::words`].
    pub fn from_words(words: [u64; LIMBS]) -> ExactSum {
        ExactSum(words)
    }

    /// Its words.
    pub fn words(self) -> [u64; LIMBS] {
        self.0
    }

    /// Adds a finite number.
    #[allow(clippy::cast_possible_truncation, reason = "the halves of a wide number")]
    pub fn add(&mut self, v: f32) {
        debug_assert!(v.is_finite(), "{v} has no place in an exact sum");
        let bits = v.to_bits();
        let (exponent, fraction) = ((bits >> 23) & 0xff, bits & 0x007f_ffff);
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 23, exponent - 1) };
        let wide = u128::from(mantissa) << (shift % 64);
        let at = shift as usize / 64;
        let mut term = [0; LIMBS];
        (term[at], term[at + 1]) = (wide as u64, (wide >> 64) as u64);
        self.merge(ExactSum(if v < 0.0 { negated(term) } else { term }));
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: ExactSum) {
        let mut carry = false;
        for (a, b) in self.0.iter_mut().zip(other.0) {
            let (sum, over) = a.overflowing_add(b);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            (*a, carry) = (sum, over || again);
        }
    }

    /// The nearest f64.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the one rounding; positions of bits are small"
    )]
    pub fn value(self) -> f64 {
        let negative = self.0[LIMBS - 1] >> 63 == 1;
        let m = if negative { negated(self.0) } else { self.0 };
        let Some(top) = (0..LIMBS).rev().find(|i| m[*i] != 0) else { return 0.0 };
        // The 64 highest bits; what lies below them only breaks ties.
        let lead = m[top].leading_zeros();
        let below = if top == 0 { 0 } else { m[top - 1] };
        let wide = ((u128::from(m[top]) << 64) | u128::from(below)) << lead;
        let lost = wide as u64 != 0 || m[..top.saturating_sub(1)].iter().any(|w| *w != 0);
        let high = (wide >> 64) as u64 | u64::from(lost);
        let exponent = 64 * top as i32 - lead as i32 + LOWEST;
        let magnitude = high as f64 * 2f64.powi(exponent);
        if negative { -magnitude } else { magnitude }
    }
}

fn negated(words: [u64; LIMBS]) -> [u64; LIMBS] {
    let mut out = ExactSum(words.map(|w| !w));
    let mut one = [0; LIMBS];
    one[0] = 1;
    out.merge(ExactSum(one));
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(all: &[f32]) -> ExactSum {
        let mut out = ExactSum::default();
        all.iter().for_each(|v| out.add(*v));
        out
    }

    #[test]
    fn large_numbers_cancel_and_small_ones_stay() {
        assert_eq!(sum(&[f32::MAX, 1e-45, -f32::MAX]).value(), f64::from(1e-45f32));
        assert_eq!(sum(&[1e30, 1.0, -1e30, -3.0]).value(), -2.0);
        assert_eq!(sum(&[]).value(), 0.0);
        let many = vec![f32::MAX; 1000];
        assert_eq!(sum(&many).value(), 1000.0 * f64::from(f32::MAX));
    }

    #[test]
    fn the_value_is_the_nearest_f64() {
        // 2^53 + 1 is a tie and goes to the even neighbour; anything more goes up.
        let p = 2f32.powi(53);
        assert_eq!(sum(&[p, 1.0]).value(), 2f64.powi(53));
        assert_eq!(sum(&[p, 1.0, 1e-40]).value(), 2f64.powi(53) + 2.0);
        assert_eq!(sum(&[-p, -1.0, -1e-40]).value(), -(2f64.powi(53) + 2.0));
    }

    proptest! {
        #[test]
        fn every_f32_comes_back(bits in any::<u32>()) {
            let v = f32::from_bits(bits);
            prop_assume!(v.is_finite());
            prop_assert_eq!(sum(&[v]).value(), f64::from(v));
            prop_assert_eq!(ExactSum::from_words(sum(&[v]).words()), sum(&[v]));
        }

        #[test]
        fn order_and_grouping_do_not_matter(mut all in prop::collection::vec(-1e30f32..1e30, 0..40), at in 0usize..40) {
            let whole = sum(&all);
            let (a, b) = all.split_at(at.min(all.len()));
            let mut parts = sum(b);
            parts.merge(sum(a));
            prop_assert_eq!(parts, whole);
            all.reverse();
            prop_assert_eq!(sum(&all), whole);
        }
    }
}
