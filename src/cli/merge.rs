//! `samebit merge`: partial results into one.

use super::eval::{models_json, print, skipped_json};
use super::files::Files;
use super::{Common, Outcome, show};
use crate::analysis::partial::merge;
use crate::analysis::statistics::{self, Statistics};
use crate::error::Error;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Partial results (`eval --partial`) or statistics (`calibrate --stats`) of disjoint shards, in any order; results of
    /// `merge` are such, too
    #[arg(required = true)]
    partial: Vec<PathBuf>,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Score the outputs with this command, in place of the one that `eval` was given; for partial results alone
    #[arg(long, value_name = "CMD")]
    scorer: Option<String>,
    /// Frames that could not be read do not make the exit code 1
    #[arg(long)]
    allow_skips: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

impl MergeArgs {
    pub(super) fn files(&self) -> Files<'_> {
        // The output may replace one of the parts.
        let output = self.output.canonicalize().ok();
        let parts = self.partial.iter().filter(|p| p.canonicalize().ok() != output);
        parts.fold(Files::default(), |f, path| f.reads(path)).keeps("-o", Some(&self.output))
    }
}

pub(super) fn run(args: &MergeArgs) -> Result<Outcome, Error> {
    if args.partial.first().is_some_and(|p| Statistics::is_statistics(p)) {
        return statistics(args);
    }
    let merged = merge(&args.partial, &args.output, args.scorer.as_deref())?;
    let (frames, set) = (merged.frames, &merged.shards);
    let out = args.output.display();
    show::line(&format!("{out}: {} of {} shards, {frames} frames", set.indices.len(), set.of));
    match &merged.eval {
        Some(report) => print(report, args.common.quiet),
        None => show::line(&format!("no figures yet: {} missing", set.missing_text())),
    }
    if merged.devices.len() > 1 && !args.common.quiet {
        let all = merged.devices.join(", ");
        show::remark(&format!("run on {all}: float results may differ between devices by rounding"));
    }
    let reports = merged.eval.as_ref().map(|e| e.models.as_slice()).unwrap_or_default();
    let skipped = merged.eval.as_ref().map(skipped_json).unwrap_or_default();
    let not_good = !skipped.is_empty() && !args.allow_skips;
    let json = json!({
        "frames": frames,
        "shards": set.indices,
        "of": set.of,
        "missing": set.missing().collect::<Vec<_>>(),
        "devices": merged.devices,
        "dispatches": reports.iter().map(|m| m.dispatches).sum::<u64>(),
        "cpu_ops": super::cpu_ops(reports.iter().flat_map(|m| &m.cpu_ops)),
        "models": merged.eval.as_ref().map(models_json).unwrap_or_default(),
        "skipped": skipped,
    });
    Ok(Outcome { json, not_good })
}

/// Joins statistics of calibration.
fn statistics(args: &MergeArgs) -> Result<Outcome, Error> {
    if args.scorer.is_some() {
        let first = args.partial[0].display();
        return Err(Error::Usage(format!(
            "{first}: holds statistics, which --scorer cannot score: leave it out"
        )));
    }
    let all = statistics::merge(&args.partial, &args.output)?;
    let (set, frames) = (&all.shards, all.frames());
    let out = args.output.display();
    show::line(&format!("{out}: {} of {} shards, {frames} frames", set.indices.len(), set.of));
    if !set.is_complete() {
        show::line(&format!("not usable yet: {} missing", set.missing_text()));
    }
    for s in &all.skipped {
        show::remark(&format!("skipped {}: {}", s.sample, s.reason));
    }
    let json = json!({
        "frames": frames,
        "shards": set.indices,
        "of": set.of,
        "missing": set.missing().collect::<Vec<_>>(),
        "skipped": all.skipped.iter().map(|s| json!({ "sample": s.sample, "reason": s.reason })).collect::<Vec<_>>(),
    });
    Ok(Outcome { json, not_good: !all.skipped.is_empty() && !args.allow_skips })
}
