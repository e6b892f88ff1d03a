//! The last step of requantization in 64 bits: a rounding shift, a zero point, a clamp.

use crate::quant::{Rounding, Step};

/// A rounding shift of numbers below 2^62 to codes, in 64-bit arithmetic without branches.
#[derive(Clone, Copy)]
pub(super) struct Rounded {
    shift: u32,
    half: i64,
    zero: i32,
    low: i32,
    high: i32,
}

impl Rounded {
    pub(super) fn new(shift: i32, y: &Step) -> Rounded {
        let (low, high) = y.codes();
        let shift = shift.unsigned_abs();
        Rounded { shift, half: 1 << (shift - 1), zero: y.zero_point(), low, high }
    }

    #[inline(always)]
    pub(super) fn each<T>(
        &self,
        rounding: Rounding,
        out: &mut [T],
        number: impl Fn(usize) -> i64,
        narrow: impl Fn(i32) -> T,
    ) {
        let Rounded { shift, half, .. } = *self;
        match rounding {
            Rounding::HalfEven => {
                self.map(
                    out,
                    |i| {
                        let p = number(i);
                        (p + (half - 1) + ((p >> shift) & 1)) >> shift
                    },
                    narrow,
                );
            }
            Rounding::HalfUp => self.map(out, |i| (number(i) + half) >> shift, narrow),
            Rounding::HalfAway => {
                self.map(
                    out,
                    |i| {
                        let p = number(i);
                        (p + half - i64::from(p < 0)) >> shift
                    },
                    narrow,
                );
            }
        }
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
    fn map<T>(&self, out: &mut [T], f: impl Fn(usize) -> i64, narrow: impl Fn(i32) -> T) {
        let [zero, low, high] = [self.zero, self.low, self.high].map(i64::from);
        for (i, o) in out.iter_mut().enumerate() {
            *o = narrow((f(i) + zero).clamp(low, high) as i32);
        }
    }
}
