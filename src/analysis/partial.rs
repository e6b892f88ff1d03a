//! Evaluation in parts: the contribution of each frame is kept in a file, so that shards can be measured apart, joined in
//! any order, and go on after the process was killed.
//!
//! Figures are always computed from the frames' contributions in the data set's order, which is why they do not depend
//! on how the data set was divided, to the last bit.

use super::eval::{Candidate, EvalOptions, EvalReport, ModelReport};
use super::running::{Running, start};
use crate::data::columns::{ColumnType, Table, Writer, join};
use crate::data::dump::DumpWriter;
use crate::data::metrics::{Agreement, FrameAgreement, Frames, Metric, TopK};
use crate::data::shards::{Provenance, Shard, ShardSet};
use crate::data::{Batch, DataError, Dataset, Element, Loader, Skip, scorer};
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::file;
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the header calls the contents.
const KIND: &str = "evaluation";

/// Version of the contents, raised when readers of the old one would misread the new one.
const VERSION: u32 = 1;

/// Time between two saves, unless saving takes long.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Saving may take this part of the time.
const SAVE_SHARE: u32 = 20;

/// Bytes of outputs that are handed to a scorer's folder at a time.
const CHUNK: usize = 16 << 20;

const POSITION: &str = "position";
const ID: &str = "id";
const LABEL: &str = "label";

fn place_column(model: usize) -> ColumnType {
    ColumnType::new(format!("{model}.place"), Element::U32, &[])
}

fn agreement_column(model: usize, output: usize) -> ColumnType {
    ColumnType::new(format!("{model}.agreement.{output}"), Element::F64, &[FrameAgreement::NUMBERS])
}

fn output_column(model: usize, output: usize) -> String {
    format!("{model}.output.{output}")
}

/// Which part is measured, and the file that keeps it.
#[derive(Clone, Debug)]
pub struct PartOptions {
    /// Which samples.
    pub shard: Shard,
    /// The file.
    pub path: PathBuf,
    /// Go on with the file, if there is one; otherwise there must not be one.
    pub resume: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    kind: String,
    version: u32,
    provenance: Provenance,
    shards: ShardSet,
    /// Samples of the shards that were run or skipped.
    done: usize,
    /// What it was run on: the figures of float models may differ between devices.
    devices: BTreeSet<String>,
    models: Vec<ModelHeader>,
    skipped: Vec<Skipped>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ModelHeader {
    label: String,
    stage: String,
    /// Names of the watched tensors.
    outputs: Vec<String>,
    classes: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Skipped {
    position: usize,
    sample: String,
    reason: String,
}

impl Header {
    fn read(table: &Table) -> Result<Header, Error> {
        let wrong = |what: String| Error::Data(DataError::new(table.path(), what));
        let header: Header = serde_json::from_str(table.header())
            .map_err(|e| wrong(format!("not a partial result of samebit: {e}")))?;
        if header.kind != KIND || header.version != VERSION {
            let (kind, version) = (&header.kind, header.version);
            return Err(wrong(format!(
                "holds {kind:?} of version {version}, not {KIND:?} of version {VERSION}"
            )));
        }
        header.shards.check().map_err(|e| wrong(format!("the file is damaged: {e}")))?;
        Ok(header)
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// Samples that its shards have.
    fn samples(&self) -> usize {
        let ShardSet { of, indices } = &self.shards;
        indices.iter().map(|i| self.provenance.count.saturating_sub(*i).div_ceil((*of).max(1))).sum()
    }
}

/// Runs every model over a shard of the data set and keeps what [`merge`] needs. `progress` is called with the number of
/// samples done. The report is of this shard; a scorer is run when it is the whole data set.
///
/// The file is saved every few seconds, whole or not at all: a run that was killed goes on from there and ends with the
/// bytes of one that was not.
///
/// # Errors
/// As for [`super::eval::eval`]; a file that is there already, or that was made from other models, data or options.
pub fn eval_part(
    candidates: Vec<Candidate>,
    device: &Device,
    data: &Dataset,
    options: &EvalOptions,
    part: &PartOptions,
    mut progress: impl FnMut(usize),
) -> Result<EvalReport, Error> {
    let begin = Instant::now();
    let mut models = Vec::new();
    for c in &candidates {
        let hash = file::digest(&c.graph);
        models.push(
            hash.map_err(|source| Error::Save { path: c.label.clone().into(), source: Box::new(source) })?,
        );
    }
    let asked = [("output", options.output.clone()), ("scorer", options.scorer.clone())];
    let provenance = Provenance::new(models, data, asked);
    let mine = data.shard(part.shard);
    let (mut header, writer) = open(part, provenance)?;
    let width = data.ids().iter().map(String::len).max().unwrap_or(0).max(1);
    let rest = mine.select(header.done..mine.len());
    let (mut running, bound, loading) = start(candidates, device, &rest, options)?;
    header.models = running.iter().map(ModelHeader::of).collect();
    if !rest.is_empty() {
        header.devices.insert(device.to_string());
    }
    let mut sheet = Sheet { writer, header, shard: part.shard, width, scored: options.scorer.is_some() };
    // At once, so that a file that cannot be written is seen before hours of work.
    let mut saving = Saving::new();
    saving.save(&mut sheet)?;
    let (before, skips_before) = (sheet.header.done, sheet.header.skipped.len());
    progress(before);
    let mut loader = Loader::new(bound, loading)?.or_nothing();
    loop {
        let batch = loader.next().transpose()?;
        if let Some(batch) = &batch {
            sheet.add(&mut running, batch, before)?;
        }
        sheet.header.done = before + loader.frames() + loader.skipped().len();
        let seen = sheet.header.skipped.len() - skips_before;
        for s in &loader.skipped()[seen..] {
            let position = part.shard.position(before + s.position);
            let (sample, reason) = (s.sample.clone(), s.reason.clone());
            sheet.header.skipped.push(Skipped { position, sample, reason });
        }
        progress(sheet.header.done);
        if batch.is_none() {
            break;
        }
        if saving.is_due() {
            saving.save(&mut sheet)?;
        }
    }
    saving.save(&mut sheet)?;
    let table = Table::open(&part.path)?;
    let known = running.into_iter().map(Running::report).collect();
    Ok(EvalReport { elapsed: begin.elapsed(), ..report(&table, &sheet.header, known)? })
}

/// The file's header and rows, or those of a new one.
fn open(part: &PartOptions, provenance: Provenance) -> Result<(Header, Writer), Error> {
    let path = &part.path;
    if !path.exists() {
        let header = Header {
            kind: KIND.to_owned(),
            version: VERSION,
            provenance,
            shards: part.shard.into(),
            done: 0,
            devices: BTreeSet::new(),
            models: Vec::new(),
            skipped: Vec::new(),
        };
        return Ok((header, Writer::new(path)));
    }
    let wrong = |what: String| DataError::new(path, what);
    if !part.resume {
        return Err(wrong("is there already".into()).help("--resume goes on with it; or remove it").into());
    }
    let table = Table::open(path)?;
    let header = Header::read(&table)?;
    provenance
        .check(&header.provenance)
        .map_err(|e| wrong(format!("belongs to another evaluation: {e}")).help("give another --partial"))?;
    if header.shards != part.shard.into() {
        let have: Vec<String> = header.shards.indices.iter().map(ToString::to_string).collect();
        let have = format!("holds shard {} of {}", have.join(", "), header.shards.of);
        return Err(wrong(format!("{have}, not {}", part.shard)).help("give another --partial").into());
    }
    if header.done > header.samples() || table.rows() + header.skipped.len() != header.done {
        return Err(wrong("does not hold as many samples as it says".into())
            .help("the file is damaged")
            .into());
    }
    let writer = Writer::resume(&table)?;
    Ok((header, writer))
}

/// When the file is saved next.
struct Saving {
    last: Instant,
    cost: Duration,
}

impl Saving {
    fn new() -> Saving {
        Saving { last: Instant::now(), cost: Duration::ZERO }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= SAVE_EVERY.max(self.cost * SAVE_SHARE)
    }

    fn save(&mut self, sheet: &mut Sheet) -> Result<(), Error> {
        let start = Instant::now();
        sheet.writer.save(&sheet.header.text())?;
        *self = Saving { last: Instant::now(), cost: start.elapsed() };
        Ok(())
    }
}

/// The rows of a shard as they come.
struct Sheet {
    writer: Writer,
    header: Header,
    shard: Shard,
    /// Bytes of the longest name of the data set.
    width: usize,
    /// Whether outputs are kept for a scorer.
    scored: bool,
}

impl Sheet {
    /// Runs a batch, whose samples begin at the shard's sample `from`.
    fn add(&mut self, running: &mut [Running], batch: &Batch, from: usize) -> Result<(), Error> {
        let shard = self.shard;
        let positions = batch.positions.iter().map(|p| shard.position(from + p) as u64);
        self.put(&ColumnType::new(POSITION, Element::U64, &[]), positions.flat_map(u64::to_le_bytes))?;
        if self.scored {
            let (width, ty) = (self.width, ColumnType::new(ID, Element::U8, &[self.width]));
            let padded = batch.ids.iter().flat_map(|id| id.bytes().chain(std::iter::repeat(0)).take(width));
            self.put(&ty, padded)?;
            if let Some(labels) = &batch.labels {
                let ty = ColumnType::new(LABEL, Element::I64, &[]);
                self.put(&ty, labels.iter().flat_map(|l| l.to_le_bytes()))?;
            }
        }
        let mut first: Option<Vec<(String, Tensor)>> = None;
        for (m, model) in running.iter_mut().enumerate() {
            let outputs = model.run(batch)?;
            if model.classes.is_some() {
                let frames = Frames { outputs: &outputs, labels: batch.labels.as_deref(), ids: &batch.ids };
                let (places, _) =
                    TopK::new(None).places(&frames).map_err(|e| model.wrong(format!("accuracy: {e}")))?;
                self.put(&place_column(m), places.into_iter().flat_map(u32::to_le_bytes))?;
            }
            // Outputs correspond by position, as names may differ between exporters.
            for (k, (name, x)) in first.iter().flatten().take(outputs.len()).enumerate() {
                let frames = Agreement::compare(name, x, &outputs[k].1).map_err(|e| model.wrong(e))?;
                let numbers = frames.into_iter().flat_map(FrameAgreement::to_numbers);
                self.put(&agreement_column(m, k), numbers.flat_map(f64::to_le_bytes))?;
            }
            if self.scored {
                for (k, (_, t)) in outputs.iter().enumerate() {
                    let ty = ColumnType::new(output_column(m, k), Element::of(t.dtype()), &t.shape()[1..]);
                    self.writer.append(&ty, t.bytes())?;
                }
            }
            first.get_or_insert(outputs);
        }
        Ok(())
    }

    fn put(&mut self, ty: &ColumnType, bytes: impl Iterator<Item = u8>) -> Result<(), Error> {
        Ok(self.writer.append(ty, &bytes.collect::<Vec<u8>>())?)
    }
}

impl ModelHeader {
    fn of(model: &Running) -> ModelHeader {
        ModelHeader {
            label: model.label.clone(),
            stage: model.stage.to_owned(),
            outputs: model.watched.iter().map(|(name, _)| name.clone()).collect(),
            classes: model.classes,
        }
    }

    /// What is known of a model that did not run.
    fn report(&self) -> ModelReport {
        ModelReport {
            label: self.label.clone(),
            stage: self.stage.clone(),
            frames: 0,
            timed: 0,
            busy: Duration::ZERO,
            metrics: Vec::new(),
            agreement: Vec::new(),
            dispatches: 0,
            cpu_ops: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

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

/// Joins partial results of disjoint shards into one file, and computes the figures when no shard is missing.
///
/// # Errors
/// A file that is none, is unfinished, belongs to another evaluation or holds a shard that another holds, too.
pub fn merge(paths: &[PathBuf], out: &Path) -> Result<MergeReport, Error> {
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

/// The figures of what a file holds.
fn report(table: &Table, header: &Header, mut models: Vec<ModelReport>) -> Result<EvalReport, Error> {
    let complete = header.shards.is_complete() && header.done == header.samples();
    if let Some(s) = header.skipped.first().filter(|_| complete && table.rows() == 0) {
        let n = header.skipped.len();
        let what = format!("none of its {n} samples can be used; the first, {}: {}", s.sample, s.reason);
        return Err(DataError::new(table.path(), what).into());
    }
    for (m, (model, known)) in models.iter_mut().zip(&header.models).enumerate() {
        model.frames = table.rows();
        if let Some(classes) = known.classes {
            let mut top = TopK::new(None);
            let places = table.numbers(&place_column(m).name, Element::U32, u32::from_le_bytes)?;
            places.into_iter().for_each(|place| top.add(place, classes));
            model.metrics.extend(top.finish());
        }
        let compared = if m == 0 { 0 } else { known.outputs.len().min(header.models[0].outputs.len()) };
        for (k, name) in known.outputs.iter().enumerate().take(compared) {
            let mut agreement = Agreement::new();
            let numbers = table.numbers(&agreement_column(m, k).name, Element::F64, f64::from_le_bytes)?;
            let frames = numbers.as_chunks::<{ FrameAgreement::NUMBERS }>().0;
            frames.iter().for_each(|frame| agreement.add(FrameAgreement::from_numbers(*frame)));
            model.agreement.push((name.clone(), agreement.figures()));
        }
        let scorer = header.provenance.options.get("scorer").cloned().flatten();
        if let Some(command) = scorer.filter(|_| complete) {
            model.metrics.extend(score(table, &command, m, known)?);
        }
    }
    let skip =
        |s: &Skipped| Skip { position: s.position, sample: s.sample.clone(), reason: s.reason.clone() };
    let skipped = header.skipped.iter().map(skip).collect();
    Ok(EvalReport { models, skipped, elapsed: Duration::ZERO })
}

/// What a scorer says of the outputs of a model.
fn score(
    table: &Table,
    command: &str,
    model: usize,
    known: &ModelHeader,
) -> Result<Vec<(String, f64)>, Error> {
    let failed = |e: std::io::Error| Error::Io { path: table.path().to_owned(), source: e };
    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let target = folder.path().join("outputs");
    let mut dump = DumpWriter::create(&target)?;
    for (k, name) in known.outputs.iter().enumerate() {
        let column = output_column(model, k);
        let wrong = || DataError::new(table.path(), format!("column {column} is not that of an output"));
        let ty = table.column(&column).ok_or_else(wrong)?;
        let dtype = DType::ALL.into_iter().find(|d| Element::of(*d) == ty.element).ok_or_else(wrong)?;
        let row = ty.row.iter().product::<usize>() * dtype.size_bytes();
        let mut rows = table.reader(&column)?;
        let mut left = table.rows();
        while left > 0 {
            let n = (CHUNK / row.max(1)).clamp(1, left);
            let mut bytes = vec![0; n * row];
            rows.read_exact(&mut bytes).map_err(failed)?;
            let shape = [&[n], ty.row.as_slice()].concat();
            dump.append(name, &Tensor::from_bytes(dtype, &shape, &bytes).ok_or_else(wrong)?)?;
            left -= n;
        }
    }
    let width = table.column(ID).map_or(1, |ty| ty.row.iter().product::<usize>().max(1));
    let mut bytes = Vec::new();
    table.reader(ID)?.read_to_end(&mut bytes).map_err(failed)?;
    let name = |id: &[u8]| String::from_utf8_lossy(id).trim_end_matches('\0').to_owned();
    let ids: Vec<String> = bytes.chunks_exact(width).map(name).collect();
    let labels = match table.column(LABEL) {
        Some(_) => Some(table.numbers(LABEL, Element::I64, i64::from_le_bytes)?),
        None => None,
    };
    dump.finish(&ids, labels.as_deref())?;
    Ok(scorer::score(command, &target)?)
}
