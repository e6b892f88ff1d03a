//! The statistics file: summaries of a float graph's tensors over a data set, or over shards of it.
//!
//! A table (see [`crate::data::columns`]) with one row a tensor. Equal frames give equal bytes, whatever batch, order,
//! shards and device they came through. Only a file that is unfinished, or lacks shards, knows the order of the samples:
//! what is left to do depends on it.

use crate::data::columns::{ColumnType, Table, Writer};
use crate::data::fingerprint::SampleSum;
use crate::data::shards::{Provenance, Shard, ShardSet};
use crate::data::{DataError, Element};
use crate::error::Error;
use crate::observers::{ExactSum, HISTOGRAM, Parts, Summary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const KIND: &str = "statistics";

/// Version of the contents, raised when readers of the old one would misread the new one.
const VERSION: u32 = 2;

/// What the file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    kind: String,
    version: u32,
    provenance: Provenance,
    shards: ShardSet,
    #[serde(default)]
    samples: SampleSum,
    /// Samples of the shards that were run or skipped.
    done: usize,
    skipped: Vec<Skipped>,
    tensors: Vec<String>,
}

/// A sample that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub sample: String,
    /// Why.
    pub reason: String,
}

/// Summaries by tensor, and what they are of.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// What they were made from.
    pub provenance: Provenance,
    /// Which parts of the data set are in them.
    pub shards: ShardSet,
    /// What tells all samples of these parts from others.
    pub samples: SampleSum,
    /// Samples of these parts that were run or skipped.
    pub done: usize,
    /// Samples that could not be read.
    pub skipped: Vec<Skipped>,
    /// Summaries by the tensor's name.
    pub tensors: BTreeMap<String, Summary>,
}

fn columns() -> [ColumnType; 4] {
    [
        ColumnType::new("counts", Element::U64, &[6]),
        ColumnType::new("histogram", Element::U64, &[HISTOGRAM]),
        ColumnType::new("moments", Element::U64, &[2 * ExactSum::WORDS]),
        ColumnType::new("range", Element::F32, &[2]),
    ]
}

impl Statistics {
    /// Of nothing yet.
    pub fn new(
        provenance: Provenance,
        shards: ShardSet,
        samples: SampleSum,
        tensors: impl IntoIterator<Item = String>,
    ) -> Self {
        let tensors = tensors.into_iter().map(|name| (name, Summary::new())).collect();
        Statistics { provenance, shards, samples, done: 0, skipped: Vec::new(), tensors }
    }

    /// Samples that its shards have.
    pub fn count(&self) -> usize {
        self.shards.samples(self.provenance.count)
    }

    /// Frames that were run.
    pub fn frames(&self) -> usize {
        self.done - self.skipped.len()
    }

    /// Writes a file; it is there whole or not at all.
    ///
    /// # Errors
    /// A failed write.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut skipped = self.skipped.clone();
        skipped.sort();
        let (mut provenance, mut shards) = (self.provenance.clone(), self.shards.clone());
        // All shards of a data set are the data set, in whatever order they were run.
        if self.shards.is_complete() && self.done == self.count() {
            shards = Shard::WHOLE.into();
            provenance.sequence = None;
        }
        let header = Header {
            kind: KIND.to_owned(),
            version: VERSION,
            provenance,
            shards,
            samples: self.samples,
            done: self.done,
            skipped,
            tensors: self.tensors.keys().cloned().collect(),
        };
        let words = |all: &[u64]| -> Vec<u8> { all.iter().flat_map(|w| w.to_le_bytes()).collect() };
        let mut writer = Writer::new(path);
        let [counts, histogram, moments, range] = columns();
        for summary in self.tensors.values() {
            let parts = summary.parts();
            writer.append(&counts, 1, &words(&parts.counts))?;
            writer.append(&histogram, 1, &words(&parts.histogram))?;
            writer.append(&moments, 1, &words(&parts.moments))?;
            let ends: Vec<u8> = parts.range.iter().flat_map(|v| v.to_le_bytes()).collect();
            writer.append(&range, 1, &ends)?;
        }
        writer.save(&serde_json::to_string(&header).expect("plain data"))?;
        Ok(())
    }

    /// Whether a file says that it holds statistics.
    pub fn is_statistics(path: &Path) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        Table::peek(path)
            .ok()
            .and_then(|t| serde_json::from_str::<Kind>(t.header()).ok())
            .is_some_and(|h| h.kind == KIND)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that is none, or that is damaged.
    pub fn load(path: &Path) -> Result<Statistics, Error> {
        let table = Table::open(path)?;
        let wrong = |what: String| Error::Data(DataError::new(path, what));
        let damaged = |what: String| wrong(format!("the file is damaged: {what}"));
        let header: Header = serde_json::from_str(table.header())
            .map_err(|e| wrong(format!("holds no calibration statistics: {e}")))?;
        if header.kind != KIND || header.version != VERSION {
            let (kind, version) = (&header.kind, header.version);
            return Err(wrong(format!(
                "holds {kind:?} of version {version}, not {KIND:?} of version {VERSION}"
            )));
        }
        header.shards.check().map_err(damaged)?;
        let n = header.tensors.len();
        for ty in columns().iter().filter(|_| n > 0) {
            if table.rows() != n || table.column(&ty.name) != Some(ty) {
                return Err(damaged(format!("column {} is not there for {n} tensors", ty.name)));
            }
        }
        let mut tensors = BTreeMap::new();
        if n > 0 {
            let words = |name: &str| table.numbers(name, Element::U64, u64::from_le_bytes);
            let (counts, histogram, moments) = (words("counts")?, words("histogram")?, words("moments")?);
            let range = table.numbers("range", Element::F32, f32::from_le_bytes)?;
            for (i, name) in header.tensors.iter().enumerate() {
                let parts = Parts {
                    counts: std::array::from_fn(|k| counts[6 * i + k]),
                    range: [range[2 * i], range[2 * i + 1]],
                    moments: std::array::from_fn(|k| moments[2 * ExactSum::WORDS * i + k]),
                    histogram: histogram[HISTOGRAM * i..][..HISTOGRAM].to_vec(),
                };
                let summary = Summary::from_parts(parts).map_err(|e| damaged(format!("{name:?}: {e}")))?;
                tensors.insert(name.clone(), summary);
            }
        }
        let Header { provenance, shards, samples, done, skipped, .. } = header;
        let out = Statistics { provenance, shards, samples, done, skipped, tensors };
        if out.done > out.count() || out.skipped.len() > out.done || out.tensors.len() != n {
            return Err(damaged("it does not hold as many samples as it says".into()));
        }
        Ok(out)
    }

    /// Takes the statistics of other shards in.
    ///
    /// # Errors
    /// Statistics of something else, or of a shard that is there already.
    pub fn join(&mut self, other: &Statistics) -> Result<(), String> {
        self.provenance.check(&other.provenance)?;
        if !self.tensors.keys().eq(other.tensors.keys()) {
            return Err("its tensors are others".into());
        }
        self.shards.join(&other.shards)?;
        self.samples = self.samples.plus(other.samples);
        self.done += other.done;
        self.skipped.extend(other.skipped.iter().cloned());
        for (a, b) in self.tensors.values_mut().zip(other.tensors.values()) {
            a.merge(b);
        }
        Ok(())
    }

    /// Why these statistics cannot be used yet: shards that are missing, or unfinished.
    pub fn missing(&self) -> Option<String> {
        if self.done < self.count() {
            return Some(format!("{} of {} samples are in it; --resume goes on", self.done, self.count()));
        }
        (!self.shards.is_complete())
            .then(|| format!("shards {} are missing; `samebit merge` joins them", self.shards.missing_text()))
    }
}

/// Joins files of disjoint shards into one.
///
/// # Errors
/// A file that is none, is unfinished, belongs to something else or holds a shard that another holds, too.
pub fn merge(paths: &[PathBuf], out: &Path) -> Result<Statistics, Error> {
    let mut whole: Option<(Statistics, &PathBuf)> = None;
    for path in paths {
        let part = Statistics::load(path)?;
        if part.done < part.count() {
            let what = format!("is unfinished: {} of {} samples", part.done, part.count());
            return Err(DataError::new(path, what).help("`calibrate --resume` goes on with it").into());
        }
        match &mut whole {
            None => whole = Some((part, path)),
            Some((all, first)) => all.join(&part).map_err(|e| {
                DataError::new(path, format!("cannot be joined with {}: {e}", first.display()))
            })?,
        }
    }
    let (all, _) = whole.ok_or_else(|| Error::Usage("no statistics given".into()))?;
    all.save(out)?;
    Ok(all)
}
