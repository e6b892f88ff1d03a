//! Which samples a data set consists of, without a list where a rule says it: arrays may claim billions.

use super::DataError;
use super::array::Array;
use std::sync::Arc;

/// Rows of an array that are read at a time where many are wanted.
const BLOCK: usize = 1 << 16;

/// Rows of the sources, in the order of the samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// `first`, `first + step`, ...
    Even {
        first: usize,
        step: usize,
        len: usize,
    },
    List(Vec<usize>),
}

impl Rows {
    /// Rows `start`, `start + every`, ... of `count`, at most `limit` of them.
    pub fn even(count: usize, start: usize, every: usize, limit: usize) -> Rows {
        let step = every.max(1);
        Rows::Even { first: start, step, len: count.saturating_sub(start).div_ceil(step).min(limit) }
    }

    pub fn len(&self) -> usize {
        match self {
            Rows::Even { len, .. } => *len,
            Rows::List(rows) => rows.len(),
        }
    }

    /// The row of a sample that there is.
    pub fn get(&self, sample: usize) -> usize {
        match self {
            Rows::Even { first, step, .. } => first + sample * step,
            Rows::List(rows) => rows[sample],
        }
    }

    /// The rows of some of the samples.
    pub fn select(&self, samples: &Rows) -> Rows {
        match (self, samples) {
            (Rows::Even { first, step, .. }, Rows::Even { first: a, step: by, len }) => {
                Rows::Even { first: first + a * step, step: step.saturating_mul(*by), len: *len }
            }
            _ => Rows::List((0..samples.len()).map(|i| self.get(samples.get(i))).collect()),
        }
    }
}

/// Classes of samples.
#[derive(Clone, Debug)]
pub(super) enum Labels {
    /// One a sample.
    Listed(Vec<i64>),
    /// One a row of the sources.
    Array(Arc<Array>),
}

impl Labels {
    /// Those of some of the samples.
    pub fn select(&self, samples: &Rows) -> Labels {
        match self {
            Labels::Listed(all) => Labels::Listed((0..samples.len()).map(|i| all[samples.get(i)]).collect()),
            Labels::Array(array) => Labels::Array(Arc::clone(array)),
        }
    }

    /// Hands the label of every sample to `f`, in order, until it fails.
    pub fn each<E: From<DataError>>(
        &self,
        rows: &Rows,
        mut f: impl FnMut(usize, i64) -> Result<(), E>,
    ) -> Result<(), E> {
        match (self, rows) {
            (Labels::Listed(all), _) => all.iter().enumerate().try_for_each(|(i, label)| f(i, *label)),
            (Labels::Array(array), Rows::Even { first, step, len }) if *step < BLOCK => {
                let samples = BLOCK / step;
                for start in (0..*len).step_by(samples) {
                    let n = samples.min(len - start);
                    let row = first + start * step;
                    let block = array.integers(row..row + (n - 1) * step + 1)?;
                    for (i, label) in block.iter().step_by(*step).enumerate() {
                        f(start + i, *label)?;
                    }
                }
                Ok(())
            }
            (Labels::Array(_), _) => (0..rows.len()).try_for_each(|i| f(i, self.of(i, rows.get(i))?)),
        }
    }

    /// The label of a sample, which is that row.
    pub fn of(&self, sample: usize, row: usize) -> Result<i64, DataError> {
        match self {
            Labels::Listed(all) => Ok(all[sample]),
            Labels::Array(array) => Ok(array.integers(row..row + 1)?[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_lists_choose_the_same_rows() {
        let list = |rows: &Rows| (0..rows.len()).map(|i| rows.get(i)).collect::<Vec<_>>();
        for (count, start, every, limit) in
            [(10, 0, 1, 99), (10, 3, 2, 99), (10, 9, 4, 1), (10, 10, 1, 5), (7, 1, 3, 2)]
        {
            let rows = Rows::even(count, start, every, limit);
            let want: Vec<usize> = (start..count).step_by(every).take(limit).collect();
            assert_eq!(list(&rows), want);
            for (first, by) in [(0, 1), (1, 3)] {
                let some = Rows::even(rows.len(), first, by, 3);
                let want: Vec<usize> = want.iter().copied().skip(first).step_by(by).take(3).collect();
                assert_eq!(list(&rows.select(&some)), want);
                assert_eq!(list(&Rows::List(list(&rows)).select(&some)), want);
            }
        }
    }
}
