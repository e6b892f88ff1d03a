//! Arithmetic on integers that may be multiples of the batch N. `None`: the result is neither, or not decided.
//! N is at least 1, and no tensor has more than 2^31 elements, so k*N compares with most integers.

use crate::graph::attrs::SymInt::{self, Batch, Int};
use crate::tensor::MAX_ELEMENTS;
use std::cmp::Ordering;

pub(super) fn add(a: SymInt, b: SymInt) -> Option<SymInt> {
    match (a, b) {
        (Int(a), Int(b)) => a.checked_add(b).map(Int),
        (Batch(a), Batch(b)) => a.checked_add(b).map(Batch),
        (x, Int(0)) | (Int(0), x) => Some(x),
        _ => None,
    }
}

pub(super) fn sub(a: SymInt, b: SymInt) -> Option<SymInt> {
    match (a, b) {
        (Int(a), Int(b)) => a.checked_sub(b).map(Int),
        (Batch(a), Batch(b)) if a == b => Some(Int(0)),
        (Batch(a), Batch(b)) if a > b => Some(Batch(a - b)),
        (x, Int(0)) => Some(x),
        _ => None,
    }
}

pub(super) fn mul(a: SymInt, b: SymInt) -> Option<SymInt> {
    match (a, b) {
        (Int(a), Int(b)) => a.checked_mul(b).map(Int),
        (Batch(_), Int(0)) | (Int(0), Batch(_)) => Some(Int(0)),
        (Batch(k), Int(d)) | (Int(d), Batch(k)) if d > 0 => k.checked_mul(d).map(Batch),
        _ => None,
    }
}

/// Rounds towards zero.
pub(super) fn div(a: SymInt, b: SymInt) -> Option<SymInt> {
    match (a, b) {
        (Int(a), Int(b)) => a.checked_div(b).map(Int),
        (Int(0), Batch(_)) => Some(Int(0)),
        (Batch(k), Int(d)) if d > 0 && k % d == 0 => Some(Batch(k / d)),
        (Batch(k), Batch(j)) => Some(Int(k / j)),
        _ => None,
    }
}

/// Sign of the divisor, or of the dividend with `fmod`.
pub(super) fn modulo(a: SymInt, b: SymInt, fmod: bool) -> Option<SymInt> {
    match (a, b) {
        (Int(a), Int(b)) => {
            let r = a.checked_rem(b)?;
            let wrong_sign = !fmod && r != 0 && (r < 0) != (b < 0);
            Some(Int(if wrong_sign { r + b } else { r }))
        }
        (Batch(k), Int(d)) if d != 0 && k % d == 0 => Some(Int(0)),
        (Batch(k), Batch(j)) if k % j == 0 => Some(Int(0)),
        _ => None,
    }
}

pub(super) fn neg(a: SymInt) -> Option<SymInt> {
    a.int()?.checked_neg().map(Int)
}

pub(super) fn abs(a: SymInt) -> Option<SymInt> {
    match a {
        Int(v) => v.checked_abs().map(Int),
        k => Some(k),
    }
}

pub(super) fn compare(a: SymInt, b: SymInt) -> Option<Ordering> {
    let most = i64::try_from(MAX_ELEMENTS).ok()?;
    match (a, b) {
        (Int(a), Int(b)) => Some(a.cmp(&b)),
        (Batch(a), Batch(b)) => Some(a.cmp(&b)),
        (Batch(k), Int(c)) if c < k => Some(Ordering::Greater),
        (Batch(_), Int(c)) if c > most => Some(Ordering::Less),
        (Batch(_), Int(_)) => None,
        (Int(_), Batch(_)) => compare(b, a).map(Ordering::reverse),
    }
}

pub(super) fn equal(a: SymInt, b: SymInt) -> Option<bool> {
    match (a, b) {
        (Batch(k), Int(c)) | (Int(c), Batch(k)) if c % k != 0 => Some(false),
        _ => compare(a, b).map(Ordering::is_eq),
    }
}

pub(super) fn min(a: SymInt, b: SymInt) -> Option<SymInt> {
    Some(if compare(a, b)?.is_le() { a } else { b })
}

pub(super) fn max(a: SymInt, b: SymInt) -> Option<SymInt> {
    Some(if compare(a, b)?.is_ge() { a } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decided_result_holds_for_every_batch() {
        let at = |s: SymInt, n: i64| match s {
            Int(v) => v,
            Batch(k) => k * n,
        };
        let some = [Int(-7), Int(-1), Int(0), Int(1), Int(2), Int(6), Batch(1), Batch(2), Batch(6)];
        let floor_mod = |a: i64, b: i64| a - b * (a as f64 / b as f64).floor() as i64;
        let mut decided = 0;
        for a in some {
            for b in some {
                for n in [1, 2, 3, 8] {
                    let (x, y) = (at(a, n), at(b, n));
                    let mut same = |got: Option<SymInt>, want: i64, what: &str| {
                        if let Some(got) = got {
                            decided += 1;
                            assert_eq!(at(got, n), want, "{what} {a} {b} N={n}");
                        }
                    };
                    same(add(a, b), x + y, "add");
                    same(sub(a, b), x - y, "sub");
                    same(mul(a, b), x * y, "mul");
                    same(min(a, b), x.min(y), "min");
                    same(max(a, b), x.max(y), "max");
                    if y != 0 {
                        same(div(a, b), x / y, "div");
                        same(modulo(a, b, false), floor_mod(x, y), "mod");
                        same(modulo(a, b, true), x % y, "fmod");
                    }
                    same(equal(a, b).map(|e| Int(i64::from(e))), i64::from(x == y), "equal");
                    same(compare(a, b).map(|o| Int(o as i64)), x.cmp(&y) as i64, "compare");
                    same(abs(a), x.abs(), "abs");
                    same(neg(a), -x, "neg");
                }
            }
        }
        assert!(decided > 2000, "{decided}");
    }

    #[test]
    fn nothing_overflows() {
        let (lowest, highest) = (Int(i64::MIN), Int(i64::MAX));
        assert_eq!(add(highest, Int(1)), None);
        assert_eq!(sub(lowest, Int(1)), None);
        assert_eq!(mul(Batch(i64::MAX), Int(2)), None);
        assert_eq!(div(lowest, Int(-1)), None);
        assert_eq!(div(Int(1), Int(0)), None);
        assert_eq!(modulo(lowest, Int(-1), false), None);
        assert_eq!((neg(lowest), abs(lowest)), (None, None));
        assert_eq!(compare(Batch(1), highest), Some(Ordering::Less));
    }
}
