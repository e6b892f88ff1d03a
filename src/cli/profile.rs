//! `samebit profile`: statistics of every tensor.

use super::files::Files;
use super::model::CutArgs;
use super::{Common, Outcome, number, show};
use crate::analysis::calibrate::runnable;
use crate::analysis::profile::{Profile, TensorProfile, profile};
use crate::atomic::write_atomic;
use crate::data::Dataset;
use crate::error::Error;
use crate::gpu::Device;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// Model of any stage: ONNX or a graph file
    model: PathBuf,
    /// Data set: a TOML file, a folder of images, an image, a list of images (.txt), an npy or npz
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Frames that cannot be read do not make the exit code 1
    #[arg(long)]
    allow_skips: bool,
    /// Folder for profile.txt, profile.csv and profile.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

const COLUMNS: [&str; 11] =
    ["tensor", "op", "type", "min", "max", "mean", "std", "zeros", "NaN", "infinite", "scale"];

impl ProfileArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.model).reads(&self.data).fills("--out", self.out.as_deref())
    }
}

pub(super) fn run(args: &ProfileArgs) -> Result<Outcome, Error> {
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit must be at least 1".into()));
    }
    let graph = args.cut.load_one(&args.model)?;
    let stage = graph.stage;
    let graph = runnable(&args.model.display().to_string(), graph)?;
    let mut data = Dataset::open(&args.data)?;
    if let Some(n) = args.limit {
        data = data.limit(n);
    }
    let device = Device::open(&args.common.device)?;
    let mut progress = show::Progress::new(args.common.quiet, "profile", data.len());
    let found = profile(&graph, &device, &data, |done| progress.set(done))?;
    drop(progress);
    let rows: Vec<Vec<String>> = found.tensors.iter().map(row).collect();
    let header = COLUMNS.map(str::to_owned);
    let table = show::table(&header, &rows, 3);
    let json = json!({
        "stage": stage.name(),
        "frames": found.frames,
        "device": device.to_string(),
        "dispatches": found.dispatches,
        "cpu_ops": super::cpu_ops(&found.cpu_ops),
        "tensors": found.tensors.iter().map(tensor_json).collect::<Vec<_>>(),
        "skipped": found.skipped.iter().map(|s| json!({ "sample": s.sample, "reason": s.reason })).collect::<Vec<_>>(),
    });
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
        let csv = csv(&rows).map_err(|source| Error::Io { path: dir.join("profile.csv"), source })?;
        let text = format!("{table}\n");
        let pretty = serde_json::to_string_pretty(&json).expect("plain data");
        for (name, bytes) in [
            ("profile.txt", text.as_bytes()),
            ("profile.csv", csv.as_slice()),
            ("profile.json", pretty.as_bytes()),
        ] {
            let path = dir.join(name);
            write_atomic(&path, |w| w.write_all(bytes)).map_err(|source| Error::Io { path, source })?;
        }
    }
    if !args.common.quiet {
        show::line(&table);
        remarks(&found);
    }
    Ok(Outcome { json, not_good: !found.skipped.is_empty() && !args.allow_skips })
}

fn remarks(found: &Profile) {
    for s in &found.skipped {
        show::remark(&format!("skipped {}: {}", s.sample, s.reason));
    }
    let bad = found.tensors.iter().find(|t| t.summary.nans() + t.summary.infinities() > 0);
    if let Some(t) = bad {
        show::remark(&format!("{} is the first tensor with NaN or infinity", t.name));
    }
}

fn row(t: &TensorProfile) -> Vec<String> {
    let s = &t.summary;
    let end = |v: Option<f32>| v.map_or("-".to_owned(), |v| format!("{v:.5}"));
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    let zeros = s.zeros() as f64 / s.elements().max(1) as f64;
    vec![
        t.name.clone(),
        t.op.clone(),
        t.ty.clone(),
        end(s.range().map(|r| r.low)),
        end(s.range().map(|r| r.high)),
        format!("{:.5}", s.mean()),
        format!("{:.5}", s.deviation()),
        format!("{:.2} %", 100.0 * zeros),
        s.nans().to_string(),
        s.infinities().to_string(),
        t.scale.map_or("-".to_owned(), |v| format!("{v:e}")),
    ]
}

fn tensor_json(t: &TensorProfile) -> Value {
    let s = &t.summary;
    let bins = t.octaves();
    json!({
        "name": t.name,
        "op": t.op,
        "type": t.ty,
        "count": s.elements(),
        "min": s.range().map(|r| r.low),
        "max": s.range().map(|r| r.high),
        "mean": number(s.mean()),
        "var": number(s.deviation().powi(2)),
        "zeros": s.zeros(),
        "nans": s.nans(),
        "infinities": s.infinities(),
        "scale": t.scale.map(|v| vec![v]).unwrap_or_default(),
        "histogram": bins.iter().map(|b| json!([number(b.low), number(b.high), b.count])).collect::<Vec<_>>(),
    })
}

fn csv(rows: &[Vec<String>]) -> std::io::Result<Vec<u8>> {
    let mut w = csv::Writer::from_writer(Vec::new());
    w.write_record(COLUMNS)?;
    for r in rows {
        w.write_record(r)?;
    }
    w.into_inner().map_err(|e| std::io::Error::other(e.to_string()))
}
