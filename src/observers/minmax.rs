//! `minmax`: the least and the greatest number.

use super::{Observer, ObserverDef, ObserverError, Summary, ends};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "minmax",
    usage: "minmax",
    about: "the least and the greatest number",
    parse: |p| p.is_none().then(|| Box::new(MinMax) as Box<dyn Observer>),
};

#[derive(Debug)]
struct MinMax;

impl Observer for MinMax {
    fn range(&self, summary: &Summary, _: DType, _: Scheme) -> Result<Range, ObserverError> {
        ends(summary)
    }
}
