//! `mix`: of nine percentiles the one whose quantizer has the least squared error.

use super::mse::best;
use super::percentile::percentile;
use super::{Observer, ObserverDef, ObserverError, Summary, clip, ends};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "mix",
    usage: "mix",
    about: "of the percentiles 99.9 .. 99.9999 the one with the least squared error",
    parse: |p| p.is_none().then(|| Box::new(Mix) as Box<dyn Observer>),
};

/// The widest first: it is taken where errors are equal.
pub(super) const PERCENTILES: [f64; 9] =
    [99.9999, 99.9995, 99.999, 99.997, 99.995, 99.993, 99.99, 99.95, 99.9];

#[derive(Debug)]
struct Mix;

impl Observer for Mix {
    fn range(&self, summary: &Summary, dtype: DType, scheme: Scheme) -> Result<Range, ObserverError> {
        let whole = ends(summary)?;
        let magnitudes = summary.magnitudes();
        let ranges = PERCENTILES.map(|p| clip(whole, percentile(&magnitudes, p)));
        best(summary, ranges, dtype, scheme)
    }
}
