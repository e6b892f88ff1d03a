//! The official int8 models of MLPerf Tiny against the codes that TFLite's kernels gave: every tensor of convolutions,
//! depthwise ones, fully connected layers, additions and pools, code for code, under the profile of each set of kernels.
//! Where `../shared` is not there the tests are reported as ignored.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, npz_arrays};
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::{Attrs, CodeParams, Graph, Scratch, ValueId};
use samebit::onnx::ImportOptions;
use samebit::ops::build;
use samebit::passes::convert::{ConvertOptions, Converted, convert};
use samebit::quant::{Profile, QParams, Requantize, Rounding};
use samebit::tensor::{DType, Tensor, TensorType};
use std::path::Path;
use support::{shared, trial};

const MODELS: [&str; 2] = ["resnet8_cifar10", "mobilenetv1_025_vww"];
const KERNELS: [&str; 2] = ["reference", "optimised"];
const FRAMES: usize = 4;

fn main() {
    let absent = shared("data/tflite").is_none();
    let trials = vec![
        trial("every_layer_gives_tflites_codes", absent, every_layer_gives_tflites_codes),
        trial("the_two_sets_of_kernels_are_told_apart", absent, the_two_sets_of_kernels_are_told_apart),
        trial("halves_of_means_go_away_from_code_0", false, halves_of_means_go_away_from_code_0),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn converted(folder: &Path, model: &str, kernels: &str) -> Converted {
    let path = folder.join(format!("{model}.int8.qdq.onnx"));
    let graph = samebit::model::load(&path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let profile = Some(Profile::builtin(&format!("tflite-{kernels}")).expect("comes with the engine"));
    convert(&graph, &ConvertOptions { profile, ..ConvertOptions::default() })
        .unwrap_or_else(|e| panic!("{model}: {e}"))
}

/// The codes of every tensor that an operator gives, channels last.
fn ours(graph: &Graph, frames: &Tensor) -> Vec<(String, Vec<f64>)> {
    let values: Vec<ValueId> = graph
        .nodes()
        .iter()
        .flat_map(|n| n.outputs.iter().copied())
        .filter(|v| graph.value(*v).ty.dtype == DType::I8)
        .collect();
    let trace =
        Engine::new(graph.clone(), &Device::Cpu).run(std::slice::from_ref(frames), &values).expect("runs");
    values.iter().map(|v| (graph.value(*v).name.clone(), channels_last(&trace.values[v]))).collect()
}

fn channels_last(t: &Tensor) -> Vec<f64> {
    let &[n, c, h, w] = t.shape() else { return (0..t.len()).map(|i| t.number(i)).collect() };
    let at = |i: usize| {
        let (p, k) = (i / c, i % c);
        let (m, p) = (p / (h * w), p % (h * w));
        t.number((m * c + k) * h * w + p)
    };
    (0..n * c * h * w).map(at).collect()
}

/// TFLite's tensors of the frames, in the order of their numbers: the first is the input, the last two are the logits and
/// the probabilities.
fn theirs(folder: &Path, model: &str, kernels: &str) -> Vec<(String, Tensor)> {
    let path = folder.join(format!("{model}.codes.{kernels}.npz"));
    let mut names = npz_arrays(&path).expect("lists");
    names.sort();
    let all = names.into_iter().map(|n| {
        let t = Array::open_npz(&path, &n).and_then(|a| a.read()).unwrap_or_else(|e| panic!("{e}"));
        (n, t)
    });
    // Others are constants.
    all.filter(|(_, t)| t.shape()[0] == FRAMES).collect()
}

/// Elements that differ, of both that have as many.
fn mismatches(want: &Tensor, got: &[f64]) -> usize {
    got.iter().enumerate().filter(|(i, g)| want.number(*i).to_bits() != g.to_bits()).count()
}

/// For each of their tensors the one of ours that is nearest, of those that nothing else is.
fn compare(theirs: &[(String, Tensor)], ours: &[(String, Vec<f64>)]) -> Vec<(String, usize, usize)> {
    let mut free: Vec<&(String, Vec<f64>)> = ours.iter().collect();
    let mut out = Vec::new();
    for (name, want) in theirs {
        let alike = free.iter().enumerate().filter(|(_, (_, g))| g.len() == want.len());
        let best = alike.map(|(i, (_, g))| (mismatches(want, g), i)).min();
        let (wrong, at) =
            best.unwrap_or_else(|| panic!("{name}: no tensor of ours has {} elements", want.len()));
        free.remove(at);
        out.push((name.clone(), want.len(), wrong));
    }
    out
}

fn every_layer_gives_tflites_codes() {
    let folder = shared("data/tflite").expect("seen before");
    let mut failures = Vec::new();
    for model in MODELS {
        for kernels in KERNELS {
            let Converted { graph, islands, accumulators } = converted(&folder, model, kernels);
            assert!(islands.is_empty(), "{model}: {islands:?}");
            assert!(accumulators.iter().all(|a| a.saturated_bias == 0), "{model}: {accumulators:?}");
            let all = theirs(&folder, model, kernels);
            let (input, rest) = all.split_first().expect("an input");
            let (softmax, layers) = rest.split_last().expect("an output");
            let ours = ours(&graph, &input.1);
            let found = compare(layers, &ours);
            let codes: usize = found.iter().map(|f| f.1).sum();
            let wrong: usize = found.iter().map(|f| f.2).sum();
            println!("{model}, {kernels}: {} tensors, {codes} codes, {wrong} mismatches", found.len());
            assert!(found.len() > 10);
            failures.extend(found.iter().filter(|f| f.2 > 0).map(|f| format!("{model}, {kernels}: {f:?}")));
            // Softmax has a formula of its own there; probabilities are a step of 1/256 apart at most.
            let got = &ours.iter().rfind(|(_, g)| g.len() == softmax.1.len()).expect("an output").1;
            let off =
                got.iter().enumerate().map(|(i, g)| (g - softmax.1.number(i)).abs()).fold(0.0, f64::max);
            let count = mismatches(&softmax.1, got);
            println!("{model}, {kernels}: softmax: {count} of {} codes differ, by {off} at most", got.len());
            if off > 1.0 {
                failures.push(format!("{model}, {kernels}: softmax is off by {off}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// `resnet8` has codes that differ between the two: each profile must miss those of the other kernels.
fn the_two_sets_of_kernels_are_told_apart() {
    let folder = shared("data/tflite").expect("seen before");
    for (profile, kernels) in [("reference", "optimised"), ("optimised", "reference")] {
        let graph = converted(&folder, MODELS[0], profile).graph;
        let all = theirs(&folder, MODELS[0], kernels);
        let (input, rest) = all.split_first().expect("an input");
        let found = compare(&rest[..rest.len() - 1], &ours(&graph, &input.1));
        let wrong: usize = found.iter().map(|f| f.2).sum();
        assert!(wrong > 1000, "{profile} against {kernels}: {wrong}");
    }
}

/// TFLite takes the mean of the codes, not of the numbers.
fn halves_of_means_go_away_from_code_0() {
    let params = QParams::per_tensor(DType::I8, 0.5, -128).expect("legal");
    let attrs = Attrs::new().sizes("kernel_shape", &[1, 2]).sizes("strides", &[1, 2]);
    let ty = TensorType::new(DType::F32, vec![1, 1, 1, 6]);
    let pool = build("AveragePool", attrs, &[ty]).expect("reads");
    let x = Tensor::from_i8([1, 1, 1, 6], vec![-3, -4, 3, 4, -128, -127]);
    let mean = |mode: Requantize, rounding: Rounding| {
        let mut p = CodeParams::new([params.clone()], params.clone(), Vec::new());
        p.arithmetic.requantize = mode;
        p.arithmetic.rounding = rounding;
        let y = pool
            .integer(&Scratch::new(), &p, std::slice::from_ref(&x))
            .expect("computes")
            .expect("has an integer form");
        y.codes().expect("codes")
    };
    assert_eq!(mean(Requantize::DoublingAway, Rounding::HalfAway), [-4, 4, -128]);
    assert_eq!(mean(Requantize::Fixed, Rounding::HalfAway), [-3, 4, -127]);
}
