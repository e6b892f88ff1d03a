//! What quantizing costs numbers of which only the bins are known.

use super::Bin;
use crate::quant::QParams;

/// Sum of the squares of x - fake_quantize(x) over numbers spread evenly in their bins, for parameters of one scale.
/// One closed form a bin, whatever the number of codes.
pub fn squared_error(bins: &[Bin], params: &QParams) -> f64 {
    let scale = f64::from(params.scales()[0]);
    let zero = f64::from(params.zero_points()[0]);
    let (low, high) = params.codes();
    let (low, high) = (f64::from(low) - zero, f64::from(high) - zero);
    let code = |u: f64| params.rounding.round(u).clamp(low, high);
    // The integral of (u - code(u))^2 from 0 to u: each step of width 1 around a code adds 1/12; a rest, also that
    // beyond the last code, is the cube of what it is away from its code.
    let integral = |u: f64| {
        let n = code(u);
        n / 12.0 + (u - n).powi(3) / 3.0
    };
    let of_bin = |b: &Bin| {
        let (from, to) = (b.low / scale, b.high / scale);
        let mean = if to > from {
            (integral(to) - integral(from)) / (to - from)
        } else {
            (from - code(from)).powi(2)
        };
        b.count * mean.max(0.0)
    };
    bins.iter().map(of_bin).sum::<f64>() * scale * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;
    use crate::quant::Scheme;
    use crate::tensor::DType;

    #[test]
    fn closed_form_equals_many_numbers_in_each_bin() {
        let mut rng = Rng::new(1);
        for dtype in [DType::I4, DType::I8, DType::U8, DType::I16] {
            for scheme in Scheme::ALL {
                let range = crate::quant::Range::new(-rng.float(0.0, 4.0), rng.float(0.1, 4.0)).unwrap();
                let params = scheme.per_tensor(range, dtype).unwrap();
                let step = params.step(0);
                let bins: Vec<Bin> = (0..20)
                    .map(|_| {
                        let low = rng.float(-6.0, 6.0);
                        Bin {
                            low: low.into(),
                            high: f64::from(low + rng.float(0.001, 0.5)),
                            count: f64::from(rng.float(1.0, 9.0)),
                        }
                    })
                    .chain([Bin { low: 1.3, high: 1.3, count: 5.0 }])
                    .collect();
                const MANY: u32 = 20_000;
                let naive: f64 = bins
                    .iter()
                    .map(|b| {
                        let sum: f64 = (0..MANY)
                            .map(|i| {
                                let x = b.low + (f64::from(i) + 0.5) / f64::from(MANY) * (b.high - b.low);
                                let d = x - f64::from(step.fake_quantize(x as f32));
                                d * d
                            })
                            .sum();
                        b.count * sum / f64::from(MANY)
                    })
                    .sum();
                let got = squared_error(&bins, &params);
                assert!((got - naive).abs() <= 1e-3 * naive, "{dtype} {scheme:?}: {got} and {naive}");
            }
        }
    }
}
