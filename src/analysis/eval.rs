//! Evaluation of one or more models on a data set, side by side on the same frames.

use crate::data::dump::DumpWriter;
use crate::data::metrics::{Agreement, AgreementFigures, Frames, Metric, TopK};
use crate::data::{Batch, BoundDataset, Dataset, Loader, LoaderOptions, Skip, scorer};
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, ValueId};
use crate::tensor::{Tensor, TensorType};
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
    pub stage: &'static str,
    /// Frames that it saw.
    pub frames: usize,
    /// Time of its runs, without decoding.
    pub busy: Duration,
    /// Metrics of the task by name, in order.
    pub metrics: Vec<(String, f64)>,
    /// Agreement with the first model per output; empty for the first.
    pub agreement: Vec<(String, AgreementFigures)>,
    /// Device dispatches.
    pub dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
    /// What the engine had to say: a halved batch.
    pub warnings: Vec<String>,
}

impl ModelReport {
    /// Frames per second of its runs, without decoding.
    pub fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let frames = self.frames as f64;
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
/// measured where there are labels. `progress` is called with the number of samples done.
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
    let start = Instant::now();
    let bound = bind(&candidates, data)?;
    let mut running = Vec::new();
    for (i, c) in candidates.into_iter().enumerate() {
        running.push(Running::new(c, device, data, options, metrics(), i > 0)?);
    }
    let mut batch = options.batch.unwrap_or(usize::MAX);
    for r in &mut running {
        let taps = r.taps();
        batch = batch.min(r.engine.batch(&taps)?);
    }
    let loading = LoaderOptions { batch, ..LoaderOptions::default() };
    let mut loader = Loader::new(bound, loading)?;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        let mut baseline: Option<Vec<(String, Tensor)>> = None;
        for r in &mut running {
            let outputs = r.step(&batch, baseline.as_deref())?;
            baseline.get_or_insert(outputs);
        }
        progress(loader.frames() + loader.skipped().len());
    }
    let skipped = loader.skipped().to_vec();
    let models = running.into_iter().map(|r| r.finish(options)).collect::<Result<_, _>>()?;
    Ok(EvalReport { models, skipped, elapsed: start.elapsed() })
}

/// The data set as the models' inputs, which must be the same for all.
fn bind(candidates: &[Candidate], data: &Dataset) -> Result<BoundDataset, Error> {
    let inputs = |g: &Graph| -> Vec<(String, TensorType)> {
        g.inputs.iter().map(|v| (g.value(*v).name.clone(), g.value(*v).ty.clone())).collect()
    };
    let list = |inputs: &[(String, TensorType)]| {
        inputs.iter().map(|(n, t)| format!("{n}: {t}")).collect::<Vec<_>>().join(", ")
    };
    let first = candidates.first().ok_or_else(|| Error::Usage("no model given".into()))?;
    let wanted = inputs(&first.graph);
    for c in &candidates[1..] {
        let other = inputs(&c.graph);
        if other != wanted {
            let (a, b) = (list(&wanted), list(&other));
            let (first, c) = (&first.label, &c.label);
            return Err(Error::Usage(format!("{first} takes {a}, {c} takes {b}: evaluate them apart")));
        }
    }
    Ok(data.inputs_for(&wanted)?)
}

/// One model while it is being measured.
struct Running {
    report: ModelReport,
    engine: Engine,
    /// What is scored, compared and dumped.
    watched: Vec<(String, ValueId)>,
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

impl Running {
    fn new(
        candidate: Candidate,
        device: &Device,
        data: &Dataset,
        options: &EvalOptions,
        mut metrics: Vec<Box<dyn Metric>>,
        compared: bool,
    ) -> Result<Running, Error> {
        let Candidate { label, graph } = candidate;
        let watched: Vec<(String, ValueId)> = match &options.output {
            None => graph.outputs.iter().map(|v| (graph.value(*v).name.clone(), *v)).collect(),
            Some(name) => match graph.find_value(name) {
                Some(v) => vec![(name.clone(), v)],
                None => {
                    let help = "`samebit print` lists its tensors";
                    return Err(Error::Usage(format!("{label} has no tensor {name:?}; {help}")));
                }
            },
        };
        // What is scored and compared has one row a frame.
        let rows = graph.inputs.first().and_then(|v| graph.value(*v).ty.shape.first().copied());
        let has_rows = |v: &ValueId| graph.value(*v).ty.shape.first().copied() == rows;
        let watched: Vec<(String, ValueId)> = watched.into_iter().filter(|(_, v)| has_rows(v)).collect();
        if watched.is_empty() {
            let what = match &options.output {
                Some(name) => format!("tensor {name:?}"),
                None => "no output".to_owned(),
            };
            let help = "choose another by --output";
            return Err(Error::Usage(format!("{label}: {what}: axis 0 must count the frames; {help}")));
        }
        if data.labels().is_some() {
            metrics.insert(0, Box::new(TopK::new(None)));
        }
        let stage = graph.stage.name();
        let mut engine = Engine::new(graph, device);
        if let Some(n) = options.batch {
            engine = engine.with_batch(n);
        }
        Ok(Running {
            engine,
            metrics,
            agreement: if compared { vec![Agreement::new(); watched.len()] } else { Vec::new() },
            watched,
            dump: options.scorer.as_ref().map(|_| Dump::new(data.labels().is_some())).transpose()?,
            report: ModelReport {
                label,
                stage,
                frames: 0,
                busy: Duration::ZERO,
                metrics: Vec::new(),
                agreement: Vec::new(),
                dispatches: 0,
                cpu_ops: Vec::new(),
                warnings: Vec::new(),
            },
        })
    }

    fn taps(&self) -> Vec<ValueId> {
        self.watched.iter().map(|(_, v)| *v).collect()
    }

    /// Runs a batch and takes its outputs in; returns them for the models that come after.
    fn step(
        &mut self,
        batch: &Batch,
        baseline: Option<&[(String, Tensor)]>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let taps = self.taps();
        let start = Instant::now();
        let trace = self.engine.run(&batch.inputs, &taps)?;
        self.report.busy += start.elapsed();
        self.report.frames += batch.frames();
        self.report.dispatches += trace.dispatches;
        self.report.cpu_ops = trace.cpu_ops;
        let outputs: Vec<(String, Tensor)> = self
            .watched
            .iter()
            .map(|(name, v)| (name.clone(), batch.without_padding(&trace.values[v])))
            .collect();
        let frames = Frames { outputs: &outputs, labels: batch.labels.as_deref(), ids: &batch.ids };
        for m in &mut self.metrics {
            m.observe(&frames)
                .map_err(|e| Error::Usage(format!("{}: {}: {e}", self.report.label, m.name())))?;
        }
        for (i, agreement) in self.agreement.iter_mut().enumerate() {
            // Outputs correspond by position, as names may differ between exporters.
            if let Some((name, first)) = baseline.and_then(|b| b.get(i)) {
                agreement
                    .observe(name, first, &outputs[i].1)
                    .map_err(|e| Error::Usage(format!("{}: {e}", self.report.label)))?;
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

    fn finish(mut self, options: &EvalOptions) -> Result<ModelReport, Error> {
        self.report.metrics = self.metrics.iter().flat_map(|m| m.finish()).collect();
        if let (Some(d), Some(command)) = (self.dump, &options.scorer) {
            d.writer.finish(&d.samples, d.labels.as_deref())?;
            self.report.metrics.extend(scorer::score(command, &d.folder.path().join("outputs"))?);
        }
        let names = self.watched.iter().map(|(n, _)| n.clone());
        self.report.agreement = names.zip(self.agreement.iter().map(Agreement::figures)).collect();
        self.report.warnings = self.engine.warnings().to_vec();
        Ok(self.report)
    }
}
