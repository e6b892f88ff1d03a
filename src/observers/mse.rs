//! `mse`: the share of the whole range whose quantizer has the least mean squared error.

use super::{Observer, ObserverDef, ObserverError, Summary, ends, squared_error};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "mse",
    usage: "mse",
    about: "the range times 1.00, 0.99 .. 0.06, whichever has the least mean squared error",
    parse: |p| p.is_none().then(|| Box::new(Mse) as Box<dyn Observer>),
};

#[derive(Debug)]
pub(super) struct Mse;

impl Observer for Mse {
    fn range(&self, summary: &Summary, dtype: DType, scheme: Scheme) -> Result<Range, ObserverError> {
        let whole = ends(summary)?;
        best(summary, candidates(whole), dtype, scheme)
    }
}

/// The shrunk ranges, the widest first.
pub(super) fn candidates(whole: Range) -> impl Iterator<Item = Range> {
    (6u8..=100).rev().map(move |percent| {
        let factor = f32::from(percent) / 100.0;
        Range { low: whole.low * factor, high: whole.high * factor }
    })
}

/// The first of the ranges whose quantizers have the least squared error.
pub(super) fn best(
    summary: &Summary,
    ranges: impl IntoIterator<Item = Range>,
    dtype: DType,
    scheme: Scheme,
) -> Result<Range, ObserverError> {
    let bins = summary.bins();
    let mut least: Option<(f64, Range)> = None;
    for range in ranges {
        let error = squared_error(&bins, &scheme.per_tensor(range, dtype)?);
        if least.is_none_or(|(e, _)| error < e) {
            least = Some((error, range));
        }
    }
    least.map(|(_, range)| range).ok_or(ObserverError::Empty)
}
