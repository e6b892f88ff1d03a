//! What `calibrate` costs: seconds of observing frames over seconds of a plain run of them, and of the observers that
//! find ranges afterwards.
//!
//! `cargo bench --bench calibrate [-- FILTER]`. For each model, batch and device, rounds of three runs of the same random
//! frames: the model as `eval` runs it, the graph that `calibrate` makes of it run in the same way, and that graph
//! observed as `calibrate` does. Ratios are medians over rounds.

mod common;

use common::{devices, model_files, random_inputs, short, wanted};
use samebit::analysis::calibrate::{fill, watched};
use samebit::analysis::statistics::Statistics;
use samebit::data::shards::{Provenance, Shard};
use samebit::data::{Dataset, write_npy};
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::Graph;
use samebit::onnx::{ImportOptions, load_model};
use samebit::passes::config::QuantConfig;
use samebit::passes::prepare::{calibration_graph, prepare};
use samebit::tensor::Tensor;
use std::time::{Duration, Instant};

/// Rounds, at least; more within [`TIME`].
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(4);

fn main() {
    let wanted = wanted();
    let devices = devices();
    println!(
        "\nmodel, batch, device, seconds of a run of the model, calibration graph over it, observing over it (fastest..slowest round), \
         observing over the calibration graph, tensors observed, seconds of finding all ranges"
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
        for &batch in batches {
            for device in &devices {
                println!("{name}, {batch}, {}, {}", short(device), row(&model, &graph, device, batch));
            }
        }
    }
}

fn seconds<T>(f: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let out = f();
    (start.elapsed().as_secs_f64(), out)
}

fn sorted(mut all: Vec<f64>) -> Vec<f64> {
    all.sort_by(f64::total_cmp);
    all
}

fn row(model: &Graph, graph: &Graph, device: &Device, batch: usize) -> String {
    let inputs = random_inputs(model, batch);
    let values = watched(graph);
    let engine = |g: &Graph| Engine::new(g.clone(), device).with_batch(batch);
    let (mut plain, mut folded, mut observing) = (engine(model), engine(graph), engine(graph));
    observing.watch(&values).expect("f32, no constants");
    let mut rounds = Vec::new();
    let start = Instant::now();
    // The first round builds plans and kernels.
    while rounds.len() <= ROUNDS || start.elapsed() < TIME {
        let a = seconds(|| plain.run(&inputs, &[]).expect("runs")).0;
        let b = seconds(|| folded.run(&inputs, &[]).expect("runs")).0;
        let c = seconds(|| observing.observe(&inputs).expect("runs")).0;
        rounds.push([a, b, c]);
    }
    let of = |f: fn(&[f64; 3]) -> f64| sorted(rounds[1..].iter().map(f).collect());
    let median = |all: &[f64]| all[all.len() / 2];
    let cost = of(|r| r[2] / r[0]);
    format!(
        "{:.4}, {:.2}, {:.2} ({:.2}..{:.2}), {:.2}, {}, {:.3}",
        median(&of(|r| r[0])),
        median(&of(|r| r[1] / r[0])),
        median(&cost),
        cost[0],
        cost[cost.len() - 1],
        median(&of(|r| r[2] / r[1])),
        values.len(),
        finding(graph, &mut observing, &inputs)
    )
}

/// Seconds of finding all ranges, those of weights included, from what was observed.
fn finding(graph: &Graph, engine: &mut Engine, inputs: &[Tensor]) -> f64 {
    let prepared = prepare(graph, &QuantConfig::default()).expect("the default fits");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("frames.npy");
    write_npy(&file, &inputs[0]).expect("writes");
    let data = Dataset::open(&file).expect("opens");
    let provenance = Provenance::new(Vec::new(), &data, []).expect("hashes");
    let mut statistics = Statistics::new(provenance, Shard::WHOLE.into(), []);
    let names = watched(graph).into_iter().map(|v| graph.value(v).name.clone());
    statistics.tensors = names.zip(engine.summaries().expect("collected").iter().cloned()).collect();
    let (seconds, filled) = seconds(|| fill(&prepared, &statistics));
    filled.expect("every tensor was observed");
    seconds
}
