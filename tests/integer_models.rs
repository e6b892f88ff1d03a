//! The convolutional example models on codes, for every profile: both executors give the same bits, and nothing is left to
//! the CPU; and all others, where both compute what has no kernel on the CPU. Where `../shared` or a GPU is not there, the test is reported as ignored.

mod support;

use libtest_mimic::Arguments;
use samebit::data::Array;
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::{Graph, ValueId, file};
use samebit::tensor::{DType, Tensor};
use std::path::Path;
use support::binary::{json, text};
use support::{gpu, shared, trial};

const MODELS: [&str; 4] =
    ["resnet8_cifar10", "mobilenetv1_025_vww", "squeezenet11_imagenet", "ultraface_rfb320"];

const TARGETS: [&str; 7] = [
    "samebit",
    "onnxruntime",
    "tflite-reference",
    "tflite-optimised",
    "tflite-single",
    "x86-avx2-saturating",
    "power-of-two",
];

fn main() {
    let absent = gpu().is_none() || shared("data/models").is_none();
    let trials = vec![
        trial(
            "both_executors_give_the_same_codes_for_every_target",
            absent,
            both_executors_give_the_same_codes_for_every_target,
        ),
        trial("compiled_models_are_the_models_for_every_target", absent, compiled_models_are_the_models),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A model on codes for a target, calibrated on a few frames.
fn on_codes(dir: &Path, model: &str, target: &str) -> Graph {
    let data = shared("data").expect("checked in main");
    let onnx = data.join(format!("models/{model}.onnx"));
    let example = format!("examples/datasets/{model}.calib.toml");
    let example =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(example)).expect("reads");
    // The files name `shared` beside the checkout; the tests may have it elsewhere.
    let set = dir.join("calib.toml");
    std::fs::write(&set, example.replace("../../../shared/data", text(&data))).expect("writes");
    let (fake, codes) = (dir.join("fake.g"), dir.join("codes.g"));
    let calibrate = ["calibrate", text(&onnx), "--data", text(&set), "--limit", "8", "--target", target];
    json(0, &[&calibrate[..], &["-o", text(&fake)]].concat());
    json(0, &["convert", text(&fake), "--target", target, "-o", text(&codes)]);
    file::load(&codes, samebit::ops::by_name).unwrap_or_else(|e| panic!("{model}: {e}"))
}

/// Frames that differ: the golden ones, each scaled a little.
fn frames(model: &str, graph: &Graph, n: usize) -> Vec<Tensor> {
    let golden = |v: &ValueId| {
        let path = format!("data/golden/{model}.in.{}.npy", graph.value(*v).name);
        let t = Array::open(&shared(&path).expect("a golden input")).and_then(|a| a.read()).expect("reads");
        let per = t.len() / t.shape()[0];
        let mut shape = t.shape().to_vec();
        shape[0] = n;
        let frame = |i: usize| t.f32s()[i % t.shape()[0] * per..][..per].to_vec();
        #[allow(clippy::cast_precision_loss, reason = "a small count")]
        let scaled = |i: usize| frame(i).into_iter().map(move |v| v * (1.0 - i as f32 / 64.0));
        Tensor::from_f32(shape, (0..n).flat_map(scaled).collect())
    };
    graph.inputs.iter().map(golden).collect()
}

fn both_executors_give_the_same_codes_for_every_target() {
    let device = Device::Gpu(gpu().expect("checked in main"));
    let dir = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    for model in MODELS {
        for target in TARGETS {
            let graph = on_codes(dir.path(), model, target);
            let on_codes = graph.nodes().iter().filter(|n| n.op.integer_of().is_some()).count();
            assert!(on_codes > 8, "{model} for {target}: {on_codes} operators on codes");
            // The large ones with fewer frames; all codes inside are compared, and numbers made of sums.
            let inputs = frames(model, &graph, if graph.nodes().len() < 60 { 16 } else { 4 });
            let exact = |v: &&ValueId, integer: bool| integer || graph.value(**v).ty.dtype != DType::F32;
            let taps: Vec<ValueId> = graph
                .nodes()
                .iter()
                .flat_map(|n| n.outputs.iter().filter(|v| exact(v, n.op.integer_of().is_some())))
                .copied()
                .collect();
            let run = |device: &Device| {
                let trace = Engine::new(graph.clone(), device).run(&inputs, &taps);
                trace.unwrap_or_else(|e| panic!("{model} for {target}: {e}"))
            };
            let (want, got) = (run(&Device::Cpu), run(&device));
            if !got.cpu_ops.is_empty() {
                wrong.push(format!("{model} for {target}: left to the CPU: {:?}", got.cpu_ops));
            }
            let differ = taps.iter().filter(|v| want.values[v] != got.values[v]);
            if let Some(first) = differ.clone().next() {
                let name = &graph.value(*first).name;
                wrong.push(format!("{model} for {target}: {} tensors, first {name}", differ.count()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// On codes on the CPU, and compiled on the device: 16 frames of each model, for each target that can have it.
fn compiled_models_are_the_models() {
    let data = shared("data").expect("checked in main");
    let models = [
        "resnet8_cifar10",
        "mobilenetv1_025_vww",
        "vit_cifar10",
        "bev_grid",
        "ultraface_rfb320_pp_opset9",
        "ad01_autoencoder",
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let (fake, codes, compiled, set) = (at("fake.g"), at("codes.g"), at("compiled"), at("calib.toml"));
    let mut elements = 0;
    for model in models {
        let example = format!("{}/examples/datasets/{model}.calib.toml", env!("CARGO_MANIFEST_DIR"));
        let frames = match std::fs::read_to_string(example) {
            Ok(toml) => {
                std::fs::write(&set, toml.replace("../../../shared/data", text(&data))).expect("writes");
                set.clone()
            }
            Err(_) => data.join(format!("golden/{model}.in.input.npy")),
        };
        let (onnx, frames) = (data.join(format!("models/{model}.onnx")), text(&frames));
        for target in TARGETS {
            let calibrate = ["calibrate", text(&onnx), "--data", frames, "--limit", "16", "--target", target];
            json(0, &[&calibrate[..], &["-o", text(&fake)]].concat());
            json(0, &["convert", text(&fake), "-o", text(&codes)]);
            let v = json(0, &["compile", text(&codes), "-o", text(&compiled)]);
            let (bytes, weights) = (v["bytes"].as_u64(), v["weight_bytes"].as_u64());
            assert!(bytes < weights.map(|w| w + (64 << 10)), "{model} for {target}: {bytes:?} {weights:?}");
            let verify = ["verify", text(&codes), text(&compiled), "--data", frames, "--limit", "16"];
            let v = json(0, &[&verify[..], &["--device-b", "gpu"]].concat());
            assert!(
                v["consistent"] == true && v["compared_layers"].as_u64() > Some(8),
                "{model} for {target}: {v}"
            );
            elements += v["compared_elements"].as_u64().expect("a number");
        }
    }
    println!("{elements} elements are equal");
    assert!(elements > 500_000_000, "{elements}");
}
