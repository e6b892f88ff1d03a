//! `samebit calibrate`: from a float model and a data set to a fake-quant graph with frozen scales.

use super::files::Files;
use super::model::{CutArgs, target_profile};
use super::output::{save_graph, shown};
use super::{Common, Outcome, number, show};
use crate::analysis::calibrate::{Observed, PassOptions, QuantizerReport, fill, is_constant, observe};
use crate::analysis::ranges::{Applied, Ranges};
use crate::analysis::statistics::Statistics;
use crate::data::Dataset;
use crate::data::shards::Shard;
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::{Graph, NodeId, Stage, Target};
use crate::observers;
use crate::passes::config::{ObserverText, QuantConfig};
use crate::passes::convert::check_types;
use crate::passes::prepare::{Prepared, prepare_model, recalibration};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct CalibrateArgs {
    /// Float model, or one with quantizers, of which those with scales keep them: ONNX or a graph file
    model: PathBuf,
    /// Data set to calibrate on: a TOML file, a folder of images, a list of images (.txt), an npy or npz
    #[arg(long, value_name = "DATA", required_unless_present_any = ["from_stats", "ranges"])]
    data: Option<PathBuf>,
    /// Quantization configuration (TOML): preset and rules
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Target whose arithmetic is simulated (overrides the configuration)
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Consistency level (overrides the configuration)
    #[arg(long, value_name = "0..4", value_parser = clap::value_parser!(u8).range(0..=4))]
    consistency: Option<u8>,
    /// Take the scales of the tensors that this JSON file names (see `save-ranges`), whatever the configuration says of
    /// them; the others are observed
    #[arg(long, value_name = "FILE", conflicts_with = "shard")]
    ranges: Option<PathBuf>,
    /// What finds ranges (overrides the configuration): minmax, percentile=99.99, mse, kl, mix, clip_std=3, norm=2,4.5,
    /// or moving_average=0.01, which follows the frames in order, --batch at a time if given, else one
    #[arg(long, value_name = "NAME")]
    observer: Option<String>,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Frames that run together (default: chosen from the model and the device)
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Keep the statistics in this file, saved every few seconds
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Take the statistics from this file instead of running the data: another observer or configuration in a moment
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "stats", "shard", "resume", "limit"])]
    from_stats: Option<PathBuf>,
    /// Observe only samples I, I+N, I+2N, ..., and write no graph; `merge` joins the statistics of all N
    #[arg(long, value_name = "I/N", requires = "stats", conflicts_with = "output")]
    shard: Option<Shard>,
    /// Go on with the file given by --stats; without one, start it
    #[arg(long, requires = "stats")]
    resume: bool,
    /// Frames that cannot be read do not make the exit code 1
    #[arg(long)]
    allow_skips: bool,
    /// Graph file to write; - is standard output
    #[arg(short, long, value_name = "FILE", required_unless_present = "shard")]
    output: Option<PathBuf>,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

impl CalibrateArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let given = [&self.config, &self.data, &self.from_stats, &self.ranges];
        let files =
            given.into_iter().flatten().fold(Files::default().reads(&self.model), |f, path| f.reads(path));
        files.keeps("--stats", self.stats.as_deref()).writes_binary("-o", self.output.as_deref())
    }
}

pub(super) fn run(args: &CalibrateArgs) -> Result<Outcome, Error> {
    if args.batch == Some(0) || args.limit == Some(0) {
        return Err(Error::Usage("--batch and --limit must be at least 1".into()));
    }
    let config = config(args)?;
    let given = args.ranges.as_deref().map(Ranges::load).transpose().map_err(Error::Usage)?;
    let loaded = args.cut.load_one(&args.model)?;
    let mut applied = Applied::default();
    let (graph, prepared) = if loaded.stage == Stage::Float {
        // Rules that match nothing are seen before the data is run.
        let (graph, mut prepared) = prepare_model(&loaded, &config).map_err(|e| about(args, &e))?;
        if let (Some(given), Some(path)) = (&given, &args.ranges) {
            let done = given.apply(&mut prepared.graph, &loaded);
            applied = done.map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
        }
        (graph, prepared)
    } else if loaded.stage != Stage::FakeQuant {
        let what = "its scales are part of its operators: calibrate the float model";
        let stage = loaded.stage.name();
        return Err(Error::Usage(format!("{}: is in stage {stage}: {what}", args.model.display())));
    } else {
        if args.config.is_some() || args.ranges.is_some() {
            let what =
                "has quantizers already, which --config and --ranges would change: calibrate the float model";
            return Err(Error::Usage(format!("{}: {what}", args.model.display())));
        }
        if let Some(level) = args.consistency.filter(|l| [2, 3].contains(l)) {
            let what =
                "its imported scales are no powers of two; supported for models with quantizers: 0, 1, 4";
            return Err(Error::Usage(format!("{}: --consistency {level}: {what}", args.model.display())));
        }
        let profile = config.profile().map_err(|e| about(args, &e))?;
        let target = Target { profile, level: config.level() };
        recalibration(loaded, args.observer.as_deref(), target).map_err(|e| about(args, &e))?
    };
    if let Some(target) = &prepared.graph.target {
        // What `convert` would refuse after the data was run.
        check_types(&prepared.graph, &target.profile).map_err(|e| about(args, &e))?;
    }
    let device = Device::open(&args.common.device)?;
    let observed = match (&args.from_stats, &args.data) {
        (Some(path), _) => Observed::from_file(path, &graph)?,
        (None, Some(path)) => pass(args, &config, &graph, &device, path)?,
        (None, None) => {
            all_given(&prepared)?;
            Observed::nothing()
        }
    };
    let statistics = &observed.statistics;
    let Some(output) = &args.output else {
        return Ok(shard_outcome(args, &observed, &device));
    };
    if let Some(missing) = statistics.missing() {
        return Err(Error::Usage(format!("the statistics are incomplete: {missing}")));
    }
    let ran = args.data.is_some() || args.from_stats.is_some();
    if ran && statistics.frames() == 0 {
        return Err(Error::Usage("no frame could be read: there is nothing to calibrate on".into()));
    }
    let calibrated = fill(&prepared, &statistics.tensors, &observed.moving)?;
    save_graph(&calibrated.graph, output)?;
    let warnings = warnings(&observed, &calibrated.quantizers, &applied);
    if !args.common.quiet {
        print(args, &prepared, &calibrated.quantizers, statistics);
        warnings.iter().for_each(|w| show::remark(w));
    }
    let json = json!({
        "stage": calibrated.graph.stage.name(),
        "state": "validation",
        "frames": statistics.frames(),
        "seconds": observed.busy.as_secs_f64(),
        "device": device.to_string(),
        "dispatches": observed.dispatches,
        "host_bytes": super::memory::peak_bytes(),
        "arena_bytes": observed.arena_bytes,
        "cpu_ops": super::cpu_ops(&observed.cpu_ops),
        "quantizers": calibrated.quantizers.iter().map(quantizer_json).collect::<Vec<_>>(),
        "unfused": unfused(&graph, &prepared),
        "composites": prepared.composites.iter().map(|c| json!({
            "kind": c.kind, "id": c.node.0, "node": name_of(&calibrated.graph, c.node), "internals": c.internals,
        })).collect::<Vec<_>>(),
        "forced": prepared.forced.iter().map(|f| json!({
            "node": f.node, "asked": f.asked.name(), "reason": f.reason,
        })).collect::<Vec<_>>(),
        "skipped": skipped(statistics),
        "warnings": warnings,
    });
    Ok(Outcome { json, not_good: !statistics.skipped.is_empty() && !args.allow_skips })
}

fn about(args: &CalibrateArgs, e: &dyn std::fmt::Display) -> Error {
    let path = args.config.as_ref().unwrap_or(&args.model);
    Error::Usage(format!("{}: {e}", path.display()))
}

fn config(args: &CalibrateArgs) -> Result<QuantConfig, Error> {
    let mut config = match &args.config {
        Some(path) => QuantConfig::load(path).map_err(|e| Error::Usage(e.to_string()))?,
        None => QuantConfig::default(),
    };
    if let Some(observer) = &args.observer {
        config.observer = Some(ObserverText(observer.clone()));
    }
    config.target = args.target.clone().or(config.target);
    config.profile = config.target.as_deref().map(target_profile).transpose()?;
    config.consistency = args.consistency.or(config.consistency);
    for text in config.observers() {
        observers::parse(text).map_err(|e| Error::Usage(e.to_string()))?;
    }
    Ok(config)
}

fn pass(
    args: &CalibrateArgs,
    config: &QuantConfig,
    graph: &Graph,
    device: &Device,
    path: &std::path::Path,
) -> Result<Observed, Error> {
    let mut data = Dataset::open(path)?;
    if let Some(n) = args.limit {
        data = data.limit(n);
    }
    if !args.common.quiet {
        show::remark(&format!("{} samples of {}, on {device}", data.len(), data.name()));
        data.notes().iter().for_each(|note| show::remark(note));
    }
    let samples = data.shard(args.shard.unwrap_or(Shard::WHOLE)).len();
    let options = PassOptions {
        batch: args.batch,
        shard: args.shard,
        stats: args.stats.clone(),
        resume: args.resume,
        observers: config.observers().map(str::to_owned).collect(),
    };
    let mut progress = show::Progress::new(args.common.quiet, "calibrate", samples);
    observe(graph, device, &data, &options, |done| progress.set(done))
}

fn shard_outcome(args: &CalibrateArgs, observed: &Observed, device: &Device) -> Outcome {
    let statistics = &observed.statistics;
    let set = &statistics.shards;
    if !args.common.quiet {
        let file = args.stats.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let shards: Vec<String> = set.indices.iter().map(|i| format!("{i}/{}", set.of)).collect();
        show::line(&format!("{file}: shard {}, {} frames", shards.join(", "), statistics.frames()));
        show::remark("`samebit merge` joins the shards, `samebit calibrate --from-stats` makes the graph");
    }
    let json = json!({
        "frames": statistics.frames(),
        "seconds": observed.busy.as_secs_f64(),
        "device": device.to_string(),
        "dispatches": observed.dispatches,
        "host_bytes": super::memory::peak_bytes(),
        "arena_bytes": observed.arena_bytes,
        "cpu_ops": super::cpu_ops(&observed.cpu_ops),
        "shards": set.indices,
        "of": set.of,
        "skipped": skipped(statistics),
    });
    Outcome { json, not_good: !statistics.skipped.is_empty() && !args.allow_skips }
}

pub(super) fn skipped(statistics: &Statistics) -> Vec<Value> {
    statistics.skipped.iter().map(|s| json!({ "sample": s.sample, "reason": s.reason })).collect()
}

fn warnings(observed: &Observed, quantizers: &[QuantizerReport], applied: &Applied) -> Vec<String> {
    const NAMED: usize = 5;
    let own = quantizers.iter().filter_map(|q| Some(format!("{} {}: {}", q.id, q.name, q.warning.as_ref()?)));
    let idle = (!applied.idle.is_empty()).then(|| {
        let named = applied.idle.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if applied.idle.len() > NAMED { ", ..." } else { "" };
        format!("--ranges: {} tensors of the file are not quantized here: {named}{more}", applied.idle.len())
    });
    let nothing =
        "nothing is quantized: no operator has an integer form here, or rules keep all of them in float";
    let nothing = quantizers.is_empty().then(|| nothing.to_owned());
    let given = applied.warnings.iter().map(|w| format!("--ranges: {w}"));
    observed.warnings.iter().cloned().chain(nothing).chain(own).chain(idle).chain(given).collect()
}

/// Refuses quantizers whose scale nothing gives.
fn all_given(prepared: &Prepared) -> Result<(), Error> {
    const NAMED: usize = 5;
    let open = prepared.graph.nodes().iter().filter(|n| n.quantizer().is_some_and(|q| q.params.is_none()));
    let open: Vec<&str> = open.filter_map(|n| prepared.observed.get(&n.id)).map(String::as_str).collect();
    if open.is_empty() {
        return Ok(());
    }
    let named = open[..open.len().min(NAMED)].join(", ");
    let more = if open.len() > NAMED { format!(" and {} more", open.len() - NAMED) } else { String::new() };
    Err(Error::Usage(format!(
        "--ranges has no scale for {named}{more}: give --data, which they are observed on"
    )))
}

fn name_of(graph: &Graph, id: NodeId) -> String {
    graph.node(id).map(|n| n.name.clone()).unwrap_or_default()
}

fn unfused(graph: &Graph, prepared: &Prepared) -> Vec<Value> {
    let name = |id| name_of(graph, id);
    let one = |u: &crate::passes::fuse::Unfused| {
        let nodes: Vec<String> = u.nodes.iter().map(|id| name(*id)).collect();
        json!({ "nodes": nodes, "reason": u.reason.text() })
    };
    prepared.unfused.iter().map(one).collect()
}

fn quantizer_json(q: &QuantizerReport) -> Value {
    let spec = &q.quantizer.spec;
    let params = q.quantizer.params.as_ref();
    json!({
        "id": q.id.0,
        "name": q.name,
        "role": spec.role.name(),
        "dtype": spec.dtype.name(),
        "scale": params.map(|p| p.scales().to_vec()).unwrap_or_default(),
        "zero_point": params.map(|p| p.zero_points().to_vec()).unwrap_or_default(),
        "axis": spec.axis,
        "owner": spec.owner,
        "observer": spec.observer,
        "origin": q.quantizer.origin.name(),
        "min": q.range.map(|r| number(f64::from(r.low))),
        "max": q.range.map(|r| number(f64::from(r.high))),
        "clipped": q.clipped.map(number),
    })
}

fn print(args: &CalibrateArgs, prepared: &Prepared, quantizers: &[QuantizerReport], statistics: &Statistics) {
    let header =
        ["id", "quantizer", "role", "dtype", "scale", "observer", "min", "max", "clipped"].map(str::to_owned);
    let rows: Vec<Vec<String>> = quantizers
        .iter()
        .filter(|q| !is_constant(q.quantizer.spec.role))
        .map(|q| {
            let spec = &q.quantizer.spec;
            let scale =
                q.quantizer.params.as_ref().map_or("-".to_owned(), |p| format!("{:.6e}", p.scales()[0]));
            let end = |v: Option<f32>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
            vec![
                q.id.to_string(),
                q.name.clone(),
                spec.role.to_string(),
                spec.dtype.to_string(),
                scale,
                spec.observer.clone(),
                end(q.range.map(|r| r.low)),
                end(q.range.map(|r| r.high)),
                q.clipped.map_or("-".to_owned(), |c| format!("{:.4} %", 100.0 * c)),
            ]
        })
        .collect();
    show::line(&show::table(&header, &rows, 4));
    let weights = quantizers.len() - rows.len();
    let out = args.output.as_ref().map(|p| shown(p).display().to_string()).unwrap_or_default();
    show::line(&format!(
        "{out}: {} quantizers of activations, {weights} of constants, from {} frames; state validation",
        rows.len(),
        statistics.frames()
    ));
    for f in &prepared.forced {
        show::remark(&format!("{}: {} was asked for: {}", f.node, f.asked, f.reason));
    }
    for s in &statistics.skipped {
        show::remark(&format!("skipped {}: {}", s.sample, s.reason));
    }
}
