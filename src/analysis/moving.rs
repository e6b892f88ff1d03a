//! Moving averages of the ends of tensors while a data set is run.

use crate::observers::{self, FrameStats, MovingMinMax, ObserverError};
use crate::quant::Range;
use std::collections::BTreeMap;

/// The averages that observers ask for, of every tensor that is observed.
#[derive(Clone, Debug, Default)]
pub struct Moving {
    /// By what asks for it, as configurations write it.
    of: BTreeMap<String, BTreeMap<String, MovingMinMax>>,
}

impl Moving {
    /// Averages for those of these observers that want one, of tensors of these names, over batches of so many frames.
    ///
    /// # Errors
    /// Texts that are no observer.
    pub fn new<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        names: &[String],
        batch: usize,
    ) -> Result<Moving, ObserverError> {
        let mut out = Moving::default();
        for text in texts {
            if let Some(c) = observers::parse(text)?.moving() {
                let each = names.iter().map(|n| (n.clone(), MovingMinMax::new(c, batch)));
                out.of.insert(text.to_owned(), each.collect());
            }
        }
        Ok(out)
    }

    /// Whether nothing asks for one.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Adds frames, in order: for each name the statistics of its frames.
    pub fn observe(&mut self, names: &[String], frames: &[Vec<FrameStats>]) {
        for averages in self.of.values_mut() {
            for (name, frames) in names.iter().zip(frames) {
                if let Some(m) = averages.get_mut(name) {
                    frames.iter().for_each(|f| m.observe(f));
                }
            }
        }
    }

    /// The range that an observer finds of a tensor; none where it asked for no average, or there was no number.
    pub fn range(&self, text: &str, name: &str) -> Option<Range> {
        self.of.get(text)?.get(name)?.range()
    }
}
