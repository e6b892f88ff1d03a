//! `samebit merge`: partial results into one.

use super::eval::{models_json, print, skipped_json};
use super::{Common, Outcome, show};
use crate::analysis::partial::merge;
use crate::analysis::statistics::{self, Statistics};
use crate::error::Error;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Partial results of disjoint shards, in any order; results of `merge` are such, too
    #[arg(required = true)]
    partial: Vec<PathBuf>,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Frames that could not be read do not make the exit code 1
    #[arg(long)]
    allow_skips: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(args: &MergeArgs) -> Result<Outcome, Error> {
    if args.common.json.as_ref() == Some(&args.output) {
        return Err(Error::Usage(format!("-o {}: is the --json file, too", args.output.display())));
    }
    if args.partial.first().is_some_and(|p| Statistics::is_statistics(p)) {
        return statistics(args);
    }
    let merged = merge(&args.partial, &args.output)?;
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
    let skipped = merged.eval.as_ref().map(skipped_json).unwrap_or_default();
    let not_good = !skipped.is_empty() && !args.allow_skips;
    let json = json!({
        "frames": frames,
        "shards": set.indices,
        "of": set.of,
        "missing": set.missing().collect::<Vec<_>>(),
        "devices": merged.devices,
        "models": merged.eval.as_ref().map(models_json).unwrap_or_default(),
        "skipped": skipped,
    });
    Ok(Outcome { json, not_good })
}

/// Joins statistics of calibration.
fn statistics(args: &MergeArgs) -> Result<Outcome, Error> {
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
