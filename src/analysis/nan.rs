//! NaN that quantizers were given while a model was measured, and the samples that show them.

use crate::exec::{Engine, ExecError, NanCount};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// NaN that a quantizer was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NanSeen {
    /// Name of the quantizer's node.
    pub quantizer: String,
    /// What it quantizes: the node before it, an input or a constant.
    pub source: String,
    /// Whether that is a constant.
    pub constant: bool,
    /// How many.
    pub count: u64,
    /// Position and name of the first sample with one; of the first and the last of a batch whose samples cannot be run
    /// apart. None of a constant.
    pub first: Option<(usize, String)>,
}

impl fmt::Display for NanSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quantizer {:?} was given {} NaN by {}", self.quantizer, self.count, self.source)?;
        if let Some((_, sample)) = &self.first {
            write!(f, ", first in sample {sample}")?;
        }
        f.write_str(", and made zeros of them: what comes of it cannot be trusted. ")?;
        f.write_str(if self.constant {
            "The model itself holds them: mend it"
        } else {
            "`samebit calibrate` of the float model on these samples names the node that makes them, `samebit profile` counts \
             them in every tensor"
        })
    }
}

/// What quantizers of a model were given, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nans(BTreeMap<String, NanSeen>);

impl Nans {
    /// Of a run of samples of these positions and names. Samples are run again, one by one, to find the first one for
    /// quantizers that are not `located`; these are then.
    ///
    /// # Errors
    /// A failed run.
    pub fn of_run(
        engine: &mut Engine,
        counts: Vec<NanCount>,
        inputs: &[Tensor],
        samples: &[(usize, String)],
        located: &mut Vec<String>,
    ) -> Result<Nans, ExecError> {
        let new = counts.iter().filter(|n| !n.constant && !located.contains(&n.quantizer));
        let new: Vec<String> = new.map(|n| n.quantizer.clone()).collect();
        let found = match new.len() {
            n if n == 0 || samples.len() == 1 => vec![None; n],
            _ => engine.first_nan(inputs, &new)?,
        };
        let sample = |frame: Option<usize>| match (frame.and_then(|f| samples.get(f)), samples) {
            (Some(one), _) | (None, [one]) => Some(one.clone()),
            (None, [(position, first), .., (_, last)]) => Some((*position, format!("{first} to {last}"))),
            (None, []) => None,
        };
        let mut all = Nans::default();
        for NanCount { quantizer, source, constant, count } in counts {
            let first = new.iter().zip(&found).find(|(name, _)| **name == quantizer);
            let first = first.and_then(|(_, frame)| sample(*frame));
            all.add(NanSeen { quantizer, source, constant, count, first });
        }
        located.extend(new);
        Ok(all)
    }

    fn add(&mut self, seen: NanSeen) {
        let Some(known) = self.0.get_mut(&seen.quantizer) else {
            self.0.insert(seen.quantizer.clone(), seen);
            return;
        };
        // Every run of a model meets the same constants.
        known.count = if known.constant { known.count.max(seen.count) } else { known.count + seen.count };
        known.first = match (known.first.take(), seen.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Takes in those of other runs.
    pub fn join(&mut self, other: &Nans) {
        other.0.values().for_each(|n| self.add(n.clone()));
    }

    /// The same with other positions.
    pub fn moved(mut self, to: impl Fn(usize) -> usize) -> Nans {
        self.0
            .values_mut()
            .filter_map(|n| n.first.as_mut())
            .for_each(|(position, _)| *position = to(*position));
        self
    }

    /// Whether no quantizer was given any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &NanSeen> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(count: u64, constant: bool, first: Option<usize>) -> Nans {
        let first = first.map(|p| (p, format!("sample{p}")));
        let one =
            NanSeen { quantizer: "q".to_owned(), source: "log (Log)".to_owned(), constant, count, first };
        Nans(BTreeMap::from([("q".to_owned(), one)]))
    }

    #[test]
    fn parts_join_to_the_whole_in_any_order() {
        let parts = [seen(2, false, Some(7)), seen(3, false, Some(1)), seen(4, false, None)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut all = Nans::default();
            order.iter().for_each(|i| all.join(&parts[*i]));
            assert_eq!(all, seen(9, false, Some(1)));
        }
    }

    #[test]
    fn nan_of_a_constant_are_not_added_up_over_runs() {
        let mut all = seen(5, true, None);
        all.join(&seen(5, true, None));
        assert_eq!(all, seen(5, true, None));
    }
}
