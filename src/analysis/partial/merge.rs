//! Joining shards.

use super::figures::report;
use super::{Header, ModelHeader, POSITION};
use crate::analysis::eval::EvalReport;
use crate::data::DataError;
use crate::data::columns::{Table, Writer, join};
use crate::data::shards::ShardSet;
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Joined partial results.
#[derive(Clone, Debug)]
pub struct MergeReport {
    /// Frames that are there.
    pub frames: usize,
    /// Shards that are there.
    pub shards: ShardSet,
    /// What they were run on.
    pub devices: Vec<String>,
    /// The figures, where no shard is missing.
    pub eval: Option<EvalReport>,
}

/// Joins partial results of disjoint shards into one file, and computes the figures when no shard is missing. A `scorer`
/// takes the place of the one that the partial results name.
///
/// # Errors
/// A file that is none, is unfinished, belongs to another evaluation or holds a shard that another holds, too.
pub fn merge(paths: &[PathBuf], out: &Path, scorer: Option<&str>) -> Result<MergeReport, Error> {
    let begin = Instant::now();
    let mut parts = Vec::new();
    for path in paths {
        let table = Table::open(path)?;
        let header = Header::read(&table)?;
        let (done, all) = (header.done, header.samples());
        if done != all || table.rows() + header.skipped.len() != done {
            return Err(DataError::new(path, format!("is unfinished: {done} of {all} samples"))
                .help("`eval --resume` goes on with it")
                .into());
        }
        parts.push((header, table));
    }
    // Labels of models are those of the first shard, in whatever order the files come.
    parts.sort_by_key(|(h, _)| h.shards.indices.first().copied());
    let (headers, tables): (Vec<Header>, Vec<Table>) = parts.into_iter().unzip();
    let Some(mut whole) = headers.first().cloned() else {
        return Err(Error::Usage("no partial result given".into()));
    };
    let first = tables[0].path().display();
    for (h, t) in headers.iter().zip(&tables).skip(1) {
        let refuse = |e: String| DataError::new(t.path(), format!("cannot be joined with {first}: {e}"));
        whole.provenance.check(&h.provenance).map_err(refuse)?;
        whole.shards.join(&h.shards).map_err(refuse)?;
        whole.done += h.done;
        whole.devices.extend(h.devices.iter().cloned());
        whole.skipped.extend(h.skipped.iter().cloned());
        whole.models.iter_mut().zip(&h.models).for_each(|(model, other)| model.join(other));
    }
    if let Some(command) = scorer {
        if whole.scorer.is_none() {
            let what = "holds no outputs that --scorer could score";
            return Err(DataError::new(tables[0].path(), what).help("run the shards with --scorer").into());
        }
        whole.scorer = Some(command.to_owned());
    }
    whole.skipped.sort();
    let mut writer = Writer::new(out);
    join(&tables, POSITION, &mut writer)?;
    writer.save(&whole.text())?;
    let table = Table::open(out)?;
    let eval = if whole.shards.is_complete() {
        let known = whole.models.iter().map(ModelHeader::report).collect();
        Some(EvalReport { elapsed: begin.elapsed(), ..report(&table, &whole, known)? })
    } else {
        None
    };
    let devices = whole.devices.into_iter().collect();
    Ok(MergeReport { frames: table.rows(), shards: whole.shards, devices, eval })
}
