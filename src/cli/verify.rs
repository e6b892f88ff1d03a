//! `samebit verify`: whether two artefacts give the same codes.

use super::files::Files;
use super::model::ProfileArg;
use super::run::read_inputs;
use super::{Common, Outcome, number, show};
use crate::analysis::calibrate::refuse_unfit;
use crate::analysis::verify::{Compared, FloatTolerance, Verified, Verifier, has_codes};
use crate::data::dump::DumpReader;
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::error::Error;
use crate::gpu::{Choice, Device};
use crate::graph::sample::Rng;
use crate::graph::{Graph, QuantRule};
use crate::model;
use crate::onnx::ImportOptions;
use crate::passes::convert::simulation;
use crate::tensor::{DType, Tensor};
use clap::Args;
use globset::Glob;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Graph of any stage but float
    a: PathBuf,
    /// Another one, the same one (see --device-b), or a folder of dumped tensors
    b: PathBuf,
    /// Data set whose samples both run on
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
    #[arg(long, value_name = "X", default_value_t = FloatTolerance::default().absolute)]
    atol: f64,
    /// What they may differ by, relatively
    #[arg(long, value_name = "X", default_value_t = FloatTolerance::default().relative)]
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

fn load(path: &Path) -> Result<Graph, Error> {
    let graph = model::load(path, &ImportOptions::default())?;
    let label = path.display().to_string();
    refuse_unfit(&label, &graph)?;
    if has_codes(&graph) {
        return simulation(graph).map_err(|e| Error::Usage(format!("{label}: {e}")));
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
    let a = args.profile.apply(&args.a.display().to_string(), load(&args.a)?)?;
    let only = args.layers.as_ref().map(|pattern| {
        let glob = Glob::new(pattern).map_err(|e| Error::Usage(format!("--layers {pattern}: {e}")))?;
        Ok::<_, Error>(glob.compile_matcher())
    });
    let only = only.transpose()?;
    let device_a = Device::open(&args.common.device)?;
    let device_b = args.device_b.as_ref().map(Device::open).transpose()?;
    let device_b = device_b.as_ref().unwrap_or(&device_a);
    let tolerance = FloatTolerance { absolute: args.atol, relative: args.rtol };
    let mut dumped = usize::MAX;
    let mut verifier = if args.b.is_dir() {
        let dump = DumpReader::open(&args.b)?;
        dumped = frames(&args.b, &dump, &a)?;
        if let Some(limit) = args.limit.filter(|l| *l > dumped) {
            let what = format!("--limit {limit}: {} has {dumped} frames", args.b.display());
            return Err(Error::Usage(what));
        }
        Verifier::with_dump((a.clone(), &device_a), dump, only.as_ref(), tolerance)?
    } else {
        Verifier::graphs((a.clone(), &device_a), (load(&args.b)?, device_b), only.as_ref(), tolerance)?
    };
    let most = args.limit.unwrap_or(usize::MAX).min(dumped);
    if let Some(path) = &args.data {
        let data = Dataset::open(path)?.limit(most);
        let inputs: Vec<_> =
            a.inputs.iter().map(|v| (a.value(*v).name.clone(), a.value(*v).ty.clone())).collect();
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
    } else if !args.input.is_empty() {
        let inputs = read_inputs(&args.input, false, &a)?;
        let frames = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(1).min(most);
        verifier.compare(&batch_of(inputs, frames))?;
    } else {
        // A batch that is part of the model is one run.
        let frames = if a.is_batched() { args.random.unwrap_or(16).min(most) } else { 1 };
        verifier.compare(&batch_of(random(&a, frames, args.seed)?, frames))?;
    }
    let found = verifier.finish();
    report(args, &found);
    let consistent = found.consistent();
    let json = json!({
        "consistent": consistent,
        "frames": found.frames,
        "compared_layers": found.layers.iter().filter(|l| l.elements > 0).count(),
        "compared_elements": found.elements(),
        "layers": found.layers.iter().map(one).collect::<Vec<_>>(),
        "outputs": found.outputs.iter().map(one).collect::<Vec<_>>(),
        "injected": found.injected,
        "unmatched": found.unmatched,
        "device": device_a.to_string(),
        "device_b": device_b.to_string(),
        "dispatches": found.dispatches,
        "cpu_ops": super::cpu_ops(&found.cpu_ops),
    });
    Ok(Outcome { json, not_good: !consistent })
}

/// Frames of a dump, of which all tensors that the graph has, too, must have as many.
fn frames(path: &Path, dump: &DumpReader, graph: &Graph) -> Result<usize, Error> {
    let names = dump.names().filter(|n| graph.find_value(n).is_some());
    let counted = names.filter_map(|n| Some((dump.shape(n)?.first().copied()?, n)));
    let all: Vec<(usize, &str)> = counted.collect();
    let (Some(least), Some(most)) = (all.iter().min(), all.iter().max()) else { return Ok(0) };
    if least.0 == most.0 {
        return Ok(least.0);
    }
    let what = format!("{} has {} frames, {} has {}", least.1, least.0, most.1, most.0);
    Err(Error::Usage(format!("{}: {what}: a dump must hold the same frames of every tensor", path.display())))
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

fn one(c: &Compared) -> serde_json::Value {
    json!({
        "name": c.name,
        "elements": c.elements,
        "mismatches": c.mismatches,
        "max_abs": number(c.max_abs),
        "max_rel": number(c.max_rel),
        "first": c.first.as_ref().map(|f| json!({
            "sample": f.sample, "index": f.index, "a": number(f.a), "b": number(f.b),
        })),
    })
}

fn report(args: &VerifyArgs, found: &Verified) {
    let differ: Vec<&Compared> =
        found.layers.iter().chain(&found.outputs).filter(|l| l.mismatches > 0).collect();
    if found.elements() == 0 {
        show::line("nothing was compared: no tensor of codes has one name in both");
    } else if differ.is_empty() {
        let layers = found.layers.iter().filter(|l| l.elements > 0).count();
        show::line(&format!(
            "consistent: {} elements of {layers} tensors are equal in {} frames",
            found.elements(),
            found.frames
        ));
    } else {
        let header = ["tensor", "elements", "differ", "largest", "first at", "A", "B"].map(str::to_owned);
        let row = |c: &&Compared| {
            let first = c.first.as_ref();
            vec![
                c.name.clone(),
                c.elements.to_string(),
                c.mismatches.to_string(),
                format!("{}", c.max_abs),
                first.map_or("-".to_owned(), |f| format!("{} [{}]", f.sample, f.index)),
                first.map_or("-".to_owned(), |f| f.a.to_string()),
                first.map_or("-".to_owned(), |f| f.b.to_string()),
            ]
        };
        let rows: Vec<Vec<String>> = differ.iter().map(row).collect();
        show::line(&show::table(&header, &rows, 1));
        show::line(&format!("not consistent: {} of {} tensors differ", differ.len(), found.layers.len()));
    }
    if args.common.quiet {
        return;
    }
    if !found.injected.is_empty() {
        let n = found.injected.len();
        show::remark(&format!(
            "{n} tensors behind float islands were taken from {}: {}",
            if args.b.is_dir() { "the dump" } else { "A" },
            some(&found.injected)
        ));
    }
    if !found.unmatched.is_empty() {
        show::remark(&format!(
            "{} tensors are in one only: {}",
            found.unmatched.len(),
            some(&found.unmatched)
        ));
    }
    if let Some((node, why)) = found.cpu_ops.first() {
        let n = found.cpu_ops.len();
        show::remark(&format!("{n} operators ran on the CPU, the first is {node}: {why}"));
    }
}

fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = if names.len() > 5 { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}
