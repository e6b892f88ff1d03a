//! Measuring a shard.

use super::figures::report;
use super::{Header, ID, LABEL, ModelHeader, POSITION, agreement_column, output_column, place_column};
use crate::analysis::checkpoint::{self, Saving};
use crate::analysis::eval::{Candidate, EvalOptions, EvalReport};
use crate::analysis::running::{Running, start};
use crate::data::columns::{ColumnType, Table, Writer};
use crate::data::metrics::{Agreement, FrameAgreement, Frames, TopK};
use crate::data::shards::{Provenance, Shard};
use crate::data::{Batch, DataError, Dataset, Element, Loader, Skip};
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::file;
use crate::tensor::Tensor;
use std::path::PathBuf;
use std::time::Instant;

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

/// Runs every model over a shard of the data set and keeps what [`super::merge`] needs. `progress` is called with the number of
/// samples done. The report is of this shard; a scorer is run when it is the whole data set.
///
/// The file is saved every few seconds, whole or not at all: a run that was killed goes on from there and ends with the
/// bytes of one that was not.
///
/// # Errors
/// As for [`crate::analysis::eval::eval`]; a file that is there already, or that was made from other models, data or options.
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
    // Whether outputs are kept makes another file; the command that scores them may be mended.
    let scorer = options.scorer.as_ref().map(|_| "CMD".to_owned());
    let asked = [("output", options.output.clone()), ("scorer", scorer)];
    let provenance = Provenance::new(models, data, asked)?;
    let mine = data.shard(part.shard);
    let (mut header, writer) = open(part, provenance, options)?;
    let width = data.ids().map(|id| id.len()).max().unwrap_or(0).max(1);
    let rest = mine.skip(header.done);
    let (mut running, bound, loading) = start(candidates, device, &rest, options)?;
    let earlier = std::mem::replace(&mut header.models, running.iter().map(ModelHeader::of).collect());
    header.models.iter_mut().zip(&earlier).for_each(|(model, earlier)| model.join(earlier));
    if !rest.is_empty() {
        header.devices.insert(device.name());
    }
    let mut sheet = Sheet { writer, header, shard: part.shard, width, scored: options.scorer.is_some() };
    // At once, so that a file that cannot be written is seen before hours of work.
    let mut saving = Saving::new();
    saving.save(|| sheet.save())?;
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
        // In the data set's numbering; the loader began at the shard's sample `before`.
        let place = |s: &Skip| Skip { position: part.shard.position(before + s.position), ..s.clone() };
        sheet.header.skipped.extend(loader.skipped()[seen..].iter().map(place));
        progress(sheet.header.done);
        if batch.is_none() {
            break;
        }
        if saving.is_due() {
            saving.save(|| sheet.save())?;
        }
    }
    saving.save(|| sheet.save())?;
    let table = Table::open(&part.path)?;
    let known = running.into_iter().map(Running::report).collect();
    Ok(EvalReport { elapsed: begin.elapsed(), ..report(&table, &sheet.header, known)? })
}

/// The file's header and rows, or those of a new one.
fn open(
    part: &PartOptions,
    provenance: Provenance,
    options: &EvalOptions,
) -> Result<(Header, Writer), Error> {
    let path = &part.path;
    let scorer = options.scorer.clone();
    if !checkpoint::is_there(path, part.resume)? {
        return Ok((Header::new(provenance, part.shard.into(), scorer), Writer::new(path)));
    }
    let wrong = |what: String| DataError::new(path, what);
    let table = Table::open(path)?;
    let header = Header { scorer, ..Header::read(&table)? };
    checkpoint::check(path, "evaluation", "--partial", [&provenance, &header.provenance])?;
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
    fn save(&mut self) -> Result<(), Error> {
        self.writer.save(&self.header.text())?;
        Ok(())
    }

    /// Runs a batch, whose samples begin at the shard's sample `from`.
    fn add(&mut self, running: &mut [Running], batch: &Batch, from: usize) -> Result<(), Error> {
        let shard = self.shard;
        let rows = batch.frames();
        let positions = batch.positions.iter().map(|p| shard.position(from + p) as u64);
        self.put(&ColumnType::new(POSITION, Element::U64, &[]), rows, positions.flat_map(u64::to_le_bytes))?;
        if self.scored {
            let (width, ty) = (self.width, ColumnType::new(ID, Element::U8, &[self.width]));
            let padded = batch.ids.iter().flat_map(|id| id.bytes().chain(std::iter::repeat(0)).take(width));
            self.put(&ty, rows, padded)?;
            if let Some(labels) = &batch.labels {
                let ty = ColumnType::new(LABEL, Element::I64, &[]);
                self.put(&ty, rows, labels.iter().flat_map(|l| l.to_le_bytes()))?;
            }
        }
        let mut first: Option<Vec<(String, Tensor)>> = None;
        for (m, model) in running.iter_mut().enumerate() {
            let dispatches = model.dispatches;
            let outputs = model.run(batch)?;
            self.header.models[m].observe(model, dispatches, |p| shard.position(from + p));
            if model.classes.is_some() {
                let frames = Frames { outputs: &outputs, labels: batch.labels.as_deref(), ids: &batch.ids };
                let (places, _) =
                    TopK::new(None).places(&frames).map_err(|e| model.wrong(format!("accuracy: {e}")))?;
                self.put(&place_column(m), rows, places.into_iter().flat_map(u32::to_le_bytes))?;
            }
            // Outputs correspond by position, as names may differ between exporters.
            for (k, (name, x)) in first.iter().flatten().take(outputs.len()).enumerate() {
                let frames = Agreement::compare(name, x, &outputs[k].1).map_err(|e| model.wrong(e))?;
                let numbers = frames.into_iter().flat_map(FrameAgreement::to_numbers);
                self.put(&agreement_column(m, k), rows, numbers.flat_map(f64::to_le_bytes))?;
            }
            if self.scored {
                for (k, (_, t)) in outputs.iter().enumerate() {
                    let ty = ColumnType::new(output_column(m, k), Element::of(t.dtype()), &t.shape()[1..]);
                    self.writer.append(&ty, rows, t.bytes())?;
                }
            }
            first.get_or_insert(outputs);
        }
        Ok(())
    }

    fn put(&mut self, ty: &ColumnType, rows: usize, bytes: impl Iterator<Item = u8>) -> Result<(), Error> {
        Ok(self.writer.append(ty, rows, &bytes.collect::<Vec<u8>>())?)
    }
}
