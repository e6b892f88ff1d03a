//! Evaluation in parts: the contribution of each frame is kept in a file, so that shards can be measured apart, joined in
//! any order, and go on after the process was killed.
//!
//! Figures are always computed from the frames' contributions in the data set's order, which is why they do not depend
//! on how the data set was divided, to the last bit.

mod figures;
mod merge;
mod run;

pub use merge::{MergeReport, merge};
pub use run::{PartOptions, eval_part};

use super::eval::ModelReport;
use super::nan::Nans;
use super::running::Running;
use crate::data::columns::{ColumnType, Table};
use crate::data::metrics::FrameAgreement;
use crate::data::shards::{Provenance, ShardSet};
use crate::data::{DataError, Element, Skip};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What the header calls the contents.
const KIND: &str = "evaluation";

/// Version of the contents, raised when readers of the old one would misread the new one.
const VERSION: u32 = 2;

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
    skipped: Vec<Skip>,
    /// Command that scores the outputs. Those of shards may differ; whether outputs are kept may not.
    scorer: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ModelHeader {
    label: String,
    stage: String,
    #[serde(default)]
    state: Option<String>,
    /// Names of the watched tensors.
    outputs: Vec<String>,
    classes: Option<usize>,
    /// Device dispatches.
    dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    cpu_ops: BTreeSet<(String, String)>,
    /// What should be known of it.
    warnings: BTreeSet<String>,
    /// NaN that its quantizers were given.
    #[serde(default, skip_serializing_if = "Nans::is_empty")]
    nans: Nans,
}

impl Header {
    /// Of a file that holds nothing yet.
    fn new(provenance: Provenance, shards: ShardSet, scorer: Option<String>) -> Header {
        Header {
            kind: KIND.to_owned(),
            version: VERSION,
            provenance,
            shards,
            done: 0,
            devices: BTreeSet::new(),
            models: Vec::new(),
            skipped: Vec::new(),
            scorer,
        }
    }

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
        self.shards.samples(self.provenance.count)
    }
}

impl ModelHeader {
    fn of(model: &Running) -> ModelHeader {
        ModelHeader {
            label: model.label.clone(),
            stage: model.stage.to_owned(),
            state: model.state.clone(),
            outputs: model.watched.iter().map(|(name, _)| name.clone()).collect(),
            classes: model.classes,
            dispatches: 0,
            cpu_ops: BTreeSet::new(),
            warnings: BTreeSet::new(),
            nans: Nans::default(),
        }
    }

    /// Takes in what another shard, or a run before, says of the model.
    fn join(&mut self, other: &ModelHeader) {
        self.dispatches += other.dispatches;
        self.cpu_ops.extend(other.cpu_ops.iter().cloned());
        self.warnings.extend(other.warnings.iter().cloned());
        self.nans.join(&other.nans);
    }

    /// Takes in what was met since `dispatches` were made, at samples whose positions in the data set `position` gives.
    fn observe(&mut self, model: &mut Running, dispatches: u64, position: impl Fn(usize) -> usize) {
        self.dispatches += model.dispatches - dispatches;
        self.cpu_ops.extend(model.cpu_ops.iter().map(|(node, why)| (node.clone(), (*why).to_owned())));
        self.warnings.extend(model.warnings().cloned());
        self.nans.join(&std::mem::take(&mut model.nans).moved(position));
    }

    /// What is known of a model that did not run.
    fn report(&self) -> ModelReport {
        ModelReport {
            label: self.label.clone(),
            stage: self.stage.clone(),
            state: self.state.clone(),
            frames: 0,
            timed: 0,
            busy: Duration::ZERO,
            metrics: Vec::new(),
            agreement: Vec::new(),
            dispatches: self.dispatches,
            cpu_ops: self.cpu_ops.iter().cloned().collect(),
            warnings: self.warnings.iter().cloned().collect(),
            nans: self.nans.clone(),
        }
    }
}
