//! Graphs written as ONNX and read again: the same outputs to the last bit, the same quantizers.

mod support;

use libtest_mimic::Arguments;
use samebit::data::Array;
use samebit::exec::CpuExecutor;
use samebit::exec::parity::{Tolerance, compare};
use samebit::graph::attrs::Input;
use samebit::graph::sample::{Rng, Sample};
use samebit::graph::{Graph, OpDef, Reader, Source, Stage, ValueId, file};
use samebit::onnx::{ExportError, ImportOptions, export, import, import_bytes};
use samebit::ops::{OPS, by_name, fake_quant};
use samebit::passes::from_qdq::from_qdq;
use samebit::quant::{Division, Origin, QParams, Quantizer, Role, Spec, State};
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use support::{shared, trial};

fn main() {
    let absent = shared("data/models").is_none() || shared("data/golden").is_none();
    let quantized = shared("data/quantized_by_onnxruntime").is_none() || absent;
    let trials = vec![
        trial("every_operator_comes_back", false, every_operator),
        trial("shapes_with_the_batch_in_them_come_back", false, batches),
        trial("quantizers_come_back_with_their_codes", false, quantizers),
        trial("quantizers_without_scales_are_listed", false, uncalibrated),
        trial("the_command_warns_of_other_arithmetic", false, command),
        trial("float_models_come_back", absent, float_models),
        trial("quantized_models_come_back", quantized, quantized_models),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A sample as a graph of one node, and its runtime inputs.
fn graph_of(def: &'static OpDef, sample: &Sample) -> (Graph, Vec<Tensor>) {
    let mut g = Graph::new("sample");
    let (mut ids, mut inputs, mut rng) = (Vec::new(), Vec::new(), Rng::new(4));
    for (i, input) in sample.inputs.iter().enumerate() {
        let t = input.draw(&mut rng);
        if input.constant {
            ids.push(g.add_constant(format!("c{i}"), t));
        } else {
            ids.push(g.add_input(format!("x{i}"), t.ty()));
            inputs.push(t);
        }
    }
    let types: Vec<TensorType> = ids.iter().map(|v| g.value(*v).ty.clone()).collect();
    let known = types.iter().map(|ty| Some(Input { ty: ty.clone(), known: None })).collect();
    let op =
        (def.read)(&mut Reader::new(Source::Graph, def.name, sample.attrs.clone(), known, 1)).expect("reads");
    let n = op.infer(&types).expect("fits").len();
    let names: Vec<String> = (0..n).map(|i| format!("y{i}")).collect();
    g.outputs = g.add_node("node", None, op, &ids, &names).expect("fits");
    (g, inputs)
}

fn run(g: &Graph, inputs: &[Tensor], batch: usize) -> samebit::exec::Trace {
    let mut t = CpuExecutor::new(g.at_batch(batch).expect("fits")).run(inputs, &[]).expect("runs");
    // Ids differ; the order of the outputs does not.
    t.values = (0..).map(ValueId).zip(g.outputs.iter().map(|v| t.values[v].clone())).collect();
    t
}

/// What differs between the outputs of two graphs.
fn differences(a: &Graph, b: &Graph, inputs: &[Tensor], batch: usize) -> Vec<String> {
    let names = |g: &Graph| g.outputs.iter().map(|v| g.value(*v).name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    let found = compare(&run(a, inputs, batch), &run(b, inputs, batch), Tolerance::EXACT);
    found.iter().map(ToString::to_string).collect()
}

fn again(g: &Graph) -> Graph {
    let written = export(g).unwrap_or_else(|e| panic!("{e}"));
    import_bytes(written.model, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// What ONNX 21 cannot say, by the attribute that says it.
const UNSAID: &[(&str, &str)] =
    &[("Softmax", "to_end"), ("LogSoftmax", "to_end"), ("GroupNormalization", "per_group")];

fn every_operator() {
    let mut failures = Vec::new();
    let mut unsaid: BTreeMap<&str, usize> = BTreeMap::new();
    for def in OPS.iter().filter(|d| !d.onnx.is_empty()) {
        for seed in 0..2 {
            for sample in (def.samples)(&mut Rng::new(seed)) {
                let (g, inputs) = graph_of(def, &sample);
                let what = format!("{} {:?}", def.name, sample.attrs.0);
                let model = match export(&g) {
                    Ok(e) => e.model,
                    Err(ExportError::Unsaid(why)) => {
                        let known = UNSAID.iter().find(|(op, attr)| *op == def.name && why[0].contains(attr));
                        match known {
                            Some((op, _)) => *unsaid.entry(op).or_default() += 1,
                            None => failures.push(format!("{what}: {why:?}")),
                        }
                        continue;
                    }
                    Err(e) => panic!("{what}: {e}"),
                };
                match import_bytes(model, &ImportOptions::default()) {
                    Ok(back) => failures
                        .extend(differences(&g, &back, &inputs, 1).iter().map(|d| format!("{what}: {d}"))),
                    Err(e) => failures.push(format!("{what}: {e}")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(unsaid.len(), UNSAID.len(), "an exception excepts nothing: {unsaid:?}");
}

/// A node of an operator with text attributes over the batch.
fn batches() {
    let n = Dim::Batch(1);
    let cases: [(&str, samebit::graph::Attrs, Vec<Dim>); 4] = [
        (
            "Reshape",
            samebit::graph::Attrs::new().dims("shape", &[Dim::Batch(2), 3.into()]),
            vec![n, 6.into()],
        ),
        ("Reshape", samebit::graph::Attrs::new().dims("shape", &[n, 2.into(), 3.into()]), vec![n, 6.into()]),
        (
            "Expand",
            samebit::graph::Attrs::new().dims("shape", &[Dim::Batch(3), 6.into()]),
            vec![1.into(), 6.into()],
        ),
        (
            "Fill",
            samebit::graph::Attrs::new()
                .dims("shape", &[n, 2.into()])
                .str("dtype", "f32")
                .float("value", 2.5),
            vec![],
        ),
    ];
    for (op, attrs, shape) in cases {
        let mut g = Graph::new("batch");
        let x = g.add_input("x", TensorType::new(DType::F32, [n, 6.into()]));
        let c = g.add_constant("c", Tensor::from_f32([1, 6], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let inputs: Vec<ValueId> = match shape.first() {
            None => vec![],
            Some(Dim::Fixed(_)) => vec![c],
            Some(Dim::Batch(_)) => vec![x],
        };
        let known = inputs.iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None })).collect();
        let def = by_name(op).expect("in the list");
        let node = (def.read)(&mut Reader::new(Source::Graph, op, attrs, known, 1)).expect("reads");
        let y = g.add_node("node", None, node, &inputs, &["y".to_owned()]).expect("fits");
        g.outputs = vec![y[0], x];
        let g = g.tidied().expect("verifies");
        let back = again(&g);
        assert_eq!(back.value(back.outputs[0]).ty, g.value(g.outputs[0]).ty, "{op}");
        let input = Tensor::from_f32([2, 6], (0..12).map(|v| v as f32).collect());
        assert_eq!(differences(&g, &back, &[input], 2), Vec::<String>::new(), "{op}");
    }
}

fn quantizer(params: QParams, division: Division) -> Quantizer {
    let mut spec = Spec::new(params.dtype(), Role::Activation, "fixed");
    spec.division = division;
    Quantizer::with_params(spec, params, Origin::Fixed)
}

/// x and a constant, each with a quantizer, and their sum.
fn with_quantizers(dtype: DType, division: Division, state: State) -> Graph {
    let mut g = Graph::new("quantized");
    g.stage = Stage::FakeQuant;
    let x = g.add_input("x", TensorType::new(DType::F32, [2usize, 3]));
    let c = g.add_constant("c", Tensor::from_f32([2, 3], vec![0.31, -0.7, 0.02, 1.0, 9.0, -9.0]));
    let high = dtype.limits().expect("codes").1 as f32;
    let zero = if dtype.limits().expect("codes").0 < 0 { 0 } else { 7 };
    let mut of_x = quantizer(QParams::per_tensor(dtype, 2.0 / high, zero).expect("legal"), division);
    of_x.state = state;
    let scales = vec![1.0 / high, 0.3 / high, 3.0 / high];
    let of_c = quantizer(QParams::per_channel(dtype, scales, vec![zero; 3], 1).expect("legal"), division);
    let add = |g: &mut Graph, name: &str, q: Quantizer, v| {
        g.add_node(name, None, fake_quant(q), &[v], &[format!("{name}.out")]).expect("fits")[0]
    };
    let xq = add(&mut g, "qx", of_x, x);
    let cq = add(&mut g, "qc", of_c, c);
    let def = by_name("Add").expect("in the list");
    let known = [xq, cq].iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None })).collect();
    let op = (def.read)(&mut Reader::new(Source::Graph, "Add", Default::default(), known, 1)).expect("reads");
    g.outputs = g.add_node("sum", None, op, &[xq, cq], &["y".to_owned()]).expect("fits");
    g
}

fn quantizers() {
    let x = Tensor::from_f32([2, 3], vec![0.1, -0.55, 1.9, -3.0, 0.33, 0.0]);
    for dtype in [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16] {
        let g = with_quantizers(dtype, Division::Divide, State::Validation);
        let plain = again(&g);
        let left: Vec<&str> = plain.nodes().iter().map(|n| n.op.def().name).collect();
        assert_eq!(left, ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Add"], "{dtype}");
        let back = from_qdq(plain.clone()).expect("converts");
        let params = |g: &Graph| -> Vec<QParams> {
            g.nodes().iter().filter_map(|n| n.quantizer()?.params.clone()).collect()
        };
        assert_eq!(params(&back), params(&g), "{dtype}");
        for graph in [&plain, &back] {
            assert_eq!(differences(&g, graph, std::slice::from_ref(&x), 1), Vec::<String>::new(), "{dtype}");
        }
    }
    // One that is switched off lets numbers pass.
    let g = with_quantizers(DType::I8, Division::Divide, State::Float);
    assert_eq!(differences(&g, &again(&g), &[x], 1), Vec::<String>::new());
}

fn uncalibrated() {
    let g = with_quantizers(DType::I8, Division::Divide, State::Calibration);
    let e = export(&g).expect_err("one observes");
    assert_eq!(e, ExportError::Uncalibrated(vec!["qx".to_owned()]));
    assert!(e.to_string().contains("calibrate"), "{e}");
}

fn command() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| dir.path().join(name);
    let save = |state, division| {
        file::save(&with_quantizers(DType::I8, division, state), &path("g")).expect("writes");
        let out = Command::new(env!("CARGO_BIN_EXE_samebit"))
            .args(["save-onnx".as_ref(), path("g").as_os_str(), "-o".as_ref(), path("m.onnx").as_os_str()])
            .args(["--json".as_ref(), path("j.json").as_os_str()])
            .output()
            .expect("starts");
        let json = std::fs::read_to_string(path("j.json")).expect("writes it");
        let json: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned(), json)
    };
    let (code, said, json) = save(State::Validation, Division::Multiply);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 quantizers multiply by 1/scale"), "{said}");
    assert_eq!((json["opset"].as_i64(), json["stage"].as_str()), (Some(21), Some("fake-quant")));
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
    let (code, said, json) = save(State::Validation, Division::Divide);
    assert_eq!((code, json["warnings"].as_array().map(Vec::len)), (Some(0), Some(0)), "{said}");
    let (code, said, _) = save(State::Calibration, Division::Divide);
    assert_eq!(code, Some(2));
    assert!(said.contains("not calibrated") && said.contains("qx"), "{said}");
}

fn files(folder: &str, part: &str) -> Vec<PathBuf> {
    let folder = shared(folder).expect("is there");
    let all = std::fs::read_dir(folder).expect("lists").map(|f| f.expect("lists").path());
    let mut out: Vec<PathBuf> = all.filter(|p| p.to_string_lossy().contains(part)).collect();
    out.sort();
    out
}

/// The golden inputs of a model.
fn golden(model: &str, g: &Graph) -> Vec<Tensor> {
    // It takes the input of the model that it was made from.
    let model = model.trim_end_matches("_pp_opset9");
    let read = |v: &ValueId| {
        let file =
            shared(&format!("data/golden/{model}.in.{}.npy", g.value(*v).name)).expect("has golden inputs");
        Array::open(&file).and_then(|a| a.read()).expect("reads")
    };
    let mut all: Vec<Tensor> = g.inputs.iter().map(read).collect();
    for (t, v) in all.iter_mut().zip(&g.inputs) {
        // A model of one frame takes the first.
        if g.value(*v).ty.shape[0] == Dim::Fixed(1) {
            let frame = t.len() / t.shape()[0];
            let shape = [&[1], &t.shape()[1..]].concat();
            *t = Tensor::from_f32(shape, t.f32s()[..frame].to_vec());
        }
    }
    all
}

fn stem(path: &std::path::Path) -> String {
    path.file_name().expect("a file").to_string_lossy().split('.').next().expect("a name").to_owned()
}

fn float_models() {
    let models = files("data/models", ".onnx");
    assert!(models.len() >= 7);
    for path in models {
        let g = import(&path, &ImportOptions::default()).expect("imports");
        let inputs = golden(&stem(&path), &g);
        let batch = inputs[0].shape()[0];
        assert_eq!(differences(&g, &again(&g), &inputs, batch), Vec::<String>::new(), "{}", path.display());
    }
}

fn quantized_models() {
    for path in files("data/quantized_by_onnxruntime", ".qdq_") {
        let g = from_qdq(import(&path, &ImportOptions::default()).expect("imports")).expect("converts");
        let back = from_qdq(again(&g)).expect("converts");
        let params = |g: &Graph| -> Vec<(String, QParams)> {
            let all = g.nodes().iter().filter_map(|n| Some((n.name.clone(), n.quantizer()?.params.clone()?)));
            let mut all: Vec<_> = all.collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        assert!(params(&g) == params(&back), "{}", path.display());
        let inputs = golden(&stem(&path), &g);
        let batch = inputs[0].shape()[0];
        assert_eq!(differences(&g, &back, &inputs, batch), Vec::<String>::new(), "{}", path.display());
    }
}
