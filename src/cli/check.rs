//! `samebit check`: the report of what is worth a look.

use super::calibrate::skipped;
use super::files::Files;
use super::model::CutArgs;
use super::{Common, Outcome, number, show};
use crate::analysis::calibrate::{Observed, PassOptions, fill, observe};
use crate::analysis::check::{Cell, Known, Report, Severity, check};
use crate::atomic::write_atomic;
use crate::data::Dataset;
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::{Graph, Stage, text};
use crate::passes::config::QuantConfig;
use crate::passes::prepare::prepare_model;
use clap::Args;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Name of the text report.
const FILE: &str = "model_check_result.txt";

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Model: ONNX or a graph file; a float model is prepared by the configuration first
    model: PathBuf,
    /// Quantization configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data set whose ranges are looked at, too
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Take the ranges from this statistics file of `calibrate --stats`
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    from_stats: Option<PathBuf>,
    /// Frames that cannot be read do not make the exit code 1
    #[arg(long)]
    allow_skips: bool,
    /// Folder for model_check_result.txt
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

impl CheckArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let given = [&self.config, &self.data, &self.from_stats];
        given
            .into_iter()
            .flatten()
            .fold(Files::default().fills("--out", self.out.as_deref()).reads(&self.model), |files, path| {
                files.reads(path)
            })
    }
}

pub(super) fn run(args: &CheckArgs) -> Result<Outcome, Error> {
    let loaded = args.cut.load_one(&args.model)?;
    let about = |e: &dyn std::fmt::Display| Error::Usage(format!("{}: {e}", args.model.display()));
    let config = match &args.config {
        Some(path) => QuantConfig::load(path).map_err(|e| Error::Usage(e.to_string()))?,
        None => QuantConfig::default(),
    };
    let (mut device, mut observed) = (None, None);
    let (graph, report) = if loaded.stage == Stage::Float {
        let (float, prepared) = prepare_model(&loaded, &config).map_err(|e| about(&e))?;
        observed = match (&args.from_stats, &args.data) {
            (Some(path), _) => Some(Observed::from_file(path, &float)?),
            (None, Some(path)) => Some(pass(args, &config, &float, path, &mut device)?),
            (None, None) => None,
        };
        let statistics = observed.as_ref().map(|o| &o.statistics);
        let graph = match &observed {
            Some(o) => fill(&prepared, &o.statistics.tensors, &o.moving)?.graph,
            None => prepared.graph,
        };
        let known =
            Known { unfused: &prepared.unfused, forced: &prepared.forced, statistics, finished: false };
        let report = check(&graph, known);
        (graph, report)
    } else {
        if args.config.is_some() || args.data.is_some() || args.from_stats.is_some() {
            let what = "has quantizers already: --config, --data and --from-stats are for float models";
            return Err(about(&what));
        }
        let known = Known { finished: true, ..Known::default() };
        let report = check(&loaded, known);
        (loaded, report)
    };
    let assumed = config.target.is_none().then_some("samebit");
    let text = text_of(&graph, &report, assumed);
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
        let path = dir.join(FILE);
        write_atomic(&path, |w| w.write_all(text.as_bytes())).map_err(|source| Error::Io { path, source })?;
    }
    if !args.common.quiet {
        if args.out.is_none() {
            show::line(&text);
        } else {
            show::line(&findings_text(&report, assumed));
        }
    }
    let sections: Map<String, Value> =
        report.sections.iter().map(|s| (s.key.to_owned(), rows(&s.header, &s.rows))).collect();
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|f| json!({ "rule": f.rule, "severity": f.severity.name(), "node": f.node, "message": f.message }))
        .collect();
    let mut sections = sections;
    sections.insert("graph".to_owned(), text::print(&graph).into());
    let skipped = observed.as_ref().map(|o| skipped(&o.statistics)).unwrap_or_default();
    let json = json!({
        "stage": graph.stage.name(),
        "target_assumed": assumed,
        "device": device,
        "dispatches": observed.as_ref().map_or(0, |o| o.dispatches),
        "cpu_ops": super::cpu_ops(observed.iter().flat_map(|o| &o.cpu_ops)),
        "skipped": skipped,
        "sections": sections,
        "findings": findings,
    });
    let unread = !skipped.is_empty() && !args.allow_skips;
    let not_good = unread || report.findings.iter().any(|f| f.severity == Severity::Error);
    Ok(Outcome { json, not_good })
}

fn pass(
    args: &CheckArgs,
    config: &QuantConfig,
    graph: &Graph,
    path: &std::path::Path,
    used: &mut Option<String>,
) -> Result<Observed, Error> {
    let mut data = Dataset::open(path)?;
    if let Some(n) = args.limit {
        data = data.limit(n);
    }
    let device = Device::open(&args.common.device)?;
    *used = Some(device.to_string());
    let mut progress = show::Progress::new(args.common.quiet, "check", data.len());
    let observers = config.observers().map(str::to_owned).collect();
    let options = PassOptions { observers, ..PassOptions::default() };
    observe(graph, &device, &data, &options, |done| progress.set(done))
}

fn rows(header: &[&str], rows: &[Vec<Cell>]) -> Value {
    let cell = |c: &Cell| match c {
        Cell::Text(text) => text.as_str().into(),
        Cell::Count(n) => (*n).into(),
        Cell::Number(x) => number(f64::from(*x)),
        Cell::Empty => Value::Null,
    };
    let row = |r: &Vec<Cell>| -> Value {
        header.iter().zip(r).map(|(k, v)| ((*k).to_owned(), cell(v))).collect::<Map<_, _>>().into()
    };
    rows.iter().map(row).collect()
}

fn findings_text(report: &Report, assumed: Option<&str>) -> String {
    let mut out = String::new();
    if let Some(target) = assumed {
        let _ = writeln!(out, "No target was given: {target} is assumed.");
    }
    let _ = writeln!(out, "Findings: {}", report.findings.len());
    for f in &report.findings {
        let _ = writeln!(out, "  {} [{}] {}: {}", f.severity.name(), f.rule, f.node, f.message);
    }
    out.trim_end().to_owned()
}

fn text_of(graph: &Graph, report: &Report, assumed: Option<&str>) -> String {
    let mut out = String::new();
    for s in &report.sections {
        let _ = writeln!(out, "{}", s.title);
        if s.rows.is_empty() {
            let _ = writeln!(out, "  none\n");
            continue;
        }
        let rows: Vec<Vec<String>> =
            s.rows.iter().map(|r| r.iter().map(ToString::to_string).collect()).collect();
        let header: Vec<String> = s.header.iter().map(|h| (*h).to_owned()).collect();
        let _ = writeln!(out, "{}\n", show::table(&header, &rows, s.header.len()));
    }
    let _ = writeln!(out, "8. The graph\n{}", text::print(graph));
    let _ = writeln!(out, "{}", findings_text(report, assumed));
    out
}
