//! `samebit convert`: operators on codes in place of quantizers.

use super::files::Files;
use super::model::target_profile;
use super::{Common, Outcome, output, show};
use crate::analysis::accumulators::Accumulators;
use crate::data::{Dataset, Loader, LoaderOptions};
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::{Graph, NodeId, Op};
use crate::model;
use crate::onnx::ImportOptions;
use crate::passes::convert::{ConvertOptions, Converted, convert};
use clap::Args;
use globset::Glob;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// Calibrated graph file, or an ONNX model with quantizers
    model: PathBuf,
    /// Graph file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Whose arithmetic it has: a profile that comes with the engine, or a TOML file of one (default: the one that the
    /// graph was calibrated for)
    #[arg(long, value_name = "PROFILE")]
    target: Option<String>,
    /// Nodes that stay in f32 between quantizers
    #[arg(long, value_name = "GLOB")]
    preserve: Vec<String>,
    /// Run this data set, too, and tell the largest sums that it gives beside the bounds
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    /// Use the first N samples of it only
    #[arg(long, value_name = "N", requires = "data")]
    limit: Option<usize>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ConvertArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let data = self.data.iter().map(PathBuf::as_path);
        data.fold(Files::default(), Files::reads).reads(&self.model).writes_binary("-o", Some(&self.output))
    }
}

fn preserved(graph: &Graph, patterns: &[String]) -> Result<HashSet<NodeId>, Error> {
    let mut out = HashSet::new();
    for pattern in patterns {
        let wrong = |e: String| Error::Usage(format!("--preserve {pattern}: {e}"));
        let glob = Glob::new(pattern).map_err(|e| wrong(e.to_string()))?.compile_matcher();
        let before = out.len();
        out.extend(graph.nodes().iter().filter(|n| glob.is_match(&n.name)).map(|n| n.id));
        if out.len() == before {
            return Err(wrong("matches no node; `samebit print` lists them".to_owned()));
        }
    }
    Ok(out)
}

pub(super) fn run(args: &ConvertArgs) -> Result<Outcome, Error> {
    let graph = model::load(&args.model, &ImportOptions::default())?;
    let profile = args.target.as_deref().map(target_profile).transpose()?;
    let options = ConvertOptions { profile, preserve: preserved(&graph, &args.preserve)? };
    let wrong = |e| Error::Usage(format!("{}: {e}", args.model.display()));
    let converted = convert(&graph, &options).map_err(wrong)?;
    let observed = args.data.as_deref().map(|data| observed(args, &converted.graph, data)).transpose()?;
    let observed = observed.unwrap_or_default();
    output::save_graph(&converted.graph, &args.output)?;
    if !args.common.quiet {
        report(args, &converted, &observed);
    }
    Ok(Outcome::fine(summary(&converted, &observed)))
}

/// The largest magnitudes of the sums of products on a data set, by the names of these.
fn observed(args: &ConvertArgs, graph: &Graph, path: &Path) -> Result<HashMap<String, u64>, Error> {
    let data = Dataset::open(path)?.limit(args.limit.unwrap_or(usize::MAX));
    let inputs = graph.inputs.iter().map(|v| (graph.value(*v).name.clone(), graph.value(*v).ty.clone()));
    let bound = data.inputs_for(&inputs.collect::<Vec<_>>())?;
    let mut sums = Accumulators::new(graph.clone(), &Device::open(&args.common.device)?)?;
    let options = LoaderOptions { batch: sums.batch()?, ..LoaderOptions::default() };
    let mut progress = show::Progress::new(args.common.quiet, "convert", data.len());
    let mut done = 0;
    for batch in Loader::new(bound, options)? {
        let batch = batch?;
        sums.run(&batch.inputs)?;
        done += batch.frames();
        progress.set(done);
    }
    if done == 0 {
        return Err(Error::Usage(format!("{}: has no frame to observe", path.display())));
    }
    Ok(sums.finish().into_iter().collect())
}

fn integer_ops(graph: &Graph) -> usize {
    let on_codes = |op: &dyn Op| op.codes().is_some() && op.def().name != "Quantize";
    graph.nodes().iter().filter(|n| on_codes(n.op.as_ref())).count()
}

fn report(args: &ConvertArgs, c: &Converted, observed: &HashMap<String, u64>) {
    let (on_codes, islands) = (integer_ops(&c.graph), c.islands.len());
    show::line(&format!(
        "{}: {} nodes, {on_codes} operators on codes, {islands} in f32",
        output::shown(&args.output).display(),
        c.graph.nodes().len()
    ));
    for island in &c.islands {
        show::line(&format!("  in f32: {} ({}): {}", island.node, island.op, island.reason));
    }
    if let Some(least) = c.accumulators.iter().min_by_key(|a| a.headroom_bits) {
        show::line(&format!(
            "  least headroom of sums: {} of {} bits, at {}",
            least.headroom_bits, least.bits, least.node
        ));
    }
    let shares = c.accumulators.iter().filter_map(|a| Some((a, *observed.get(&a.node)?)));
    if let Some((a, most)) = shares.max_by_key(|(a, most)| most * 1000 / a.bound.max(1)) {
        show::line(&format!("  nearest to its bound on the data: {most} of {}, at {}", a.bound, a.node));
    }
    for a in c.accumulators.iter().filter(|a| a.saturated_bias > 0) {
        show::remark(&format!("warning: {}: {} elements of the bias saturate", a.node, a.saturated_bias));
    }
}

fn summary(c: &Converted, observed: &HashMap<String, u64>) -> serde_json::Value {
    let mut by_op = std::collections::BTreeMap::new();
    for node in c.graph.nodes() {
        let name = node.op.integer_of().map_or(node.op.def().name, |(op, _)| op.def().name);
        *by_op.entry(name).or_insert(0usize) += 1;
    }
    let islands = c.islands.iter().map(|i| json!({ "node": i.node, "op": i.op, "reason": i.reason }));
    let accumulators = c.accumulators.iter().map(|a| {
        json!({
            "node": a.node,
            "bound": a.bound,
            "bits": a.bits,
            "headroom_bits": a.headroom_bits,
            "saturated_bias": a.saturated_bias,
            "observed": observed.get(&a.node),
        })
    });
    json!({
        "stage": c.graph.stage.name(),
        "target": c.graph.target.as_ref().map(|t| &t.profile.name),
        "ops": by_op,
        "integer_ops": integer_ops(&c.graph),
        "float_islands": islands.collect::<Vec<_>>(),
        "accumulators": accumulators.collect::<Vec<_>>(),
    })
}
