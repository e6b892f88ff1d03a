//! Shards of a data set, and what files made from them must have in common to be joined.

use super::DataError;
use super::dataset::{Dataset, Input};
use super::source::Source;
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// More shards than this are a slip of the keyboard.
const MOST: usize = 1_000_000;

/// Missing shards that a message names.
const NAMED: usize = 20;

/// One of the parts of a data set: sample i belongs to shard i mod `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 0.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    /// The only shard of a data set that is not divided.
    pub const WHOLE: Shard = Shard { index: 0, of: 1 };

    /// Position in the data set of the shard's sample `i`.
    pub fn position(self, i: usize) -> usize {
        self.index + i * self.of
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let wrong = || format!("{text:?} is not I/N, such as 0/4");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let (index, of) = (index.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        match of {
            0 => Err(format!("{text}: there is at least one shard, 0/1")),
            _ if of > MOST => Err(format!("{text}: at most {MOST} shards")),
            _ if index >= of => {
                Err(format!("{text}: shards count from 0; the last of {of} is {}/{of}", of - 1))
            }
            _ => Ok(Shard { index, of }),
        }
    }
}

/// The shards that a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSet {
    /// Shards that the data set was divided in.
    pub of: usize,
    /// Those that are there.
    pub indices: BTreeSet<usize>,
}

impl From<Shard> for ShardSet {
    fn from(shard: Shard) -> ShardSet {
        ShardSet { of: shard.of, indices: BTreeSet::from([shard.index]) }
    }
}

impl ShardSet {
    /// # Errors
    /// A set, read from a file, that cannot be.
    pub fn check(&self) -> Result<(), String> {
        match self.indices.last() {
            Some(last) if *last < self.of && self.of <= MOST => Ok(()),
            last => Err(format!("shard {last:?} of {}", self.of)),
        }
    }

    /// Takes the shards of another set in, which must be disjoint from this one.
    ///
    /// # Errors
    /// A set of another division, or one that shares a shard.
    pub fn join(&mut self, other: &ShardSet) -> Result<(), String> {
        if self.of != other.of {
            return Err(format!("the data set is divided in {} shards here, in {} there", other.of, self.of));
        }
        if let Some(twice) = self.indices.intersection(&other.indices).next() {
            return Err(format!("shard {twice}/{} is there already", self.of));
        }
        self.indices.extend(&other.indices);
        Ok(())
    }

    /// How many of `count` samples they have.
    pub fn samples(&self, count: usize) -> usize {
        self.indices.iter().map(|i| count.saturating_sub(*i).div_ceil(self.of.max(1))).sum()
    }

    /// Those that are not there.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.of).filter(|i| !self.indices.contains(i))
    }

    /// Whether all are there.
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The missing ones in words.
    pub fn missing_text(&self) -> String {
        let named: Vec<String> = self.missing().take(NAMED).map(|i| format!("{i}/{}", self.of)).collect();
        match self.missing().count() - named.len() {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

/// The samples of a data set, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Hash of the samples' names and labels.
    pub samples: String,
    /// Hash of what tells the stored samples from others: up to 1024 blocks of an npy array, the checksum of an array in
    /// an archive, the sizes of files.
    pub contents: String,
}

/// What a file about a data set was made from; only files with equal ones can be joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Hash of each model.
    pub models: Vec<String>,
    /// Hash of the sources' kinds and of what is done to a sample.
    pub preprocessing: String,
    /// What the samples are, in order. Shards of another order hold other samples; a finished file may do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// Number of samples of the whole data set.
    pub count: usize,
    /// Options that change what is in the file.
    pub options: BTreeMap<String, Option<String>>,
}

impl Provenance {
    /// What a file made from these models and data says.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn new(
        models: Vec<String>,
        data: &Dataset,
        options: impl IntoIterator<Item = (&'static str, Option<String>)>,
    ) -> Result<Provenance, DataError> {
        let mut contents = Digest::new();
        for input in data.inputs.iter() {
            contents.part(input.source.fingerprint(&data.rows)?);
        }
        Ok(Provenance {
            models,
            preprocessing: preprocessing(&data.inputs),
            sequence: Some(Sequence { samples: samples(data)?, contents: contents.finish() }),
            count: data.len(),
            options: options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        })
    }

    /// # Errors
    /// In what the other differs.
    pub fn check(&self, other: &Provenance) -> Result<(), String> {
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        if self.models.len() != other.models.len() {
            return Err(format!("it is of {} models, here are {}", other.models.len(), self.models.len()));
        }
        if let Some(i) = (0..self.models.len()).find(|i| self.models[*i] != other.models[*i]) {
            let (a, b) = (short(&self.models[i]), short(&other.models[i]));
            return Err(format!("model {} is another: its hash is {b} there, {a} here", i + 1));
        }
        if self.count != other.count {
            return Err(format!("its data set has {} samples, here are {}", other.count, self.count));
        }
        let sequences = self.sequence.as_ref().zip(other.sequence.as_ref());
        if sequences.is_some_and(|(a, b)| a.samples != b.samples) {
            return Err("the names or labels of its samples are others".into());
        }
        if self.preprocessing != other.preprocessing {
            return Err("its samples are stored or prepared in another way ([[input]])".into());
        }
        if sequences.is_some_and(|(a, b)| a.contents != b.contents) {
            return Err("its samples have the same names, but other contents".into());
        }
        if self.options != other.options {
            let text = |p: &Provenance| {
                let set = p.options.iter().filter_map(|(k, v)| Some(format!("--{k} {}", v.as_ref()?)));
                Some(set.collect::<Vec<_>>().join(" "))
                    .filter(|t| !t.is_empty())
                    .unwrap_or("no option".into())
            };
            return Err(format!("it was made with {}, here is {}", text(other), text(self)));
        }
        Ok(())
    }
}

fn preprocessing(inputs: &[Input]) -> String {
    let mut d = Digest::new();
    for input in inputs {
        // Folders and files are left out: they differ between machines.
        let source = match &input.source {
            Source::Images { color, .. } => format!("images {color:?}"),
            Source::Raw { element, shape, layout, .. } => format!("raw {element:?} {shape:?} {layout:?}"),
            Source::Rows { array, layout } => {
                format!("rows {:?} {:?} {layout:?}", array.element(), array.shape())
            }
        };
        d.part(format!("{:?} {source} {:?}", input.name, input.steps));
    }
    d.finish()
}

fn samples(data: &Dataset) -> Result<String, DataError> {
    let mut d = Digest::new();
    data.ids().for_each(|id| d.part(id.as_bytes()));
    d.part([u8::from(data.is_labelled())]);
    data.each_label(|_, label| {
        d.part(label.to_le_bytes());
        Ok::<(), DataError>(())
    })?;
    if data.inputs.iter().any(|i| matches!(i.source, Source::Rows { .. })) {
        (0..data.len()).for_each(|i| d.part((data.rows.get(i) as u64).to_le_bytes()));
    }
    Ok(d.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_i_of_n_from_0() {
        assert_eq!("2/5".parse(), Ok(Shard { index: 2, of: 5 }));
        assert_eq!(Shard { index: 2, of: 5 }.position(3), 17);
        for (text, part) in [
            ("5/5", "4/5"),
            ("0/0", "0/1"),
            ("3", "I/N"),
            ("-1/3", "I/N"),
            ("1/2/3", "I/N"),
            ("0/9999999", "1000000"),
        ] {
            let e = text.parse::<Shard>().expect_err(text);
            assert!(e.contains(part), "{e}");
        }
    }

    #[test]
    fn sets_join_when_they_are_disjoint_parts_of_one_division() {
        let set = |of: usize, all: &[usize]| ShardSet { of, indices: all.iter().copied().collect() };
        let mut a = set(5, &[0, 3]);
        assert!(a.join(&set(4, &[1])).expect_err("of 4").contains("4 shards here, in 5"));
        assert!(a.join(&set(5, &[3, 4])).expect_err("3 is there").contains("3/5"));
        assert_eq!(a, set(5, &[0, 3]));
        a.join(&set(5, &[4])).expect("disjoint");
        assert_eq!((a.missing_text().as_str(), a.is_complete()), ("1/5, 2/5", false));
        a.join(&set(5, &[2, 1])).expect("disjoint");
        assert!(a.is_complete());
    }
}
