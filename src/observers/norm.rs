//! `norm`: a multiple of the magnitudes' p-norm.

use super::{Bin, Observer, ObserverDef, ObserverError, Summary, ends, number};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "norm",
    usage: "norm=[P,]K",
    about: "magnitudes up to K * (mean |x|^P)^(1/P), P in 1..16, 2 unless given",
    parse: |p| {
        let (p, k) = p?.split_once(',').map_or((Some(2.0), p), |(p, k)| (number(p, 1.0..=16.0), Some(k)));
        let factor = number(k?, f64::MIN_POSITIVE..=1e6)?;
        Some(Box::new(Norm { power: p?, factor }))
    },
};

#[derive(Debug)]
struct Norm {
    power: f64,
    factor: f64,
}

impl Observer for Norm {
    #[allow(clippy::cast_possible_truncation, reason = "rounds to nearest")]
    fn range(&self, summary: &Summary, _: DType, _: Scheme) -> Result<Range, ObserverError> {
        let whole = ends(summary)?;
        let absmax = ((self.factor * norm(&summary.magnitudes(), self.power)) as f32).min(f32::MAX);
        // A side without numbers needs no codes.
        let low = if whole.low < 0.0 { -absmax } else { 0.0 };
        let high = if whole.high > 0.0 { absmax } else { 0.0 };
        Ok(Range { low, high })
    }
}

fn norm(bins: &[Bin], power: f64) -> f64 {
    // In units of the largest, whose powers would not be finite.
    let unit = bins.last().map_or(0.0, |b| b.high);
    if unit == 0.0 {
        return 0.0;
    }
    let total: f64 = bins.iter().map(|b| b.count).sum();
    let mean_power = |b: &Bin| {
        let (low, high) = (b.low / unit, b.high / unit);
        if high > low {
            let integral = |x: f64| x.powf(power + 1.0) / (power + 1.0);
            (integral(high) - integral(low)) / (high - low)
        } else {
            high.powf(power)
        }
    };
    let sum: f64 = bins.iter().map(|b| b.count * mean_power(b)).sum();
    unit * (sum / total).powf(1.0 / power)
}
