//! Evaluation of one or more models on a data set, side by side on the same frames.

use super::nan::Nans;
use super::running::{Running, start};
use crate::data::dump::DumpWriter;
use crate::data::metrics::{Agreement, AgreementFigures, Frames, Metric, TopK};
use crate::data::{Batch, Dataset, Loader, Skip, scorer};
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::Graph;
use crate::tensor::Tensor;
use std::time::{Duration, Instant};

/// A model to be measured.
#[derive(Debug)]
pub struct Candidate {
    /// How it is called in the report.
    pub label: String,
    /// The model.
    pub graph: Graph,
}

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct EvalOptions {
    /// Frames that are decoded and run together; default: chosen by the engine.
    pub batch: Option<usize>,
    /// Name of the tensor that is scored and compared, any of the graph; default: the graph's outputs, of which the
    /// first is scored.
    pub output: Option<String>,
    /// Command that scores a folder of outputs (see [`scorer`]).
    pub scorer: Option<String>,
}

/// What was measured of one model.
#[derive(Clone, Debug)]
pub struct ModelReport {
    /// How it is called.
    pub label: String,
    /// Its stage.
    pub stage: String,
    /// The state of its quantizers; several with their counts; none without quantizers.
    pub state: Option<String>,
    /// Frames that the figures are of.
    pub frames: usize,
    /// Frames that it ran now; fewer where others were taken from a file.
    pub timed: usize,
    /// Time of these runs, without decoding and without making them ready.
    pub busy: Duration,
    /// Metrics of the task by name, in order.
    pub metrics: Vec<(String, f64)>,
    /// Agreement with the first model per output; empty for the first.
    pub agreement: Vec<(String, AgreementFigures)>,
    /// Device dispatches.
    pub dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, String)>,
    /// What should be known of it: a halved batch, an output that has no classes.
    pub warnings: Vec<String>,
    /// NaN that its quantizers were given.
    pub nans: Nans,
}

impl ModelReport {
    /// Frames per second of its runs, without decoding; NaN where it did not run.
    pub fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let frames = self.timed as f64;
        frames / self.busy.as_secs_f64()
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct EvalReport {
    /// One a model, in their order.
    pub models: Vec<ModelReport>,
    /// Samples that could not be read.
    pub skipped: Vec<Skip>,
    /// Whole time with decoding.
    pub elapsed: Duration,
}

/// Runs every model over the data set. `metrics` makes what is measured of each model beside accuracy, which is
/// measured where there are labels and classes. `progress` is called with the number of samples done.
///
/// # Errors
/// A data set that does not fit a model, a tensor that a model does not have, a failed run, a scorer that fails.
pub fn eval(
    candidates: Vec<Candidate>,
    device: &Device,
    data: &Dataset,
    options: &EvalOptions,
    mut metrics: impl FnMut() -> Vec<Box<dyn Metric>>,
    mut progress: impl FnMut(usize),
) -> Result<EvalReport, Error> {
    let begin = Instant::now();
    let (running, bound, loading) = start(candidates, device, data, options)?;
    let mut measured = Vec::new();
    for (i, r) in running.into_iter().enumerate() {
        measured.push(Measured::new(r, data, options, metrics(), i > 0)?);
    }
    let mut loader = Loader::new(bound, loading)?;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        let mut baseline: Option<Vec<(String, Tensor)>> = None;
        for m in &mut measured {
            let outputs = m.step(&batch, baseline.as_deref())?;
            baseline.get_or_insert(outputs);
        }
        progress(loader.frames() + loader.skipped().len());
    }
    let skipped = loader.skipped().to_vec();
    let models = measured.into_iter().map(|m| m.finish(options)).collect::<Result<_, _>>()?;
    Ok(EvalReport { models, skipped, elapsed: begin.elapsed() })
}

/// One model and what is measured of it.
struct Measured {
    model: Running,
    metrics: Vec<Box<dyn Metric>>,
    /// One a watched tensor; none for the first model.
    agreement: Vec<Agreement>,
    dump: Option<Dump>,
}

/// Outputs kept for a scorer.
struct Dump {
    folder: tempfile::TempDir,
    writer: DumpWriter,
    samples: Vec<String>,
    labels: Option<Vec<i64>>,
}

impl Dump {
    fn new(labelled: bool) -> Result<Dump, Error> {
        let folder =
            tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
        let writer = DumpWriter::create(&folder.path().join("outputs"))?;
        Ok(Dump { folder, writer, samples: Vec::new(), labels: labelled.then(Vec::new) })
    }
}

impl Measured {
    fn new(
        model: Running,
        data: &Dataset,
        options: &EvalOptions,
        mut metrics: Vec<Box<dyn Metric>>,
        compared: bool,
    ) -> Result<Measured, Error> {
        if model.classes.is_some() {
            metrics.insert(0, Box::new(TopK::new(None)));
        }
        Ok(Measured {
            metrics,
            agreement: if compared { vec![Agreement::new(); model.watched.len()] } else { Vec::new() },
            dump: options.scorer.as_ref().map(|_| Dump::new(data.is_labelled())).transpose()?,
            model,
        })
    }

    /// Runs a batch and takes its outputs in; returns them for the models that come after.
    fn step(
        &mut self,
        batch: &Batch,
        baseline: Option<&[(String, Tensor)]>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let outputs = self.model.run(batch)?;
        let frames = Frames { outputs: &outputs, labels: batch.labels.as_deref(), ids: &batch.ids };
        for m in &mut self.metrics {
            m.observe(&frames).map_err(|e| self.model.wrong(format!("{}: {e}", m.name())))?;
        }
        for (i, agreement) in self.agreement.iter_mut().enumerate() {
            // Outputs correspond by position, as names may differ between exporters.
            if let Some((name, first)) = baseline.and_then(|b| b.get(i)) {
                agreement.observe(name, first, &outputs[i].1).map_err(|e| self.model.wrong(e))?;
            }
        }
        if let Some(d) = &mut self.dump {
            for (name, t) in &outputs {
                d.writer.append(name, t)?;
            }
            d.samples.extend(batch.ids.iter().cloned());
            if let (Some(all), Some(labels)) = (&mut d.labels, &batch.labels) {
                all.extend(labels);
            }
        }
        Ok(outputs)
    }

    fn finish(self, options: &EvalOptions) -> Result<ModelReport, Error> {
        let mut metrics: Vec<(String, f64)> = self.metrics.iter().flat_map(|m| m.finish()).collect();
        if let (Some(d), Some(command)) = (self.dump, &options.scorer) {
            d.writer.finish(&d.samples, d.labels.as_deref())?;
            metrics.extend(scorer::score(command, &d.folder.path().join("outputs"))?);
        }
        let names = self.model.watched.iter().map(|(n, _)| n.clone());
        let agreement = names.zip(self.agreement.iter().map(Agreement::figures)).collect();
        let frames = self.model.timed;
        Ok(ModelReport { frames, metrics, agreement, ..self.model.report() })
    }
}
