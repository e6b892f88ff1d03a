//! `samebit verify`: whether two artefacts give the same codes.

mod report;

use super::files::Files;
use super::model::ProfileArg;
use super::run::read_inputs;
use super::{Common, Outcome, show};
use crate::analysis::calibrate::refuse_unfit;
use crate::analysis::verify::{Definitions, Dump, FloatTolerance, Verifier, definitions, has_codes};
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::error::Error;
use crate::gpu::{Choice, Device};
use crate::graph::sample::Rng;
use crate::graph::{Graph, QuantRule, Stage};
use crate::model;
use crate::onnx::ImportOptions;
use crate::passes::convert::simulation;
use crate::tensor::{DType, Tensor};
use clap::Args;
use globset::Glob;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Graph of any stage but float
    a: PathBuf,
    /// Another one, the same one (see --device-b), or a folder of dumped tensors
    b: PathBuf,
    /// Data set whose samples both run on; for a dump, those that it was made from
    #[arg(long, value_name = "DATA", group = "source")]
    data: Option<PathBuf>,
    /// A file for an input, as `run` takes it
    #[arg(long, value_name = "NAME=FILE", group = "source")]
    input: Vec<String>,
    /// Frames of random inputs, a little beyond the range of their quantizers
    #[arg(long, value_name = "N", group = "source")]
    random: Option<usize>,
    /// Seed of the random inputs
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Compare only tensors whose names match
    #[arg(long, value_name = "GLOB")]
    layers: Option<String>,
    /// Where B runs (default: where A does)
    #[arg(long, value_name = "DEVICE")]
    device_b: Option<Choice>,
    /// What outputs that floats computed may differ by, absolutely
    #[arg(long, value_name = "X", value_parser = tolerance, default_value_t = FloatTolerance::default().absolute)]
    atol: f64,
    /// What they may differ by, relatively
    #[arg(long, value_name = "X", value_parser = tolerance, default_value_t = FloatTolerance::default().relative)]
    rtol: f64,
    #[command(flatten)]
    profile: ProfileArg,
    #[command(flatten)]
    pub(super) common: Common,
}

impl VerifyArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let files = Files::default().reads(&self.a).reads(&self.b);
        self.data.iter().fold(files, |f, d| f.reads(d))
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "give a number of 0 or more".to_owned())
}

/// A graph as it runs, and the stage that its file is in.
fn load(path: &Path) -> Result<(Graph, Stage), Error> {
    let graph = model::load(path, &ImportOptions::default())?;
    let label = path.display().to_string();
    refuse_unfit(&label, &graph)?;
    if has_codes(&graph) {
        let stage = graph.stage;
        let runs = simulation(graph).map_err(|e| Error::Usage(format!("{label}: {e}")))?;
        return Ok((runs, stage));
    }
    Err(Error::Usage(format!(
        "{label}: is in stage {} and has no codes to compare; `samebit convert` makes a graph that has",
        graph.stage.name()
    )))
}

pub(super) fn run(args: &VerifyArgs) -> Result<Outcome, Error> {
    if args.limit == Some(0) || args.random == Some(0) {
        return Err(Error::Usage("--limit and --random must be at least 1".into()));
    }
    // Of a graph and what a target gave, or of a graph and itself, the first is the one to run otherwise.
    let (a, stage_a) = load(&args.a)?;
    let a = args.profile.apply(&args.a.display().to_string(), a)?;
    let only = args.layers.as_ref().map(|pattern| {
        let glob = Glob::new(pattern).map_err(|e| Error::Usage(format!("--layers {pattern}: {e}")))?;
        Ok::<_, Error>(glob.compile_matcher())
    });
    let only = only.transpose()?;
    let dump = args.b.is_dir().then(|| Dump::open(&args.b)).transpose()?.map(Arc::new);
    let mut frames = usize::MAX;
    if let Some(dump) = &dump {
        frames = frames_of(args, dump, &a)?;
    }
    let device_a = Device::open(&args.common.device)?;
    let device_b = args.device_b.as_ref().map(Device::open).transpose()?;
    let device_b = device_b.as_ref().unwrap_or(&device_a);
    let tolerance = FloatTolerance { absolute: args.atol, relative: args.rtol };
    let (mut verifier, differences) = match &dump {
        Some(dump) => {
            let verifier =
                Verifier::with_dump((a.clone(), &device_a), Arc::clone(dump), only.as_ref(), tolerance)?;
            (verifier, Vec::new())
        }
        None => {
            let (b, stage_b) = load(&args.b)?;
            let how = Definitions {
                only: only.as_ref(),
                simulated: !stage_a.is_on_codes() || !stage_b.is_on_codes(),
                other_profile: args.profile.profile.is_some(),
            };
            let differences = definitions(&a, &b, how);
            let (of_a, of_b) = ((a.clone(), &device_a), (b, device_b));
            (Verifier::graphs(of_a, of_b, only.as_ref(), tolerance)?, differences)
        }
    };
    let most = args.limit.unwrap_or(usize::MAX).min(frames);
    if let Some(path) = &args.data {
        on_data(args, path, &a, most, &mut verifier)?;
    } else if !args.input.is_empty() {
        let inputs = read_inputs(&args.input, false, &a)?;
        let frames = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(1).min(most);
        verifier.compare(&batch_of(inputs, frames))?;
    } else if let Some(dump) = &dump {
        on_dumped(args, dump, &a, most, &mut verifier)?;
    } else {
        // A batch that is part of the model is one run.
        let frames = if a.is_batched() { args.random.unwrap_or(16).min(most) } else { 1 };
        verifier.compare(&batch_of(random(&a, frames, args.seed)?, frames))?;
    }
    let mut found = verifier.finish();
    found.differences.extend(differences);
    report::show(args, &found);
    Ok(Outcome { json: report::json(&found, &device_a, device_b), not_good: !found.consistent() })
}

/// Frames of a dump, for which there are inputs.
fn frames_of(args: &VerifyArgs, dump: &Dump, graph: &Graph) -> Result<usize, Error> {
    let path = args.b.display();
    let frames = dump.count(graph)?;
    if let Some(limit) = args.limit.filter(|l| *l > frames) {
        return Err(Error::Usage(format!("--limit {limit}: {path} has {frames} frames")));
    }
    if args.random.is_some() {
        let what = "--random: a dump is of certain frames, which --data or --input must give";
        return Err(Error::Usage(format!("{what}, or {path} itself")));
    }
    let missing = dump.missing_inputs(graph);
    if args.data.is_none() && args.input.is_empty() && !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Error::Usage(format!(
            "{path}: has no {missing}, which the model takes: give the frames that the dump is of by --data or \
             --input, or put them into the folder"
        )));
    }
    Ok(frames)
}

fn on_data(
    args: &VerifyArgs,
    path: &Path,
    graph: &Graph,
    most: usize,
    verifier: &mut Verifier,
) -> Result<(), Error> {
    let data = Dataset::open(path)?.limit(most);
    let inputs: Vec<_> =
        graph.inputs.iter().map(|v| (graph.value(*v).name.clone(), graph.value(*v).ty.clone())).collect();
    let bound = data.inputs_for(&inputs)?;
    let options = LoaderOptions { batch: verifier.batch()?, ..LoaderOptions::default() };
    let mut progress = show::Progress::new(args.common.quiet, "verify", data.len());
    let mut done = 0;
    for batch in Loader::new(bound, options)? {
        let batch = batch?;
        verifier.compare(&batch)?;
        done += batch.frames();
        progress.set(done);
    }
    Ok(())
}

/// Runs the inputs that a dump has.
fn on_dumped(
    args: &VerifyArgs,
    dump: &Dump,
    graph: &Graph,
    frames: usize,
    verifier: &mut Verifier,
) -> Result<(), Error> {
    let of_model = || {
        let v = graph.inputs.first()?;
        graph.value(*v).ty.shape.first()?.fixed()
    };
    // A batch that is part of the model is run whole.
    let step = if graph.is_batched() { verifier.batch()? } else { of_model().unwrap_or(1) }.max(1);
    if !graph.is_batched() && !frames.is_multiple_of(step) {
        let path = args.b.display();
        return Err(Error::Usage(format!("{path}: {frames} frames, the model takes {step} at once")));
    }
    let mut progress = show::Progress::new(args.common.quiet, "verify", frames);
    for start in (0..frames).step_by(step) {
        let part = start..frames.min(start + step);
        let inputs = dump.inputs(graph, part.clone())?;
        let (ids, positions) = (dump.samples(part.clone()), part.clone().collect());
        verifier.compare(&Batch { ids, positions, inputs, labels: None })?;
        progress.set(part.end);
    }
    Ok(())
}

fn batch_of(inputs: Vec<Tensor>, frames: usize) -> Batch {
    let ids = (0..frames).map(|i| i.to_string()).collect();
    Batch { ids, positions: (0..frames).collect(), inputs, labels: None }
}

/// Elements of an input drawn at random.
const MOST_RANDOM: usize = 1 << 27;

/// Inputs a tenth beyond the range of the quantizer that takes them.
fn random(graph: &Graph, frames: usize, seed: u64) -> Result<Vec<Tensor>, Error> {
    let mut rng = Rng::new(seed);
    let one = |v: &crate::graph::ValueId| -> Result<Tensor, Error> {
        let value = graph.value(*v);
        let elements = value.ty.at(frames).and_then(|t| t.elements()?.fixed()).filter(|n| *n <= MOST_RANDOM);
        let shape = elements.and_then(|_| value.ty.at(frames)?.dims());
        let shape =
            shape.ok_or_else(|| Error::Usage(format!("--random {frames}: too many frames at once")))?;
        if value.ty.dtype != DType::F32 {
            return Err(Error::Usage(format!(
                "--random: input {} is {}; give it by --input",
                value.name, value.ty
            )));
        }
        let users = graph.nodes().iter().filter(|n| n.inputs.contains(v));
        let params = users.filter_map(|n| match n.op.quant_rule() {
            QuantRule::Quantizer(q) => q.params.clone(),
            _ => n.op.codes().and_then(|c| c.params().cloned()),
        });
        let range = params.filter(|p| p.scales().len() == 1).map(|p| {
            let (step, (low, high)) = (p.step(0), p.codes());
            (1.1 * step.dequantize(low), 1.1 * step.dequantize(high))
        });
        let (low, high) = range.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((-2.0, 2.0));
        let n = shape.iter().product();
        Ok(Tensor::from_f32(shape, (0..n).map(|_| rng.float(low, high)).collect()))
    };
    graph.inputs.iter().map(one).collect()
}
