//! The figures that frames' contributions add up to.

use super::{Header, ID, LABEL, ModelHeader, agreement_column, output_column, place_column};
use crate::analysis::eval::{EvalReport, ModelReport};
use crate::data::columns::Table;
use crate::data::dump::DumpWriter;
use crate::data::metrics::{Agreement, FrameAgreement, Metric, TopK};
use crate::data::{DataError, Element, scorer};
use crate::error::Error;
use crate::tensor::{DType, Tensor};
use std::io::Read;
use std::time::Duration;

/// Bytes of outputs that are handed to a scorer's folder at a time.
const CHUNK: usize = 16 << 20;

/// The figures of what a file holds.
pub(super) fn report(
    table: &Table,
    header: &Header,
    mut models: Vec<ModelReport>,
) -> Result<EvalReport, Error> {
    let complete = header.shards.is_complete() && header.done == header.samples();
    if let Some(s) = header.skipped.first().filter(|_| complete && table.rows() == 0) {
        let n = header.skipped.len();
        let what = format!("none of its {n} samples can be used; the first, {}: {}", s.sample, s.reason);
        return Err(DataError::new(table.path(), what).into());
    }
    for (m, (model, known)) in models.iter_mut().zip(&header.models).enumerate() {
        model.frames = table.rows();
        model.nans.clone_from(&known.nans);
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
        if let Some(command) = header.scorer.as_ref().filter(|_| complete) {
            model.metrics.extend(score(table, command, m, known)?);
        }
    }
    Ok(EvalReport { models, skipped: header.skipped.clone(), elapsed: Duration::ZERO })
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
