//! What the benches share: devices, models, random inputs, the Python of the peers.

#![allow(dead_code, reason = "each bench uses a part")]

use samebit::gpu::{Choice, Device};
use samebit::graph::sample::{Fill, Rng, SampleInput};
use samebit::graph::{Graph, ValueId};
use samebit::tensor::{Dim, Tensor};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether a row is asked for on the command line; all are without a filter.
pub fn wanted() -> impl Fn(&str) -> bool {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    move |name| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()))
}

/// The CPU, and a GPU if there is one, a software one included.
pub fn devices() -> Vec<Device> {
    let devices: Vec<Device> =
        [Choice::Cpu, Choice::Gpu].iter().filter_map(|c| Device::open(c).ok()).collect();
    for d in &devices {
        println!("device: {d}");
    }
    devices
}

/// The folder of the example data.
pub fn shared() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("SAMEBIT_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from)
}

/// The models that are there.
pub fn model_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = vec![root.join("assets/quickstart/digits.onnx")];
    out.extend(resnet18());
    if let Ok(dir) = std::fs::read_dir(shared().join("data/models")) {
        let mut models: Vec<PathBuf> = dir.flatten().map(|e| e.path()).collect();
        models.sort();
        out.extend(models);
    }
    out
}

/// A model of the shapes of ResNet-18, which is made where it is not there.
pub fn resnet18() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let resnet = root.join("target/resnet18.onnx");
    if !resnet.exists()
        && let Some(python) = peer_python()
    {
        let script = root.join("scripts/resnet18_shapes.py");
        let done = Command::new(python).arg(script).arg(&resnet).status();
        if !done.is_ok_and(|s| s.success()) {
            println!("scripts/resnet18_shapes.py did not run (it needs the package onnx): no ResNet-18");
        }
    }
    resnet.exists().then_some(resnet)
}

/// Uniform values in 0..1 for every input.
pub fn random_inputs(graph: &Graph, batch: usize) -> Vec<Tensor> {
    let mut rng = Rng::new(3);
    let draw = |id: &ValueId| {
        let ty = &graph.value(*id).ty;
        let shape: Vec<usize> = ty.shape.iter().map(|d: &Dim| d.at(batch).expect("small")).collect();
        SampleInput::of(shape, Fill::Range(0.0, 1.0)).draw(&mut rng)
    };
    graph.inputs.iter().map(draw).collect()
}

/// The Python that has the peers' packages.
pub fn peer_python() -> Option<PathBuf> {
    std::env::var_os("SAMEBIT_PEER_PYTHON").map(PathBuf::from)
}

/// A device in a word.
pub fn short(device: &Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Gpu(gpu) => gpu.adapter.name.clone(),
    }
}

/// How many threads work by default.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// ONNX Runtime's images per second on the CPU, on random inputs.
pub fn onnxruntime(model: &Path, batch: usize, threads: usize) -> Option<f64> {
    peer(&peer_python()?, "onnxruntime_peer.py", model, batch, threads, &["--random"])
}

/// PPQ's images per second on the CPU in its simulation, by the Python that `SAMEBIT_PPQ_PYTHON` names.
pub fn ppq(model: &Path, frame: &[usize], batch: usize, threads: usize) -> Option<f64> {
    let python = std::env::var_os("SAMEBIT_PPQ_PYTHON").map(PathBuf::from)?;
    let shape = frame.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    peer(&python, "ppq_peer.py", model, batch, threads, &["--shape", &shape])
}

fn peer(
    python: &Path,
    script: &str,
    model: &Path,
    batch: usize,
    threads: usize,
    more: &[&str],
) -> Option<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(script);
    let (batch, threads) = (batch.to_string(), threads.to_string());
    let output = Command::new(python)
        .arg(script)
        .arg(model)
        .args(["--threads", &threads, "--batch", &batch])
        .args(more)
        .output()
        .ok()?;
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    line.get("images_per_second")?.as_f64()
}
