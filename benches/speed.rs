//! Speed of the executors: images per second for each model and device, GFLOP/s of products and convolutions, GB/s of
//! quantizers, and the ratio to ONNX Runtime measured in the same run.
//!
//! `cargo bench --bench speed [-- FILTER]`. The peer is run by the Python that `SAMEBIT_PEER_PYTHON` names, with the packages of
//! `benches/peers/requirements.txt`; without it the ratio is left out. Models are the bundled one, a ResNet-18 shape
//! (written by `scripts/resnet18_shapes.py`) and every model of `shared/data/models` beside the checkout, if there.
//! Inputs are random: decoding and preprocessing are not measured.

mod subjects;

use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::attrs::Input;
use samebit::graph::sample::{Fill, Rng, SampleInput};
use samebit::graph::{Attrs, Graph, Reader, Source, Stage};
use samebit::onnx::{ImportOptions, load_model};
use samebit::ops;
use samebit::tensor::{DType, TensorType};
use std::time::{Duration, Instant};
use subjects::{devices, model_files, onnxruntime, random_inputs, short, threads, wanted};

fn main() {
    let wanted = wanted();
    let devices = devices();
    kernels(&devices, &wanted);
    passes(&devices, &wanted);
    models(&devices, &wanted);
}

/// Median of the seconds that `f` takes, over at least three runs and about a second.
fn median(mut f: impl FnMut()) -> f64 {
    f();
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || (start.elapsed() < Duration::from_secs(2) && times.len() < 50) {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A graph of one operator whose inputs after the first are constants.
fn one_op(name: &str, attrs: Attrs, shapes: &[&[usize]]) -> Graph {
    let mut rng = Rng::new(1);
    let def = ops::by_name(name).expect("an operator of ours");
    let types = shapes.iter().map(|s| TensorType::new(DType::F32, s.iter().copied()));
    let inputs = types.map(|ty| Some(Input { ty, known: None })).collect();
    let op = (def.read)(&mut Reader::new(Source::Graph, def.name, attrs, inputs, 1)).expect("reads");
    let mut g = Graph::new(name);
    let mut ids = vec![g.add_input("x", TensorType::new(DType::F32, shapes[0].iter().copied()))];
    for (i, s) in shapes.iter().enumerate().skip(1) {
        let w = SampleInput::of(*s, Fill::Range(-1.0, 1.0)).draw(&mut rng);
        ids.push(g.add_constant(format!("w{i}"), w));
    }
    g.outputs = g.add_node("op", None, op, &ids, &["y".to_owned()]).expect("fits");
    g
}

fn kernels(devices: &[Device], wanted: &dyn Fn(&str) -> bool) {
    let conv = |k: i64, s: i64, group: i64| {
        Attrs::new()
            .ints("dilations", [1, 1])
            .int("group", group)
            .ints("pads", [k / 2; 4])
            .ints("strides", [s, s])
    };
    type Case = (&'static str, &'static str, Attrs, Vec<Vec<usize>>, f64);
    let cases: Vec<Case> = vec![
        ("gemm 512", "MatMul", Attrs::new(), vec![vec![512, 512], vec![512, 512]], 2.0 * 512f64.powi(3)),
        (
            "gemm 1024",
            "MatMul",
            Attrs::new(),
            vec![vec![1024, 1024], vec![1024, 1024]],
            2.0 * 1024f64.powi(3),
        ),
        (
            "conv 3x3 64->64 56x56",
            "Conv",
            conv(3, 1, 1),
            vec![vec![4, 64, 56, 56], vec![64, 64, 3, 3], vec![64]],
            2.0 * 4.0 * 56.0 * 56.0 * 64.0 * 64.0 * 9.0,
        ),
        (
            "conv 1x1 128->128 28x28",
            "Conv",
            conv(1, 1, 1),
            vec![vec![4, 128, 28, 28], vec![128, 128, 1, 1], vec![128]],
            2.0 * 4.0 * 28.0 * 28.0 * 128.0 * 128.0,
        ),
        (
            "conv depthwise 3x3 128 56x56",
            "Conv",
            conv(3, 1, 128),
            vec![vec![4, 128, 56, 56], vec![128, 1, 3, 3], vec![128]],
            2.0 * 4.0 * 56.0 * 56.0 * 128.0 * 9.0,
        ),
    ];
    println!("\nkernel, device, GFLOP/s (median)");
    for (label, op, attrs, shapes, flops) in cases {
        if !wanted(label) {
            continue;
        }
        for device in devices {
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            let graph = one_op(op, attrs.clone(), &shapes);
            let x = SampleInput::f32(shapes[0]).draw(&mut Rng::new(2));
            let mut engine = Engine::new(graph, device);
            let seconds = median(|| {
                engine.run(std::slice::from_ref(&x), &[]).expect("runs");
            });
            println!("{label}, {}, {:.1}", short(device), flops / seconds / 1e9);
        }
    }
}

/// Bytes per second of one pass of a quantizer over memory, read and written, and of the least that a pass can do. The
/// time of one is the difference of two chains, so that what is transferred does not count. The CPU quantizes in place.
fn passes(devices: &[Device], wanted: &dyn Fn(&str) -> bool) {
    const ELEMENTS: usize = 4 << 20;
    println!("\npass over 4M elements, device, GB/s (median)");
    let attrs = |op| match op {
        "FakeQuant" => {
            Attrs::new().str("state", "validation").floats("scale", &[0.01]).ints("zero_point", [0])
        }
        _ => Attrs::new(),
    };
    for op in ["FakeQuant", "Neg"].into_iter().filter(|op| wanted(&format!("pass {op}"))) {
        for device in devices.iter().filter(|d| !matches!(d, Device::Cpu)) {
            let [one, nine] = [1, 9].map(|n| {
                let mut g = one_op(op, attrs(op), &[&[ELEMENTS]]);
                g.stage = Stage::FakeQuant;
                let op = g.nodes()[0].op.clone();
                for i in 1..n {
                    let (name, v) = (format!("op{i}"), g.outputs[0]);
                    g.outputs = g.add_node(name, None, op.clone(), &[v], &[format!("y{i}")]).expect("fits");
                }
                let x = [SampleInput::f32([ELEMENTS]).draw(&mut Rng::new(2))];
                let mut engine = Engine::new(g, device);
                median(|| drop(engine.run(&x, &[]).expect("runs")))
            });
            #[allow(clippy::cast_precision_loss, reason = "a rate")]
            let bytes = (8 * 8 * ELEMENTS) as f64;
            println!("pass {op}, {}, {:.1}", short(device), bytes / (nine - one) / 1e9);
        }
    }
}

fn models(devices: &[Device], wanted: &dyn Fn(&str) -> bool) {
    println!("\nmodel, batch, device, images/s (median), ratio to ONNX Runtime with as many threads");
    for path in model_files() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !wanted(&name) {
            continue;
        }
        let graph = match load_model(&path, &ImportOptions::default()) {
            Ok(g) => g,
            Err(e) => {
                println!("{name}: {e}");
                continue;
            }
        };
        let batches: &[usize] = if graph.is_batched() { &[1, 8] } else { &[1] };
        for &batch in batches {
            let peer = onnxruntime(&path, batch, threads());
            for device in devices {
                let rate = images_per_second(&graph, device, batch);
                let ratio = peer.map_or("-".into(), |p| format!("{:.2}", rate / p));
                println!("{name}, {batch}, {}, {rate:.1}, {ratio}", short(device));
            }
            if let Some(p) = peer {
                println!("{name}, {batch}, onnxruntime, {p:.1}, 1.00");
            }
        }
    }
}

fn images_per_second(graph: &Graph, device: &Device, batch: usize) -> f64 {
    let inputs = random_inputs(graph, batch);
    let mut engine = Engine::new(graph.clone(), device);
    let seconds = median(|| {
        engine.run(&inputs, &[]).expect("runs");
    });
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let frames = batch as f64;
    frames / seconds
}
