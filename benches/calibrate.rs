//! What `calibrate` costs: seconds of observing frames over seconds of a plain run of them, and of the observers that
//! find ranges afterwards; and what a run of the fake-quant graph costs that comes of it.
//!
//! `cargo bench --bench calibrate [-- FILTER] [--frames=N]`. For each model, batch and device, rounds of three runs of the same random
//! frames: the model as `eval` runs it, the graph that `calibrate` makes of it run in the same way, and that graph
//! observed as `calibrate` does. Ratios are medians over rounds.
//!
//! Then `samebit calibrate` on the CPU and ONNX Runtime's three calibrators on the same 64 (or N) frames, each in a process
//! of its own, with the Python that `SAMEBIT_PEER_PYTHON` names: seconds (median of three rounds) and peak memory.

mod subjects;

use samebit::analysis::calibrate::{fill, watched};
use samebit::analysis::moving::Moving;
use samebit::analysis::statistics::Statistics;
use samebit::data::fingerprint::SampleSum;
use samebit::data::shards::{Provenance, Shard};
use samebit::data::{Dataset, Loader, LoaderOptions, write_npy};
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::{Graph, ValueId};
use samebit::onnx::{ImportOptions, load_model};
use samebit::passes::config::QuantConfig;
use samebit::passes::internals::exposed;
use samebit::passes::prepare::{calibration_graph, prepare};
use samebit::tensor::Tensor;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use subjects::{devices, model_files, peer_python, random_inputs, shared, short, wanted};

/// Rounds, at least; more within [`TIME`].
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(4);
/// Seconds of a run beyond which larger batches are left out.
const LONG: f64 = 0.5;

fn main() {
    let wanted = wanted();
    let devices = devices();
    println!(
        "\nmodel, batch, device, seconds of a run of the model, calibration graph over it, observing over it (fastest..slowest round), \
         observing over the calibration graph, observing over a run by processor time, tensors observed, \
         seconds of finding all ranges, fake-quant graph over the calibration graph"
    );
    for path in model_files() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(model) = load_model(&path, &ImportOptions::default()).ok().filter(|_| wanted(&name)) else {
            continue;
        };
        let Ok(graph) = calibration_graph(model.clone()) else {
            println!("{name}: not a float model");
            continue;
        };
        let batches: &[usize] = if graph.is_batched() { &[1, 8, 64] } else { &[1] };
        for device in &devices {
            for &batch in batches {
                let (row, seconds) = row(&model, &graph, device, batch);
                println!("{name}, {batch}, {}, {row}", short(device));
                if seconds > LONG {
                    break;
                }
            }
        }
    }
    peers(&wanted);
}

fn seconds<T>(f: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let out = f();
    (start.elapsed().as_secs_f64(), out)
}

/// Seconds that all threads of this process have been computing, as far as Linux tells: a busy machine disturbs them less
/// than the clock.
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|t| {
        let text = std::fs::read_to_string(t.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// Seconds by the clock and of processors.
fn both(f: impl FnOnce()) -> [f64; 2] {
    let before = processor_seconds();
    let (seconds, ()) = seconds(f);
    [seconds, processor_seconds() - before]
}

fn sorted(mut all: Vec<f64>) -> Vec<f64> {
    all.sort_by(f64::total_cmp);
    all
}

fn row(model: &Graph, graph: &Graph, device: &Device, batch: usize) -> (String, f64) {
    let inputs = random_inputs(model, batch);
    let (mut values, (exposed, inside)) = (watched(graph), exposed(graph).expect("holds"));
    values.extend(inside);
    let engine = |g: &Graph| Engine::new(g.clone(), device).with_batch(batch);
    let (mut plain, mut folded, mut observing) = (engine(model), engine(graph), engine(&exposed));
    observing.watch(&values).expect("f32, no constants");
    let mut rounds = Vec::new();
    let start = Instant::now();
    // The first round builds plans and kernels.
    while rounds.len() <= ROUNDS || start.elapsed() < TIME {
        let [a, of_a] = both(|| drop(plain.run(&inputs, &[]).expect("runs")));
        let b = seconds(|| folded.run(&inputs, &[]).expect("runs")).0;
        let [c, of_c] = both(|| drop(observing.observe(&inputs).expect("runs")));
        rounds.push([a, b, c, of_c / of_a]);
    }
    let of = |f: fn(&[f64; 4]) -> f64| sorted(rounds[1..].iter().map(f).collect());
    let median = |all: &[f64]| all[all.len() / 2];
    let cost = of(|r| r[2] / r[0]);
    let run = median(&of(|r| r[0]));
    let (finding, quantized) = finding(graph, &values, &mut observing, &inputs);
    let mut quantized = engine(&quantized);
    let mut rounds_after = Vec::new();
    let start = Instant::now();
    while rounds_after.len() <= ROUNDS || start.elapsed() < TIME {
        let a = seconds(|| folded.run(&inputs, &[]).expect("runs")).0;
        let b = seconds(|| quantized.run(&inputs, &[]).expect("runs")).0;
        rounds_after.push(b / a);
    }
    let row = format!(
        "{run:.4}, {:.2}, {:.2} ({:.2}..{:.2}), {:.2}, {:.2}, {}, {finding:.3}, {:.2}",
        median(&of(|r| r[1] / r[0])),
        median(&cost),
        cost[0],
        cost[cost.len() - 1],
        median(&of(|r| r[2] / r[1])),
        median(&of(|r| r[3])),
        values.len(),
        median(&sorted(rounds_after.split_off(1)))
    );
    (row, run)
}

/// Seconds of finding all ranges, those of weights included, from what was observed, and the fake-quant graph.
fn finding(graph: &Graph, values: &[ValueId], engine: &mut Engine, inputs: &[Tensor]) -> (f64, Graph) {
    let prepared = prepare(graph, &QuantConfig::default()).expect("the default fits");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("frames.npy");
    write_npy(&file, &inputs[0]).expect("writes");
    let data = Dataset::open(&file).expect("opens");
    let provenance = Provenance::new(Vec::new(), &data, []).expect("hashes");
    let mut statistics = Statistics::new(provenance, Shard::WHOLE.into(), SampleSum::default(), []);
    let names: Vec<String> = values.iter().map(|v| engine.graph().value(*v).name.clone()).collect();
    statistics.tensors =
        names.into_iter().zip(engine.summaries().expect("collected").iter().cloned()).collect();
    let (seconds, filled) = seconds(|| fill(&prepared, &statistics.tensors, &Moving::default()));
    (seconds, filled.expect("every tensor was observed").graph)
}

/// ONNX Runtime's calibrators beside ours.
fn peers(wanted: &dyn Fn(&str) -> bool) {
    const METHODS: [&str; 3] = ["minmax", "entropy", "percentile"];
    const ROUNDS: usize = 3;
    let Some(python) = peer_python() else { return };
    let asked = std::env::args().find_map(|a| a.strip_prefix("--frames=").map(str::to_owned));
    let frames: usize = asked.map_or(64, |n| n.parse().expect("--frames=N takes a number"));
    println!("\nmodel, frames, calibrator, seconds (median), over ours, peak MB");
    let dir = tempfile::tempdir().expect("a folder");
    for path in model_files() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(input) = wanted(&name).then(|| frames_of(&name, &path, frames)).flatten() else { continue };
        let file = dir.path().join(format!("{name}.npy"));
        write_npy(&file, &input).expect("writes");
        let mut runs: Vec<Vec<f64>> = vec![Vec::new(); 1 + METHODS.len()];
        let mut peaks = vec![0.0; 1 + METHODS.len()];
        for _ in 0..ROUNDS {
            let peer = |method: &&str| peer(&python, &path, &file, method);
            let all = [Ok(ours(&path, &file, dir.path()))].into_iter().chain(METHODS.iter().map(peer));
            for (i, result) in all.enumerate() {
                match result {
                    Ok((seconds, bytes)) => {
                        runs[i].push(seconds);
                        peaks[i] = bytes / 1e6;
                    }
                    Err(e) => println!("{name}: {}: {e}", METHODS[i - 1]),
                }
            }
        }
        let labels = ["samebit calibrate, all observers"].into_iter().chain(METHODS);
        let medians: Vec<f64> =
            runs.into_iter().map(|r| sorted(r).get(ROUNDS / 2).copied().unwrap_or(f64::NAN)).collect();
        for ((label, seconds), peak) in labels.zip(&medians).zip(peaks) {
            println!(
                "{name}, {}, {label}, {seconds:.2}, {:.2}, {peak:.0}",
                input.shape()[0],
                seconds / medians[0]
            );
        }
    }
}

/// Frames of a model as it wants them: images for squeezenet, random ones for the ResNet-18 shapes, none for others.
fn frames_of(name: &str, model: &Path, frames: usize) -> Option<Tensor> {
    let graph = load_model(model, &ImportOptions::default()).ok()?;
    if name == "resnet18" {
        return Some(random_inputs(&graph, frames).remove(0));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = root.join(format!("examples/datasets/{name}.calib.toml"));
    let text = std::fs::read_to_string(set).ok().filter(|_| name.starts_with("squeezenet"))?;
    let dir = tempfile::tempdir().expect("a folder");
    let set = dir.path().join("set.toml");
    let text = text.replace("../../../shared", &shared().to_string_lossy());
    std::fs::write(&set, text.replace("limit = 64", &format!("limit = {frames}"))).expect("writes");
    let data = Dataset::open(&set).ok()?;
    let inputs: Vec<_> =
        graph.inputs.iter().map(|v| (graph.value(*v).name.clone(), graph.value(*v).ty.clone())).collect();
    let bound = data.inputs_for(&inputs).expect("made for it");
    let mut loader =
        Loader::new(bound, LoaderOptions { batch: frames, ..LoaderOptions::default() }).expect("starts");
    Some(loader.next()?.expect("reads").inputs.remove(0))
}

/// Seconds of the whole process, and its peak memory in bytes.
fn ours(model: &Path, frames: &Path, dir: &Path) -> (f64, f64) {
    let json = dir.join("ours.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_samebit"));
    command.arg("calibrate").arg(model).arg("--data").arg(frames).arg("--json").arg(&json);
    command.args(["--device", "cpu", "--quiet", "-o"]).arg(dir.join("ours.g"));
    let (seconds, status) = seconds(|| command.status().expect("starts"));
    assert!(status.success(), "{command:?}: {status}");
    let json: Value = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("JSON");
    (seconds, json["host_bytes"].as_f64().unwrap_or(f64::NAN))
}

/// As [`ours`], of one of ONNX Runtime's calibrators; its imports are not timed.
fn peer(python: &Path, model: &Path, frames: &Path, method: &str) -> Result<(f64, f64), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/calibrators.py");
    let output = Command::new(python).arg(script).arg(model).arg(frames).args(["--method", method]).output();
    let output = output.map_err(|e| e.to_string())?;
    let line: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    Ok((line["seconds"].as_f64().unwrap_or(f64::NAN), line["peak_bytes"].as_f64().unwrap_or(f64::NAN)))
}
