//! Models while they are being measured.

use super::eval::{Candidate, EvalOptions, ModelReport};
use super::nan::Nans;
use crate::data::metrics::{MetricError, is_classes};
use crate::data::{Batch, BoundDataset, Dataset, LoaderOptions};
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, ValueId};
use crate::tensor::{Tensor, TensorType};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// The models on a device, the data set as their inputs, and how it is read.
pub(super) fn start(
    mut candidates: Vec<Candidate>,
    device: &Device,
    data: &Dataset,
    options: &EvalOptions,
) -> Result<(Vec<Running>, BoundDataset, LoaderOptions), Error> {
    let mut about = Vec::new();
    for c in &mut candidates {
        about.push((c.graph.stage.name(), super::calibrate::state(&c.graph)));
        c.graph = super::calibrate::runnable(&c.label, std::mem::replace(&mut c.graph, Graph::new("")))?;
    }
    let bound = bind(&candidates, data)?;
    let mut running = Vec::new();
    for (c, about) in candidates.into_iter().zip(about) {
        running.push(Running::new(c, about, device, data.is_labelled(), options)?);
    }
    // Before hours of work, not at the sample that has it.
    for r in &running {
        if let (Some(classes), Some((output, _))) = (r.classes, r.watched.first()) {
            data.each_label(|i, label| match usize::try_from(label) {
                Ok(class) if class < classes => Ok(()),
                _ => Err(r.wrong(MetricError::Label {
                    id: data.id(i).into_owned(),
                    label,
                    name: output.clone(),
                    classes,
                })),
            })?;
        }
    }
    let mut batch = options.batch.unwrap_or(usize::MAX);
    for r in &mut running {
        let taps = r.taps();
        batch = batch.min(r.engine.batch(&taps)?);
    }
    Ok((running, bound, LoaderOptions { batch, ..LoaderOptions::default() }))
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

/// One model.
pub(super) struct Running {
    pub label: String,
    pub stage: &'static str,
    pub state: Option<String>,
    engine: Engine,
    /// What is scored, compared and dumped.
    pub watched: Vec<(String, ValueId)>,
    /// Classes of the first watched tensor, where there are labels and it has classes.
    pub classes: Option<usize>,
    /// Frames that were run.
    pub timed: usize,
    busy: Duration,
    pub dispatches: u64,
    pub cpu_ops: Vec<(String, &'static str)>,
    warnings: Vec<String>,
    /// NaN that quantizers were given.
    pub nans: Nans,
    /// Quantizers whose first NaN was found.
    located: Vec<String>,
}

impl Running {
    fn new(
        candidate: Candidate,
        (stage, state): (&'static str, Option<String>),
        device: &Device,
        labelled: bool,
        options: &EvalOptions,
    ) -> Result<Running, Error> {
        let Candidate { label, graph } = candidate;
        let watched = watched(&label, &graph, options)?;
        let (mut classes, mut warnings) = (None, Vec::new());
        if let Some((name, v)) = watched.first().filter(|_| labelled) {
            let ty = &graph.value(*v).ty;
            let frame = ty.at(1).and_then(|t| t.dims()).unwrap_or_default();
            match frame.get(1..).filter(|frame| is_classes(frame)) {
                Some(frame) => classes = Some(frame.iter().product()),
                None => warnings.push(format!("no top-1: output {name} is {ty}, not [N, classes]")),
            }
        }
        let mut engine = Engine::new(graph, device);
        if let Some(n) = options.batch {
            engine = engine.with_batch(n);
        }
        Ok(Running {
            label,
            stage,
            state,
            engine,
            watched,
            classes,
            timed: 0,
            busy: Duration::ZERO,
            dispatches: 0,
            cpu_ops: Vec::new(),
            warnings,
            nans: Nans::default(),
            located: Vec::new(),
        })
    }

    fn taps(&self) -> Vec<ValueId> {
        self.watched.iter().map(|(_, v)| *v).collect()
    }

    /// An error about this model.
    pub fn wrong(&self, what: impl Display) -> Error {
        Error::Usage(format!("{}: {what}", self.label))
    }

    /// The watched tensors of a batch.
    pub fn run(&mut self, batch: &Batch) -> Result<Vec<(String, Tensor)>, Error> {
        let taps = self.taps();
        // What the first run of a batch builds is no part of the model's speed.
        self.engine.prepare(&batch.inputs, &taps)?;
        let start = Instant::now();
        let trace = self.engine.run(&batch.inputs, &taps)?;
        self.busy += start.elapsed();
        self.timed += batch.frames();
        self.dispatches += trace.dispatches;
        self.cpu_ops = trace.cpu_ops;
        if !trace.nans.is_empty() {
            let samples: Vec<(usize, String)> =
                batch.positions.iter().copied().zip(batch.ids.iter().cloned()).collect();
            let (engine, located) = (&mut self.engine, &mut self.located);
            self.nans.join(&Nans::of_run(engine, trace.nans, &batch.inputs, &samples, located)?);
        }
        let of = |(name, v): &(String, ValueId)| (name.clone(), batch.without_padding(&trace.values[v]));
        Ok(self.watched.iter().map(of).collect())
    }

    /// What should be known of it.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.warnings.iter().chain(self.engine.warnings())
    }

    /// What is known of the model without figures.
    pub fn report(self) -> ModelReport {
        let warnings = self.warnings().cloned().collect();
        ModelReport {
            label: self.label,
            stage: self.stage.to_owned(),
            state: self.state,
            frames: 0,
            timed: self.timed,
            busy: self.busy,
            metrics: Vec::new(),
            agreement: Vec::new(),
            dispatches: self.dispatches,
            cpu_ops: self.cpu_ops.into_iter().map(|(node, why)| (node, why.to_owned())).collect(),
            warnings,
            nans: self.nans,
        }
    }
}

/// The tensors that are scored, compared and dumped: those asked for that have one row a frame.
fn watched(label: &str, graph: &Graph, options: &EvalOptions) -> Result<Vec<(String, ValueId)>, Error> {
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
    Ok(watched)
}
