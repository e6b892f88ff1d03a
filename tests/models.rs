//! The models of `../shared/data/models` against ONNX Runtime's outputs, and each against itself at other batches and
//! thread counts, and their accuracy on the CPU. Where `../shared` is not there (or `SAMEBIT_SHARED` names nothing), the
//! tests are reported as ignored.

mod support;

use libtest_mimic::Arguments;
use samebit::analysis::eval::{Candidate, EvalOptions, eval};
use samebit::data::Array;
use samebit::data::Dataset;
use samebit::exec::Engine;
use samebit::gpu::{Choice, Device};
use samebit::graph::Graph;
use samebit::onnx::{ImportOptions, load_model};
use samebit::tensor::Tensor;
use std::path::{Path, PathBuf};
use support::trial;

const MODELS: [&str; 8] = [
    "ad01_autoencoder",
    "bev_grid",
    "mobilenetv1_025_vww",
    "resnet8_cifar10",
    "squeezenet11_imagenet",
    "ultraface_rfb320",
    "ultraface_rfb320_pp_opset9",
    "vit_cifar10",
];

fn shared() -> PathBuf {
    std::env::var_os("SAMEBIT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
        .join("data")
}

fn main() {
    let absent = !shared().join("models").is_dir();
    let trials = vec![
        trial("outputs_equal_onnx_runtime", absent, outputs_equal_onnx_runtime),
        trial("batches_and_threads_do_not_change_a_bit", absent, batches_and_threads_do_not_change_a_bit),
        trial("accuracy_is_the_documented_one", absent, accuracy_is_the_documented_one),
        trial("every_example_model_is_in_the_list", absent, every_example_model_is_in_the_list),
        trial("the_difference_notices_a_wrong_element", false, the_difference_notices_a_wrong_element),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// No model is left out.
fn every_example_model_is_in_the_list() {
    let mut found: Vec<String> = std::fs::read_dir(shared().join("models"))
        .expect("lists")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, MODELS.map(|m| format!("{m}.onnx")));
}

/// The CPU, and an adapter where there is one.
fn devices() -> Vec<Device> {
    let gpu = Device::open(&Choice::Gpu);
    let required = std::env::var_os("SAMEBIT_REQUIRE_GPU").is_some_and(|v| v == "1");
    assert!(gpu.is_ok() || !required, "SAMEBIT_REQUIRE_GPU is set: {:?}", gpu.err());
    if gpu.is_err() {
        eprintln!("ignored on the GPU: no adapter");
    }
    [Device::Cpu].into_iter().chain(gpu.ok()).collect()
}

fn read(path: &Path) -> Tensor {
    Array::open(path).and_then(|a| a.read()).unwrap_or_else(|e| panic!("{e}"))
}

fn load(data: &Path, model: &str) -> Graph {
    load_model(&data.join(format!("models/{model}.onnx")), &ImportOptions::default())
        .unwrap_or_else(|e| panic!("{model}: {e}"))
}

fn golden_inputs(data: &Path, model: &str, graph: &Graph) -> Vec<Tensor> {
    // The decoded detector has the golden inputs of the plain one.
    let file = model.strip_suffix("_pp_opset9").unwrap_or(model);
    let inputs = graph.inputs.iter().map(|v| &graph.value(*v).name);
    inputs.map(|n| read(&data.join(format!("golden/{file}.in.{n}.npy")))).collect()
}

/// The largest |got - want| and what is allowed: 1e-4 of the largest |want|, plus 1e-5.
fn difference(got: &[f32], want: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |m, w| m.max(w.abs()));
    let worst = got.iter().zip(want).fold(0f32, |m, (g, w)| {
        let d = (g - w).abs();
        // A NaN must not vanish in a maximum.
        if d.is_nan() { f32::INFINITY } else { m.max(d) }
    });
    (worst, 1e-4 * largest + 1e-5)
}

fn outputs_equal_onnx_runtime() {
    let data = shared();
    let mut failures = Vec::new();
    for model in MODELS {
        let graph = load(&data, model);
        let inputs = golden_inputs(&data, model, &graph);
        let inputs = if graph.is_batched() { inputs } else { inputs.iter().map(|t| frame(t, 0)).collect() };
        for device in devices() {
            let mut engine = Engine::new(graph.clone(), &device);
            let trace = engine.run(&inputs, &[]).unwrap_or_else(|e| panic!("{model}: {e}"));
            assert!(trace.cpu_ops.is_empty(), "{model}: {:?}", trace.cpu_ops);
            for id in &graph.outputs {
                let name = &graph.value(*id).name;
                let want = read(&data.join(format!("golden/{model}.out.{name}.npy")));
                let got = &trace.values[id];
                assert_eq!(got.shape(), want.shape(), "{model} {name}");
                let (worst, allowed) = difference(got.f32s(), want.f32s());
                println!("{model} {name} on {device}: max |diff| {worst:.3e}, allowed {allowed:.3e}");
                if worst > allowed {
                    failures.push(format!("{model} {name} on {device}: {worst:e} > {allowed:e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn the_difference_notices_a_wrong_element() {
    let want = [1.0, -2.0, 3.0];
    let (worst, allowed) = difference(&want, &want);
    assert!(worst == 0.0 && worst <= allowed);
    for wrong in [[1.0, -2.0, 3.001], [1.0, f32::NAN, 3.0], [f32::INFINITY, -2.0, 3.0]] {
        let (worst, allowed) = difference(&wrong, &want);
        assert!(worst > allowed, "{wrong:?}");
    }
}

/// Frame `i` with its batch axis.
fn frame(t: &Tensor, i: usize) -> Tensor {
    let n = t.len() / t.shape()[0];
    let mut shape = t.shape().to_vec();
    shape[0] = 1;
    Tensor::from_f32(shape, t.f32s()[i * n..(i + 1) * n].to_vec())
}

/// `n` frames that differ: the golden ones, each scaled a little.
fn frames(golden: &[Tensor], n: usize) -> Vec<Tensor> {
    let grow = |t: &Tensor| {
        let mut shape = t.shape().to_vec();
        let all: Vec<f32> = (0..n)
            .flat_map(|i| {
                #[allow(clippy::cast_precision_loss, reason = "a small count")]
                let scale = 1.0 - i as f32 / 256.0;
                let f = frame(t, i % t.shape()[0]);
                f.f32s().iter().map(|v| v * scale).collect::<Vec<_>>()
            })
            .collect();
        shape[0] = n;
        Tensor::from_f32(shape, all)
    };
    golden.iter().map(grow).collect()
}

/// A frame's outputs are the same bits alone, among 7 and among 64, with one thread and with two.
fn batches_and_threads_do_not_change_a_bit() {
    let data = shared();
    for model in MODELS {
        let graph = load(&data, model);
        if !graph.is_batched() {
            continue;
        }
        let all = frames(&golden_inputs(&data, model, &graph), 64);
        for device in devices() {
            let run = |inputs: &[Tensor], threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let mut engine = Engine::new(graph.clone(), &device);
                    let trace = engine.run(inputs, &[]).unwrap_or_else(|e| panic!("{model}: {e}"));
                    graph.outputs.iter().map(|id| trace.values[id].clone()).collect::<Vec<_>>()
                })
            };
            let whole = run(&all, 2);
            let seven: Vec<Tensor> = all.iter().map(|t| head(t, 7)).collect();
            for (label, part, outputs) in [
                ("7 frames", 7, run(&seven, 2)),
                ("7 frames, 1 thread", 7, run(&seven, 1)),
                ("1 frame", 1, run(&all.iter().map(|t| head(t, 1)).collect::<Vec<_>>(), 2)),
                ("1 frame, 1 thread", 1, run(&all.iter().map(|t| head(t, 1)).collect::<Vec<_>>(), 1)),
            ] {
                for (w, o) in whole.iter().zip(&outputs) {
                    assert!(head(w, part) == *o, "{model} on {device}: {label} differ from 64");
                }
            }
        }
    }
}

/// The first `n` frames.
fn head(t: &Tensor, n: usize) -> Tensor {
    let per = t.len() / t.shape()[0];
    let mut shape = t.shape().to_vec();
    shape[0] = n;
    Tensor::from_f32(shape, t.f32s()[..n * per].to_vec())
}

/// Top-1 of the data sets that come as arrays, where preprocessing is exact: within 0.1 points of the documented
/// figures; one frame on the 128 of visual wake words.
fn accuracy_is_the_documented_one() {
    let data = shared();
    let cases = [
        ("resnet8_cifar10", 0.7613, 0.001),
        ("vit_cifar10", 0.7167, 0.001),
        ("mobilenetv1_025_vww", 0.8594, 1.001 / 128.0),
    ];
    for (model, want, within) in cases {
        let toml = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/datasets/{model}.toml"));
        // The files name `shared` beside the checkout; the tests may have it elsewhere.
        let text = std::fs::read_to_string(&toml).expect("an example");
        let text = text.replace("../../../shared/data", data.to_str().expect("utf-8"));
        let dir = tempfile::tempdir().expect("a folder");
        let moved = dir.path().join("data.toml");
        std::fs::write(&moved, text).expect("writes");
        let set = Dataset::open(&moved).unwrap_or_else(|e| panic!("{e}"));
        let candidate = Candidate { label: model.to_owned(), graph: load(&data, model) };
        let report = eval(vec![candidate], &Device::Cpu, &set, &EvalOptions::default(), Vec::new, |_| ())
            .unwrap_or_else(|e| panic!("{model}: {e}"));
        let (name, top1) = &report.models[0].metrics[0];
        println!("{model}: {name} {top1:.4}, documented {want}");
        assert_eq!(name, "top1", "{model}");
        approx::assert_abs_diff_eq!(*top1, want, epsilon = within);
    }
}
