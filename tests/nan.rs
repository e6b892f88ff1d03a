//! NaN that quantizers are given are counted, on every device alike, and told with the sample that has them.

mod support;

use libtest_mimic::Arguments;
use samebit::data::write_npy;
use samebit::exec::{CpuExecutor, Engine, GpuExecutor, NanCount, Trace};
use samebit::gpu::Device;
use samebit::graph::attrs::Input;
use samebit::graph::sample::{Fill, Rng, SampleInput};
use samebit::graph::{Attrs, Graph, Reader, Source, Stage, ValueId};
use samebit::ops::{by_name, fake_quant};
use samebit::quant::{Origin, QParams, Quantizer, Role, Spec};
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use support::binary::{json, samebit, text};
use support::onnx::{self, D, F32};
use support::{gpu, trial};

const DTYPES: [DType; 6] = [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16];

fn main() {
    let absent = gpu().is_none();
    let trials = vec![
        trial("the_cpu_counts_every_nan_of_every_quantizer", false, on_the_cpu),
        trial("the_gpu_counts_as_many_fused_and_alone", absent, on_the_gpu),
        trial("parts_of_a_batch_count_as_the_whole_and_the_first_frame_is_found", false, parts),
        trial("nan_of_a_constant_are_counted_once", false, constants),
        trial("constants_are_counted_by_the_gpu_too", absent, constants_on_the_gpu),
        trial("eval_and_run_name_the_quantizer_the_node_and_the_sample", false, through_the_binary),
        trial("shards_tell_the_nan_of_one_run", false, shards),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn add(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
    let typed = inputs.iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None }));
    let mut r = Reader::new(Source::Graph, op, attrs, typed.collect(), 1);
    let built = (by_name(op).expect("an operator of ours").read)(&mut r).expect("reads");
    let name = format!("{op}{}", g.nodes().len());
    g.add_node(name.clone(), None, built, inputs, &[format!("{name}.out")]).expect("fits")[0]
}

/// Puts a quantizer behind a value; of five scales where there is an axis.
fn quantize(g: &mut Graph, x: ValueId, dtype: DType, axis: Option<usize>) -> ValueId {
    let n = if axis.is_some() { 5 } else { 1 };
    let params =
        QParams::new(dtype, false, vec![0.1; n], vec![dtype.limits().expect("codes").1 / 2; n], axis);
    let spec = Spec::new(dtype, Role::Activation, "fixed");
    let q = Quantizer::with_params(spec, params.expect("legal"), Origin::Fixed);
    let name = format!("q{}", g.nodes().len());
    g.add_node(name.clone(), None, fake_quant(q), &[x], &[format!("{name}.out")]).expect("fits")[0]
}

/// Quantizers behind one kernel of each kind that applies them, and in kernels of their own, in both layouts. Every
/// length is odd, so that each has lanes that are no elements. All are outputs.
fn graph(dtype: DType) -> Graph {
    let mut g = Graph::new("nan");
    g.stage = Stage::FakeQuant;
    let x = g.add_input(
        "x",
        TensorType::new(DType::F32, [Dim::Batch(1), Dim::Fixed(5), Dim::Fixed(3), Dim::Fixed(3)]),
    );
    let mut rng = Rng::new(4);
    let mut constant = |g: &mut Graph, shape: &[usize]| {
        let t = SampleInput::of(shape, Fill::Range(-1.0, 1.0)).draw(&mut rng);
        g.add_constant(format!("constant{}", g.values().len()), t)
    };
    let alone = quantize(&mut g, x, dtype, None);
    let by_channel = quantize(&mut g, x, dtype, Some(1));
    g.outputs = vec![alone, by_channel];
    let pads = || Attrs::new().sizes("pads", &[1; 4]);
    for groups in [1, 5] {
        let w = constant(&mut g, &[5, 5 / groups, 3, 3]);
        let y = add(&mut g, "Conv", pads().int("group", i64::try_from(groups).expect("few")), &[x, w]);
        let q = quantize(&mut g, y, dtype, None);
        g.outputs.push(q);
    }
    let w = constant(&mut g, &[5, 5, 3, 3]);
    let y = add(&mut g, "ConvTranspose", pads(), &[x, w]);
    let last = [quantize(&mut g, y, dtype, Some(1))];
    g.outputs.extend(last);
    let y = add(&mut g, "AveragePool", Attrs::new().sizes("kernel_shape", &[2, 2]), &[x]);
    g.outputs.push(y);
    let q = quantize(&mut g, y, dtype, None);
    g.outputs.push(q);
    let y = add(&mut g, "Sqrt", Attrs::new(), &[x]);
    let y = add(&mut g, "Relu", Attrs::new(), &[y]);
    let q = quantize(&mut g, y, dtype, None);
    // It is given numbers only.
    let second = quantize(&mut g, q, dtype, None);
    g.outputs.push(second);
    let y = add(&mut g, "Div", Attrs::new(), &[alone, alone]);
    let q = quantize(&mut g, y, dtype, None);
    g.outputs.push(q);
    let w = constant(&mut g, &[3, 7]);
    let y = add(&mut g, "MatMul", Attrs::new(), &[x, w]);
    let q = quantize(&mut g, y, dtype, None);
    g.outputs.push(q);
    // Into codes, as an integer model does with its inputs.
    let params = QParams::per_tensor(dtype, 0.1, 0).expect("legal");
    let made = g.add_node("codes", None, samebit::ops::quantize(params), &[y], &["codes.out".to_owned()]);
    g.outputs.push(made.expect("fits")[0]);
    g.verify().expect("a legal graph");
    g
}

/// Numbers of either sign, some of them zero, and NaN among those of some frames.
fn input(batch: usize, with_nan: bool) -> Tensor {
    let mut rng = Rng::new(9);
    let mut draw = |i: usize| match rng.int(0, 12) {
        0 => 0.0,
        1 if with_nan && (i / 45).is_multiple_of(3) => f32::NAN,
        _ => rng.float(-2.0, 2.0),
    };
    Tensor::from_f32([batch, 5, 3, 3], (0..batch * 45).map(&mut draw).collect())
}

/// The NaN of what each quantizer was given, from a run that kept them all.
fn expected(g: &Graph, inputs: &[Tensor]) -> Vec<(String, u64)> {
    let all: Vec<ValueId> =
        g.nodes().iter().flat_map(|n| n.outputs.clone()).chain(g.inputs.clone()).collect();
    let trace = CpuExecutor::new(g.clone()).run(inputs, &all).expect("runs");
    let count = |v: ValueId| trace.values[&v].f32s().iter().filter(|x| x.is_nan()).count() as u64;
    let of = g.nodes().iter().filter(|n| n.quantizes()).map(|n| (n.name.clone(), count(n.inputs[0])));
    of.filter(|(_, count)| *count > 0).collect()
}

fn told(nans: &[NanCount]) -> Vec<(String, u64)> {
    nans.iter().map(|n| (n.quantizer.clone(), n.count)).collect()
}

fn each(f: impl Fn(&str, &Graph, &Graph, &[Tensor], &[(String, u64)])) {
    for dtype in DTYPES {
        let symbolic = graph(dtype);
        for batch in [1, 7] {
            let g = symbolic.at_batch(batch).expect("holds");
            let inputs = [input(batch, true)];
            let want = expected(&g, &inputs);
            assert_eq!(want.len(), 10, "all but the one behind another: {want:?}");
            f(&format!("{dtype} batch {batch}"), &symbolic, &g, &inputs, &want);
        }
    }
}

fn on_the_cpu() {
    each(|what, _, g, inputs, want| {
        let trace = CpuExecutor::new(g.clone()).run(inputs, &[]).expect("runs");
        assert_eq!(told(&trace.nans), want, "{what}");
        let alone = &trace.nans[0];
        assert_eq!((alone.source.as_str(), alone.constant), ("input \"x\"", false));
        assert!(trace.nans.iter().any(|n| n.source.starts_with("Relu")), "{what}: {:?}", trace.nans);
    });
    // Neither a square root of a negative number nor 0 / 0 is in a graph without these nodes.
    let mut g = graph(DType::I8).at_batch(1).expect("holds");
    g.outputs.truncate(2);
    let trace = CpuExecutor::new(g.clone()).run(&[input(1, false)], &[]).expect("runs");
    assert_eq!(trace.nans, []);
}

fn on_the_gpu() {
    each(|what, symbolic, g, inputs, want| {
        let executor = GpuExecutor::new(gpu().expect("checked"), symbolic).poison();
        // Twice, since counters must begin at 0 again.
        for _ in 0..2 {
            let trace = executor.run(inputs, &[]).expect("runs");
            assert_eq!(told(&trace.nans), want, "{what}");
        }
        let all: Vec<ValueId> = g.nodes().iter().flat_map(|n| n.outputs.clone()).collect();
        let trace = executor.run(inputs, &all).expect("runs");
        assert_eq!(told(&trace.nans), want, "{what}, each in a kernel of its own");
        let cpu = CpuExecutor::new(g.clone()).run(inputs, &[]).expect("runs");
        assert_eq!(trace.nans, cpu.nans, "{what}");
    });
    let mut g = graph(DType::I8);
    g.outputs.truncate(4);
    let executor = GpuExecutor::new(gpu().expect("checked"), &g).poison();
    let run = |with_nan| executor.run(&[input(7, with_nan)], &[]).expect("runs");
    assert!(!run(true).nans.is_empty());
    assert_eq!(run(false).nans, []);
}

fn devices() -> Vec<Device> {
    std::iter::once(Device::Cpu).chain(gpu().map(|gpu| Device::Gpu(Arc::clone(&gpu)))).collect()
}

fn parts() {
    let g = graph(DType::U8);
    let whole = input(7, true);
    let want = expected(&g.at_batch(7).expect("holds"), std::slice::from_ref(&whole));
    for device in devices() {
        let mut engine = Engine::new(g.clone(), &device).with_batch(2);
        let run = |engine: &mut Engine, x: &Tensor| -> Trace {
            engine.run(std::slice::from_ref(x), &[]).expect("runs")
        };
        assert_eq!(told(&run(&mut engine, &whole).nans), want, "{device}");
        // Numbers in the first frame, NaN in the second.
        let (clean, bad) = (input(1, false), input(1, true));
        let two = Tensor::from_f32([2, 5, 3, 3], [clean.f32s(), bad.f32s()].concat());
        let names = ["q0".to_owned(), "no such quantizer".to_owned()];
        let first = engine.first_nan(&[two], &names).expect("runs");
        assert_eq!(first, [Some(1), None], "{device}");
    }
}

/// A quantizer of a constant that holds NaN.
fn with_constant() -> Graph {
    let mut g = Graph::new("constant");
    g.stage = Stage::FakeQuant;
    let x = g.add_input("x", TensorType::new(DType::F32, [2, 3]));
    let w = g.add_constant("w", Tensor::from_f32([3, 2], vec![1.0, f32::NAN, 0.0, f32::NAN, 2.0, 3.0]));
    let w = quantize(&mut g, w, DType::I8, None);
    let y = add(&mut g, "MatMul", Attrs::new(), &[x, w]);
    g.outputs = vec![y];
    g
}

fn constants() {
    for device in devices() {
        let mut engine = Engine::new(with_constant(), &device);
        let inputs = [Tensor::zeros(DType::F32, [2, 3])];
        let nans = engine.run(&inputs, &[]).expect("runs").nans;
        let want = NanCount {
            quantizer: "q0".to_owned(),
            source: "constant \"w\"".to_owned(),
            constant: true,
            count: 2,
        };
        assert_eq!(nans, [want], "{device}");
        assert_eq!(engine.run(&inputs, &[]).expect("runs").nans, []);
    }
}

fn constants_on_the_gpu() {
    let trace = GpuExecutor::new(gpu().expect("checked"), &with_constant())
        .run(&[Tensor::zeros(DType::F32, [2, 3])], &[])
        .expect("runs");
    assert_eq!(told(&trace.nans), [("q0".to_owned(), 2)]);
}

/// A model that takes logarithms, calibrated on positive numbers, in `dir`; a data set whose samples 3 and 5 of eight have
/// negative ones.
fn calibrated(dir: &Path) -> (String, String) {
    let path = |name: &str| text(&dir.join(name)).to_owned();
    let w: Vec<f32> = (0..12u8).map(|i| f32::from(i) / 12.0 - 0.4).collect();
    let model = onnx::Graph::new()
        .input("x", F32, &[D::Name("N"), D::Size(4)])
        .init(onnx::f32s("w", &[4, 3], &w))
        .node("the_log", "Log", &["x"], &["logarithm"], &[])
        .node("product", "MatMul", &["logarithm", "w"], &["y"], &[])
        .output("y")
        .model(17);
    std::fs::write(dir.join("m.onnx"), model).expect("writes");
    let mut rng = Rng::new(3);
    let mut data: Vec<f32> = (0..32).map(|_| rng.float(0.5, 2.0)).collect();
    write_npy(&dir.join("good.npy"), &Tensor::from_f32([8, 4], data.clone())).expect("writes");
    for i in [13, 14, 20] {
        data[i] = -1.0;
    }
    write_npy(&dir.join("bad.npy"), &Tensor::from_f32([8, 4], data)).expect("writes");
    std::fs::write(dir.join("c.toml"), "preset = \"all-i8\"\nconsistency = 1").expect("writes");
    let (graph, bad) = (path("m.g"), path("bad.npy"));
    let (model, good, config) = (path("m.onnx"), path("good.npy"), path("c.toml"));
    json(0, &["calibrate", &model, "--data", &good, "--config", &config, "-o", &graph]);
    assert_eq!(json(0, &["eval", &graph, "--data", &good])["models"][0]["nan"], Value::Array(Vec::new()));
    (graph, bad)
}

/// The one entry of a list, in which the logarithm's quantizer has three NaN.
fn one(nan: &Value) -> &Value {
    let all = nan.as_array().expect("a list");
    assert_eq!(all.len(), 1, "{nan}");
    assert!(all[0]["node"].as_str().is_some_and(|n| n.contains("the_log") && n.contains("Log")), "{nan}");
    assert!(all[0]["quantizer"].as_str().is_some_and(|n| n.contains("logarithm")), "{nan}");
    assert_eq!(all[0]["count"], 3, "{nan}");
    &all[0]
}

fn through_the_binary() {
    let dir = tempfile::tempdir().expect("a folder");
    let (graph, bad) = calibrated(dir.path());
    let sample = |v: &Value| one(&v["models"][0]["nan"])["sample"].as_str().expect("a sample").to_owned();
    let devices: &[&str] = if gpu().is_some() { &["cpu", "gpu"] } else { &["cpu"] };
    for batch in ["1", "2", "8"] {
        let v = json(0, &["eval", &graph, "--data", &bad, "--batch", batch]);
        assert!(sample(&v).ends_with('3'), "{v}");
    }
    for device in devices {
        let o = Command::new(env!("CARGO_BIN_EXE_samebit"))
            .args(["eval", &graph, "--data", &bad, "--device", device, "--json", "-"])
            .output()
            .expect("runs");
        let v: Value = serde_json::from_slice(&o.stdout).expect("JSON");
        assert!(sample(&v).ends_with('3'), "{device}: {v}");
        let said = String::from_utf8_lossy(&o.stderr);
        for part in ["warning", "the_log (Log)", "3 NaN", "samebit calibrate", "samebit profile"] {
            assert!(said.contains(part), "{device} must say {part:?}: {said}");
        }
    }
    let v = json(0, &["run", &graph, "--input", &bad]);
    assert_eq!(one(&v["nan"])["sample"], "3");
    let said = samebit(&["run", &graph, "--input", &bad]).stderr;
    assert!(String::from_utf8_lossy(&said).contains("the_log (Log)"), "not even --quiet hides it");
}

fn shards() {
    let dir = tempfile::tempdir().expect("a folder");
    let (graph, bad) = calibrated(dir.path());
    let whole = json(0, &["eval", &graph, "--data", &bad]);
    let part = |name: &str| text(&dir.path().join(name)).to_owned();
    for shard in ["0/2", "1/2"] {
        let file = part(&shard.replace('/', "of"));
        json(0, &["eval", &graph, "--data", &bad, "--shard", shard, "--partial", &file, "--batch", "2"]);
        // What is finished stays as it is.
        let before = std::fs::read(&file).expect("reads");
        json(0, &["eval", &graph, "--data", &bad, "--shard", shard, "--partial", &file, "--resume"]);
        assert_eq!(std::fs::read(&file).expect("reads"), before);
    }
    let merged = json(0, &["merge", &part("1of2"), &part("0of2"), "-o", &part("all")]);
    assert_eq!(one(&merged["models"][0]["nan"]), one(&whole["models"][0]["nan"]));
}
