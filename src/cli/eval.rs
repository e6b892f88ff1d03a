//! `samebit eval`: models on a data set, side by side.

use super::files::Files;
use super::model::{CutArgs, ProfileArg};
use super::{Common, Outcome, number, show};
use crate::analysis::eval::{Candidate, EvalOptions, EvalReport, ModelReport, eval};
use crate::analysis::partial::{PartOptions, eval_part};
use crate::data::Dataset;
use crate::data::shards::Shard;
use crate::error::Error;
use crate::gpu::Device;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// ONNX models or graph files; the first is what the others are compared with
    #[arg(required = true)]
    model: Vec<PathBuf>,
    /// Data set: a TOML file, a folder of images, an image, a list of images (.txt), an npy or npz
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Frames that run together (default: chosen from the model and the device)
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Tensor to score, any of the graph (default: the first output)
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Command that scores the outputs: it gets a folder of npy files and prints a JSON object of numbers
    #[arg(long, value_name = "CMD")]
    scorer: Option<String>,
    /// Frames that cannot be read do not make the exit code 1
    #[arg(long)]
    allow_skips: bool,
    /// Measure only samples I, I+N, I+2N, ...; `merge` joins the partial results of all N
    #[arg(long, value_name = "I/N", requires = "partial")]
    shard: Option<Shard>,
    /// Keep what the figures are made of in this file, saved every few seconds
    #[arg(long, value_name = "FILE")]
    partial: Option<PathBuf>,
    /// Go on with the file given by --partial; without one, start it
    #[arg(long, requires = "partial")]
    resume: bool,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    profile: ProfileArg,
    #[command(flatten)]
    pub(super) common: Common,
}

impl EvalArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let files = self.model.iter().fold(Files::default().reads(&self.data), |f, path| f.reads(path));
        files.keeps("--partial", self.partial.as_deref())
    }
}

pub(super) fn run(args: &EvalArgs) -> Result<Outcome, Error> {
    if args.batch == Some(0) || args.limit == Some(0) {
        return Err(Error::Usage("--batch and --limit must be at least 1".into()));
    }
    let mut data = Dataset::open(&args.data)?;
    if let Some(n) = args.limit {
        data = data.limit(n);
    }
    let graphs = args.cut.load(&args.model)?;
    let labels = args.model.iter().map(|path| path.display().to_string());
    let candidates = labels.zip(graphs).map(|(label, graph)| {
        // The other stages have no arithmetic of a target.
        let on_codes = graph.stage.is_on_codes();
        let graph = if on_codes { args.profile.apply(&label, graph)? } else { graph };
        Ok(Candidate { label, graph })
    });
    let candidates = candidates.collect::<Result<Vec<_>, Error>>()?;
    if args.profile.profile.is_some() && candidates.iter().all(|c| !c.graph.stage.is_on_codes()) {
        return Err(Error::Usage(
            "--profile: no model is in stage quantized; `samebit convert` makes one".into(),
        ));
    }
    let device = Device::open(&args.common.device)?;
    if !args.common.quiet {
        show::remark(&format!("{} samples of {}, on {device}", data.len(), data.name()));
        data.notes().iter().for_each(|note| show::remark(note));
    }
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let samples = data.shard(shard).len();
    let options = EvalOptions { batch: args.batch, output: args.output.clone(), scorer: args.scorer.clone() };
    let mut progress = show::Progress::new(args.common.quiet, "eval", samples);
    let report = match &args.partial {
        None => eval(candidates, &device, &data, &options, Vec::new, |done| progress.set(done))?,
        Some(path) => {
            let part = PartOptions { shard, path: path.clone(), resume: args.resume };
            eval_part(candidates, &device, &data, &options, &part, |done| progress.set(done))?
        }
    };
    drop(progress);
    print(&report, args.common.quiet);
    if shard.of > 1 && !args.common.quiet {
        show::remark(&format!(
            "these are the figures of shard {shard} alone: `samebit merge` joins all {}",
            shard.of
        ));
    }
    let json = json!({
        "device": device.to_string(),
        "dispatches": report.models.iter().map(|m| m.dispatches).sum::<u64>(),
        "cpu_ops": super::cpu_ops(report.models.iter().flat_map(|m| &m.cpu_ops)),
        "data": data.name(),
        "samples": samples,
        "notes": data.notes(),
        "shard": args.partial.is_some().then(|| shard.to_string()),
        "partial": args.partial.as_ref().map(|path| path.display().to_string()),
        "seconds": report.elapsed.as_secs_f64(),
        "models": models_json(&report),
        "skipped": skipped_json(&report),
    });
    Ok(Outcome { json, not_good: !report.skipped.is_empty() && !args.allow_skips })
}

/// Tables of metrics and agreement, then what needs attention.
pub(super) fn print(report: &EvalReport, quiet: bool) {
    let first = &report.models[0];
    let mut header = vec!["model".to_owned(), "stage".to_owned(), "frames".to_owned(), "frames/s".to_owned()];
    header.extend(first.metrics.iter().map(|(name, _)| name.clone()));
    if report.models.len() > 1 {
        header.push("ratio".to_owned());
    }
    let rows: Vec<Vec<String>> = report.models.iter().map(|m| metrics_row(m, first, report)).collect();
    show::line(&show::table(&header, &rows, 2));
    let header = ["model", "output", "arg-max equal", "cosine", "SQNR dB", "max |diff|"].map(str::to_owned);
    let mut rows = Vec::new();
    for m in &report.models[1..] {
        for (output, a) in &m.agreement {
            rows.push(vec![
                m.label.clone(),
                output.clone(),
                format!("{:.2} %", 100.0 * a.argmax),
                format!("{:.9}", a.cosine),
                format!("{:.2}", a.sqnr_db),
                format!("{:.3e}", a.max_abs),
            ]);
        }
    }
    if !rows.is_empty() {
        show::line(&format!("agreement with {}:", first.label));
        show::line(&show::table(&header, &rows, 2));
    }
    for m in &report.models[1..] {
        if let Some((name, ratio)) = ratio(m, first) {
            show::line(&format!("{}: {:.4} of the first model's {name}: {}", m.label, ratio, verdict(ratio)));
        }
    }
    for s in &report.skipped {
        show::remark(&format!("skipped {}: {}", s.sample, s.reason));
    }
    if !report.skipped.is_empty() {
        let n = report.skipped.len();
        show::remark(&format!("{n} samples could not be read (--allow-skips accepts that)"));
    }
    for m in &report.models {
        m.nans.iter().for_each(|n| show::remark(&format!("warning: {}: {n}", m.label)));
    }
    if !quiet {
        for m in &report.models {
            for w in &m.warnings {
                show::remark(&format!("{}: {w}", m.label));
            }
            for (node, reason) in &m.cpu_ops {
                show::remark(&format!("{}: {node} ran on the CPU: {reason}", m.label));
            }
        }
    }
}

fn metrics_row(m: &ModelReport, first: &ModelReport, report: &EvalReport) -> Vec<String> {
    let rate = if m.timed == 0 { "-".to_owned() } else { format!("{:.1}", m.rate()) };
    let stage = m.state.as_ref().map_or_else(|| m.stage.clone(), |s| format!("{} ({s})", m.stage));
    let mut row = vec![m.label.clone(), stage, m.frames.to_string(), rate];
    for (name, _) in &first.metrics {
        let v = m.metrics.iter().find(|(n, _)| n == name);
        row.push(v.map_or("-".to_owned(), |(_, v)| format!("{v:.4}")));
    }
    if report.models.len() > 1 {
        row.push(ratio(m, first).map_or("-".to_owned(), |(_, r)| format!("{r:.4}")));
    }
    row
}

/// The first metric's name and its ratio to the first model's.
fn ratio<'a>(m: &'a ModelReport, first: &ModelReport) -> Option<(&'a str, f64)> {
    let (name, base) = first.metrics.first()?;
    let (own, value) = m.metrics.iter().find(|(n, _)| n == name)?;
    (*base != 0.0).then(|| (own.as_str(), value / base))
}

/// What the acceptance rules say of a ratio to the float model.
fn verdict(ratio: f64) -> &'static str {
    if ratio >= 0.99 {
        "accepted (at least 0.99)"
    } else if ratio > 0.95 {
        "below 0.99: raise the most sensitive layers, or train with frozen scales"
    } else if ratio >= 0.8 {
        "below 0.95: tune observers and data types"
    } else {
        "below 0.8: look for a fault first"
    }
}

/// The JSON of the samples that could not be read.
pub(super) fn skipped_json(report: &EvalReport) -> Vec<Value> {
    report.skipped.iter().map(|s| json!({ "sample": s.sample, "reason": s.reason })).collect()
}

/// The JSON of what was measured of each model.
pub(super) fn models_json(report: &EvalReport) -> Vec<Value> {
    let first = &report.models[0];
    let describe = |m: &ModelReport| {
        let metrics: Map<String, Value> = m.metrics.iter().map(|(k, v)| (k.clone(), number(*v))).collect();
        let agreement: Map<String, Value> = m
            .agreement
            .iter()
            .map(|(output, a)| {
                let v = json!({
                    "argmax": number(a.argmax),
                    "cosine": number(a.cosine),
                    "sqnr_db": number(a.sqnr_db),
                    "max_abs": number(a.max_abs),
                });
                (output.clone(), v)
            })
            .collect();
        let ratio = ratio(m, first).map(|(_, r)| r).filter(|_| !std::ptr::eq(m, first));
        json!({
            "path": m.label,
            "stage": m.stage,
            "state": m.state,
            "frames": m.frames,
            "seconds": (m.timed > 0).then_some(m.busy.as_secs_f64()),
            "images_per_second": (m.timed > 0).then(|| number(m.rate())),
            "metrics": metrics,
            "agreement": agreement,
            "ratio": ratio.map(number),
            "verdict": ratio.map(verdict),
            "warnings": m.warnings,
            "nan": super::nan_json(&m.nans),
        })
    };
    report.models.iter().map(describe).collect()
}
