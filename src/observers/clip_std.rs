//! `clip_std`: some standard deviations around the mean.

use super::{Observer, ObserverDef, ObserverError, Summary, ends, number};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "clip_std",
    usage: "clip_std[=N]",
    about: "N standard deviations around the mean, 3 unless given, within the least and greatest number",
    parse: |p| {
        let deviations = p.map_or(Some(3.0), |p| number(p, 1e-3..=1e6))?;
        Some(Box::new(ClipStd { deviations }))
    },
};

#[derive(Debug)]
struct ClipStd {
    deviations: f64,
}

impl Observer for ClipStd {
    #[allow(clippy::cast_possible_truncation, reason = "rounds to nearest, within the range")]
    fn range(&self, summary: &Summary, _: DType, _: Scheme) -> Result<Range, ObserverError> {
        let whole = ends(summary)?;
        let (mean, around) = (summary.mean(), self.deviations * summary.deviation());
        if !mean.is_finite() {
            return Ok(whole);
        }
        // The mean of equal numbers is rounded, too: it may lie beyond both ends.
        let within = |x: f64| (x as f32).clamp(whole.low, whole.high);
        Ok(Range { low: within(mean - around), high: within(mean + around) })
    }
}
