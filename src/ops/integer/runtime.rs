//! What ONNX Runtime computes in f32 between codes, where its results differ from those of the same formula in f64: the
//! arithmetic of `Requantize::Float`, on processors that multiply and add with one rounding.

use crate::quant::Step;

/// 1 / (1 + e^-x) as a quotient of polynomials, with the coefficients of Eigen.
pub(in crate::ops) fn logistic(x: f32) -> f32 {
    const NUMERATOR: [f32; 5] = [4.370_31e-11, 1.156_273_2e-7, 6.085_749e-5, 8.513_771e-3, 2.482_879_5e-1];
    const DENOMINATOR: [f32; 6] =
        [6.102_473_7e-13, 5.761_021_4e-9, 6.291_068e-6, 1.701_988_2e-3, 1.168_176_5e-1, 9.931_519e-1];
    let x = x.clamp(-18.0, 18.0);
    let square = x * x;
    let polynomial = |c: &[f32]| c[1..].iter().fold(c[0], |p, c| p.mul_add(square, *c));
    (polynomial(&NUMERATOR) * x / polynomial(&DENOMINATOR) + 0.5).clamp(0.0, 1.0)
}

/// Softmax of rows of codes: of e^(shift - d * s_x) in f32, where d is how far a code is below the largest one, the sum in
/// order. The shift keeps sums finite and cancels, but for its roundings.
#[derive(Debug)]
pub(in crate::ops) struct Softmax {
    table: Vec<f32>,
    /// Codes in a probability of one.
    whole: f32,
    output: Step,
}

impl Softmax {
    /// Of rows of this length.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as it is defined")]
    pub fn new(x: &Step, output: Step, row: usize) -> Softmax {
        let (low, high) = x.codes();
        let scale = f64::from(x.scale());
        let room = f64::from(libm::logf(f32::MAX / row.max(1) as f32)) - 5.0;
        let shift = room.max(0.0) / scale;
        let entry = |d: u32| libm::exp((shift - f64::from(d)) * scale) as f32;
        let table = (0..=high.abs_diff(low)).map(entry).collect();
        Softmax { table, whole: (1.0 / output.scale()).floor(), output }
    }

    /// The codes of a row.
    #[allow(clippy::cast_possible_truncation, reason = "a quotient of at most `whole`")]
    pub fn row(&self, x: &[i32], y: &mut [i32]) {
        let largest = x.iter().copied().max().unwrap_or(0);
        let of = |q: &i32| self.table[largest.abs_diff(*q) as usize];
        let sum = x.iter().fold(0.0f32, |sum, q| sum + of(q));
        for (y, q) in y.iter_mut().zip(x) {
            *y = self.output.place((of(q) * self.whole / sum).round_ties_even() as i64);
        }
    }
}
