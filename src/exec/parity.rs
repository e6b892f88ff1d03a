//! Whether two executors agree: integers exactly, floats within what the length of their reductions allows.

use super::Trace;
use crate::graph::ValueId;
use crate::tensor::{Data, Tensor};

/// Where two results differ.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Difference {
    /// A value that only one of them has.
    #[error("value {value}: {which} is missing")]
    Missing {
        /// Its id.
        value: u32,
        /// `expected` or `got`.
        which: &'static str,
    },
    /// Another element type or shape.
    #[error("value {value}: expected {expected}, got {got}")]
    Type {
        /// Its id.
        value: u32,
        /// Expected type.
        expected: String,
        /// Type that is there.
        got: String,
    },
    /// Elements that differ by more than allowed.
    #[error(
        "value {value} of type {ty}: {wrong} elements differ, first at {index}: expected {expected}, got {got} (allowed {allowed:e})"
    )]
    Elements {
        /// Its id.
        value: u32,
        /// Its type.
        ty: String,
        /// How many elements differ by more than allowed.
        wrong: usize,
        /// Row-major index of the first of them.
        index: usize,
        /// What was expected there.
        expected: f64,
        /// What is there.
        got: f64,
        /// The allowed difference.
        allowed: f64,
    },
}

/// What floats may differ by: `(4 + reduction) * 2^-24 * max|expected| + extra`, and by the least normal number, as devices
/// may take subnormal ones for zero (WGSL, "Floating point evaluation"). Integers may not differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Length of the float reduction behind an element.
    pub reduction: usize,
    /// Absolute difference allowed beyond that.
    pub extra: f32,
}

impl Tolerance {
    /// Equal bits.
    pub const EXACT: Option<Tolerance> = None;
}

/// Compares all values of two traces. Without a tolerance bits must be equal.
pub fn compare(expected: &Trace, got: &Trace, tolerance: Option<Tolerance>) -> Vec<Difference> {
    let mut out = Vec::new();
    for (ValueId(value), want) in &expected.values {
        match got.values.get(&ValueId(*value)) {
            None => out.push(Difference::Missing { value: *value, which: "got" }),
            Some(have) => out.extend(compare_tensors(*value, want, have, tolerance)),
        }
    }
    let extra = got.values.keys().filter(|v| !expected.values.contains_key(v));
    out.extend(extra.map(|v| Difference::Missing { value: v.0, which: "expected" }));
    out
}

fn compare_tensors(
    value: u32,
    want: &Tensor,
    got: &Tensor,
    tolerance: Option<Tolerance>,
) -> Option<Difference> {
    if want.ty() != got.ty() {
        let (expected, got) = (want.ty().to_string(), got.ty().to_string());
        return Some(Difference::Type { value, expected, got });
    }
    let allowed = match tolerance {
        Some(t) => {
            let finite =
                want.as_f32().unwrap_or(&[]).iter().map(|x| f64::from(x.abs())).filter(|x| x.is_finite());
            #[allow(clippy::cast_precision_loss, reason = "a reduction is shorter than 2^52")]
            let steps = 4.0 + t.reduction as f64;
            let subnormal = f64::from(f32::MIN_POSITIVE);
            steps * 2f64.powi(-24) * finite.fold(0.0, f64::max) + f64::from(t.extra) + subnormal
        }
        None => 0.0,
    };
    let ty = want.ty().to_string();
    let first = |wrong: Vec<usize>, at: &dyn Fn(usize) -> (f64, f64)| {
        let index = *wrong.first()?;
        let (expected, got) = at(index);
        Some(Difference::Elements {
            value,
            ty: ty.clone(),
            wrong: wrong.len(),
            index,
            expected,
            got,
            allowed,
        })
    };
    if let (Data::F32(a), Data::F32(b)) = (want.data(), got.data()) {
        let near = |x: f32, y: f32| match tolerance {
            None => x.to_bits() == y.to_bits(),
            // Infinities and NaNs have no neighbours.
            Some(_) if !x.is_finite() || !y.is_finite() => x == y || (x.is_nan() && y.is_nan()),
            Some(_) => f64::from(x - y).abs() <= allowed,
        };
        let wrong = (0..a.len()).filter(|i| !near(a[*i], b[*i])).collect();
        return first(wrong, &|i| (f64::from(a[i]), f64::from(b[i])));
    }
    let wrong = (0..want.len()).filter(|i| want.number(*i) != got.number(*i)).collect();
    first(wrong, &|i| (want.number(i), got.number(i)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(tensors: impl IntoIterator<Item = Tensor>) -> Trace {
        let values = (0..).map(ValueId).zip(tensors).collect();
        Trace { values, ..Trace::default() }
    }

    const TOLERANCE: Option<Tolerance> = Some(Tolerance { reduction: 1, extra: 0.0 });

    #[test]
    fn an_equal_copy_passes() {
        let t = trace([
            Tensor::from_f32([3], vec![1.0, f32::NAN, f32::INFINITY]),
            Tensor::from_bool([1], vec![1]),
        ]);
        assert_eq!(compare(&t, &t.clone(), TOLERANCE), []);
        assert_eq!(compare(&t, &t.clone(), Tolerance::EXACT), []);
    }

    #[test]
    fn every_kind_of_spoiled_copy_is_caught() {
        let good = Tensor::from_f32([4], vec![1.0, -2.0, 3.0, 0.5]);
        let ints = Tensor::from_i32([2], vec![i32::MAX, 7]);
        let want = trace([good.clone(), ints.clone()]);
        let spoil = |i: usize, x: f32| {
            let mut v = good.f32s().to_vec();
            v[i] = x;
            trace([Tensor::from_f32([4], v), ints.clone()])
        };
        let cases = [
            ("one element", spoil(2, 3.00001)),
            ("NaN for a number", spoil(0, f32::NAN)),
            ("infinity for a number", spoil(1, f32::NEG_INFINITY)),
            ("zeros", trace([Tensor::zeros(good.dtype(), [4]), ints.clone()])),
            ("shape", trace([good.reshaped([2, 2]), ints.clone()])),
            ("type", trace([good.clone(), Tensor::from_f32([2], vec![7.0, 7.0])])),
            ("an integer", trace([good.clone(), Tensor::from_i32([2], vec![i32::MAX - 1, 7])])),
            ("missing", trace([good.clone()])),
            ("too many", trace([good.clone(), ints.clone(), ints.clone()])),
        ];
        for (what, got) in cases {
            assert_eq!(compare(&want, &got, TOLERANCE).len(), 1, "{what}");
        }
        let nan = trace([Tensor::scalar(f32::NAN)]);
        assert_eq!(compare(&nan, &trace([Tensor::scalar(0.0)]), TOLERANCE).len(), 1);
    }

    #[test]
    fn rounding_passes_with_a_tolerance_and_fails_without() {
        let (a, b) = (trace([Tensor::scalar(1.0)]), trace([Tensor::scalar(1.0 + f32::EPSILON)]));
        assert_eq!(compare(&a, &b, TOLERANCE), []);
        let differences = compare(&a, &b, Tolerance::EXACT);
        assert!(differences[0].to_string().contains("first at 0: expected 1"), "{}", differences[0]);
        let zeros = (trace([Tensor::scalar(0.0)]), trace([Tensor::scalar(-0.0)]));
        assert_eq!(compare(&zeros.0, &zeros.1, Tolerance::EXACT).len(), 1);
    }
}
