//! `fixed`: a range that is given.

use super::{Observer, ObserverDef, ObserverError, Summary};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "fixed",
    usage: "fixed=LOW..HIGH",
    about: "this range, whatever is observed",
    parse: |p| {
        let (low, high) = p?.split_once("..")?;
        let range = Range::new(low.trim().parse().ok()?, high.trim().parse().ok()?).ok()?;
        Some(Box::new(Fixed(range)))
    },
};

#[derive(Debug)]
struct Fixed(Range);

impl Observer for Fixed {
    fn range(&self, _: &Summary, _: DType, _: Scheme) -> Result<Range, ObserverError> {
        Ok(self.0)
    }
}
