//! `percentile`: magnitudes up to the p-th percentile.

use super::{Bin, Observer, ObserverDef, ObserverError, Summary, clip, ends, number};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "percentile",
    usage: "percentile[=P]",
    about: "magnitudes up to the P-th percentile, 50..100, 99.99 unless given",
    parse: |p| {
        let percent = p.map_or(Some(99.99), |p| number(p, 50.0..=100.0))?;
        Some(Box::new(Percentile { percent }))
    },
};

#[derive(Debug)]
struct Percentile {
    percent: f64,
}

impl Observer for Percentile {
    fn range(&self, summary: &Summary, _: DType, _: Scheme) -> Result<Range, ObserverError> {
        Ok(clip(ends(summary)?, percentile(&summary.magnitudes(), self.percent)))
    }
}

/// The p-th percentile of numbers that lie in these bins, in ascending order: at place p/100 * (n - 1) of the sorted
/// numbers, linear between neighbours.
pub(super) fn percentile(bins: &[Bin], percent: f64) -> f64 {
    let total: f64 = bins.iter().map(|b| b.count).sum();
    let at = percent / 100.0 * (total - 1.0);
    let (a, b) = (place(bins, total, at.floor()), place(bins, total, at.ceil()));
    a + (b - a) * (at - at.floor())
}

/// The number at place `k` of the sorted ones.
fn place(bins: &[Bin], total: f64, k: f64) -> f64 {
    let mut before = 0.0;
    for b in bins {
        if k < before + b.count {
            // The ends are exact.
            if k == 0.0 {
                return b.low;
            }
            if k == total - 1.0 {
                return b.high;
            }
            let even = b.low + (k - before + 0.5) / b.count * (b.high - b.low);
            // Numbers that are not spread evenly are still within 1 % of it: a bin is 1/64 wide at most.
            let (least, most) = (b.high / 1.01, b.low * 1.01);
            return if least <= most { even.clamp(least, most) } else { even };
        }
        before += b.count;
    }
    0.0
}
