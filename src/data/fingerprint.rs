//! What tells the samples of a data set from others, whatever their order.

use super::DataError;
use super::dataset::Dataset;
use super::source::Source;
use crate::digest::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Bytes that are hashed at a place.
const BLOCK: u64 = 4096;

/// Sum of hashes, one for each sample, of its name, label and contents. It does not depend on the order of the samples,
/// and the sums of a data set's shards add up to its own. Rows of arrays have no name, since another order would change
/// it. Of contents above 64 KiB, 16 evenly spaced blocks of 4 KiB count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SampleSum([u64; 4]);

impl SampleSum {
    /// Places of a sample that are hashed.
    const PLACES: u64 = 16;

    /// Of all samples.
    ///
    /// # Errors
    /// Labels or rows that cannot be read. A file that cannot be read is told from others by its name alone.
    pub fn of(data: &Dataset) -> Result<SampleSum, DataError> {
        let one = |i: usize| -> Result<SampleSum, DataError> {
            let mut digest = Digest::new();
            if data.inputs.iter().any(|input| input.source.files().is_some()) {
                digest.part(data.id(i).as_bytes());
            }
            if let Some(label) = data.label(i)? {
                digest.part(label.to_le_bytes());
            }
            for input in data.inputs.iter() {
                input.source.digest(data.rows.get(i), SampleSum::PLACES, &mut digest)?;
            }
            Ok(SampleSum(digest.words()))
        };
        let scattered = |source: &Source| matches!(source, Source::Rows { array, .. } if !array.is_c_order());
        if data.inputs.iter().any(|input| scattered(&input.source)) {
            // Such rows are brought together some at a time, which is lost work out of order.
            return (0..data.len()).try_fold(SampleSum::default(), |sum, i| Ok(sum.plus(one(i)?)));
        }
        (0..data.len()).into_par_iter().map(one).try_reduce(SampleSum::default, |a, b| Ok(a.plus(b)))
    }

    /// Of these samples and others.
    #[must_use]
    pub fn plus(self, other: SampleSum) -> SampleSum {
        SampleSum(std::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
    }
}

impl From<SampleSum> for String {
    fn from(sum: SampleSum) -> String {
        sum.0.iter().map(|w| format!("{w:016x}")).collect()
    }
}

impl TryFrom<String> for SampleSum {
    type Error = String;

    fn try_from(text: String) -> Result<SampleSum, String> {
        let word = |i: usize| u64::from_str_radix(text.get(16 * i..16 * (i + 1))?, 16).ok();
        let words = (0..4).map(word).collect::<Option<Vec<u64>>>().and_then(|w| w.try_into().ok());
        words
            .filter(|_| text.len() == 64)
            .map(SampleSum)
            .ok_or_else(|| format!("{text:?} is no sum of hashes"))
    }
}

/// Where so many bytes are hashed, at most so many places: offset and length of each. Up to `places` blocks they are
/// all the bytes.
pub(super) fn places(len: u64, places: u64) -> impl Iterator<Item = (u64, usize)> {
    let blocks = len.div_ceil(BLOCK).min(places);
    (0..blocks).map(move |i| {
        let at = if blocks < places {
            i * BLOCK
        } else {
            // Far apart where there are more bytes than are hashed.
            (u128::from(len.saturating_sub(BLOCK)) * u128::from(i) / u128::from((places - 1).max(1))) as u64
        };
        (at, (len - at).min(BLOCK) as usize)
    })
}

/// Adds the length and some places of a file, as they can be read.
pub(super) fn of_file(path: &Path, most: u64, digest: &mut Digest) {
    let Ok(file) = std::fs::File::open(path) else { return digest.part([]) };
    let len = file.metadata().map_or(u64::MAX, |m| m.len());
    digest.part(len.to_le_bytes());
    let mut block = [0; BLOCK as usize];
    for (at, n) in places(len, most) {
        if super::array::read_exact_at(&file, &mut block[..n], at).is_err() {
            return;
        }
        digest.part(&block[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_bytes_are_hashed_all_and_many_from_end_to_end() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 16 * BLOCK - 1, 16 * BLOCK] {
            let mut end = 0;
            for (at, n) in places(len, 16) {
                assert!(at <= end && n > 0, "a gap before {at} of {len}");
                end = at + n as u64;
            }
            assert_eq!(end, len);
        }
        let all: Vec<(u64, usize)> = places(1 << 30, 16).collect();
        assert_eq!((all.len(), all[0], all[15]), (16, (0, 4096), ((1 << 30) - 4096, 4096)));
    }

    proptest! {
        #[test]
        fn a_sum_is_read_as_it_was_written(words: [u64; 4]) {
            let text = String::from(SampleSum(words));
            prop_assert_eq!(SampleSum::try_from(text.clone()), Ok(SampleSum(words)));
            prop_assert!(SampleSum::try_from(text[1..].to_owned()).is_err());
        }
    }
}
