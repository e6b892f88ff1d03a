//! `samebit quickstart`: the pipeline on the bundled model and data.

use super::files::Files;
use super::{Common, Outcome, number, show};
use crate::analysis::calibrate::{PassOptions, fill, observe};
use crate::analysis::eval::{Candidate, EvalOptions, eval};
use crate::data::Dataset;
use crate::error::{Error, write_file};
use crate::gpu::{Choice, Device};
use crate::graph::{Graph, file};
use crate::onnx::{ImportOptions, load_model};
use crate::passes::PassError;
use crate::passes::config::QuantConfig;
use crate::passes::prepare::prepare_model;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The bundled files: a digit classifier of our own and scikit-learn's digits.
const FILES: &[(&str, &[u8])] = &[
    ("digits.onnx", include_bytes!("../../assets/quickstart/digits.onnx")),
    ("eval.toml", include_bytes!("../../assets/quickstart/eval.toml")),
    ("eval_x.npy", include_bytes!("../../assets/quickstart/eval_x.npy")),
    ("eval_y.npy", include_bytes!("../../assets/quickstart/eval_y.npy")),
    ("calib.toml", include_bytes!("../../assets/quickstart/calib.toml")),
    ("calib_x.npy", include_bytes!("../../assets/quickstart/calib_x.npy")),
    ("calib_y.npy", include_bytes!("../../assets/quickstart/calib_y.npy")),
    ("README.md", include_bytes!("../../assets/quickstart/README.md")),
];

/// The stage of the calibrated graph.
const FAKE_QUANT: &str = "fake-quant";

#[derive(Debug, Args)]
pub(super) struct QuickstartArgs {
    /// Keep the model, the data and what is made of them in this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl QuickstartArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().fills("--out", self.out.as_deref())
    }
}

pub(super) fn run(args: &QuickstartArgs) -> Result<Outcome, Error> {
    let temporary;
    let dir: &Path = match &args.out {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
            dir
        }
        None => {
            temporary =
                tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
            temporary.path()
        }
    };
    for (name, bytes) in FILES {
        write_file(&dir.join(name), bytes)?;
    }
    let device = Device::open(&args.common.device)?;
    if !args.common.quiet {
        show::remark(&format!(
            "a digit classifier, 200 handwritten digits to calibrate on and 797 to measure it, on {device}"
        ));
    }
    let model = dir.join("digits.onnx");
    let graph = load(&model)?;
    let file_path = dir.join("digits.float.samebit");
    save(&graph, &file_path)?;
    let quantized = dir.join("digits.fake-quant.samebit");
    let mut dispatches = calibrate(&graph, &device, dir, &quantized)?;

    // The model as imported and as read back from its graph file, on the device; and on the CPU where that is another.
    let mut stages =
        vec![("float", model.clone(), device.clone()), ("float, graph file", file_path, device.clone())];
    if !matches!(device, Device::Cpu) {
        stages.push(("float, on the CPU", model, Device::open(&Choice::Cpu)?));
    }
    stages.push((FAKE_QUANT, quantized, device.clone()));
    let data = Dataset::open(&dir.join("eval.toml"))?;
    let mut rows = Vec::new();
    let mut out = Vec::new();
    let mut consistent = true;
    let mut baseline: Option<Vec<(String, f64)>> = None;
    for (stage, path, device) in &stages {
        let candidate = Candidate { label: (*stage).to_owned(), graph: load(path)? };
        let report = eval(vec![candidate], device, &data, &EvalOptions::default(), Vec::new, |_| ())?;
        let m = &report.models[0];
        dispatches += m.dispatches;
        // Eight bits may cost accuracy; nothing else may.
        consistent &= *stage == FAKE_QUANT || baseline.as_ref().is_none_or(|b| *b == m.metrics);
        baseline.get_or_insert_with(|| m.metrics.clone());
        let metric = |name: &str| m.metrics.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, v)| *v);
        rows.push(vec![
            (*stage).to_owned(),
            m.frames.to_string(),
            format!("{:.2} %", 100.0 * metric("top1")),
            format!("{:.2} %", 100.0 * metric("top5")),
            format!("{:.0}", m.rate()),
        ]);
        let metrics: Map<String, Value> = m.metrics.iter().map(|(k, v)| (k.clone(), number(*v))).collect();
        out.push(
            json!({ "stage": stage, "metrics": metrics, "frames": m.frames, "device": device.to_string() }),
        );
    }
    let header = ["stage", "frames", "top-1", "top-5", "frames/s"].map(str::to_owned);
    show::line(&show::table(&header, &rows, 1));
    show::line(if consistent {
        "all float rows agree"
    } else {
        "the float rows differ: see `samebit eval --help`"
    });
    if let Some(dir) = &args.out {
        let d = dir.display();
        show::line(&format!("next: samebit eval {d}/digits.onnx --data {d}/eval.toml"));
    } else if !args.common.quiet {
        show::line(
            "next: samebit eval MODEL.onnx --data DATA.toml (or `quickstart --out DIR` to keep these files)",
        );
    }
    let json = json!({
        "device": device.to_string(),
        "dispatches": dispatches,
        "cpu_ops": [],
        "stages": out,
        "consistent": consistent,
    });
    Ok(Outcome { json, not_good: !consistent })
}

/// Calibrates a float graph on the bundled calibration data, and saves it. Gives the dispatches that it took.
fn calibrate(graph: &Graph, device: &Device, dir: &Path, to: &Path) -> Result<u64, Error> {
    let about = |e: PassError| Error::Pass { path: dir.join("digits.onnx"), source: Box::new(e) };
    let (graph, prepared) = prepare_model(graph, &QuantConfig::default()).map_err(about)?;
    let data = Dataset::open(&dir.join("calib.toml"))?;
    let observed = observe(&graph, device, &data, &PassOptions::default(), |_| ())?;
    let calibrated = fill(&prepared, &observed.statistics.tensors, &observed.moving)?;
    save(&calibrated.graph, to)?;
    Ok(observed.dispatches)
}

fn save(graph: &Graph, path: &Path) -> Result<(), Error> {
    file::save(graph, path).map_err(|source| Error::Save { path: path.to_owned(), source: Box::new(source) })
}

fn load(path: &Path) -> Result<Graph, Error> {
    load_model(path, &ImportOptions::default())
        .map_err(|source| Error::Model { path: path.to_owned(), source: Box::new(source) })
}
