//! `convert` through the binary: what becomes integers, and what is refused.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, write_npy};
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::{Attrs, Graph, file};
use samebit::ops::build;
use samebit::passes::config::QuantConfig;
use samebit::passes::prepare::prepare_model;
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use serde_json::Value;
use std::path::Path;
use support::artefacts::{CALIB, EVAL, MODEL, artefacts, digits, list, load};
use support::binary::{json, refused, samebit, text};
use support::onnx::{D, F32, Graph as Model, f32s};
use support::{gpu, shared, trial};

fn main() {
    let absent = shared("data/models").is_none();
    let trials = vec![
        trial("level_4_is_the_integer_model", false, level_4_is_the_integer_model),
        trial("a_target_is_fixed_at_level_4", false, a_target_is_fixed_at_level_4),
        trial("sums_of_pairs_saturate_for_their_target", false, sums_of_pairs_saturate_for_their_target),
        trial("types_that_sums_do_not_take_are_refused", false, types_that_sums_do_not_take_are_refused),
        trial("quantizers_without_parameters_are_listed", false, quantizers_without_parameters_are_listed),
        trial("sums_on_data_stay_within_their_bounds", false, sums_on_data_stay_within_their_bounds),
        trial("preserved_nodes_stay_in_floats", false, preserved_nodes_stay_in_floats),
        trial("a_product_with_a_vector_is_integer", false, a_product_with_a_vector_is_integer),
        trial("dead_channels_keep_their_bias", false, dead_channels_keep_their_bias),
        trial("cnns_are_integer_but_for_their_tails", absent, cnns_are_integer_but_for_their_tails),
        trial(
            "sums_that_saturate_in_pairs_run_anywhere",
            gpu().is_none(),
            sums_that_saturate_in_pairs_run_anywhere,
        ),
        trial("models_with_quantizers_are_integer", absent, models_with_quantizers_are_integer),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn level_4_is_the_integer_model() {
    for preset in ["default", "all-i8", "all-i16"] {
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("config.toml");
        std::fs::write(&config, format!("preset = \"{preset}\"\n")).expect("writes");
        let more = ["--consistency", "4", "--config", text(&config)];
        let (g, q, v) = artefacts(dir.path(), Path::new(MODEL), CALIB, &more);
        assert!(v["integer_ops"].as_u64().is_some_and(|n| n > 6), "{v}");
        let saturated = |a: &Value| a["saturated_bias"].as_u64() != Some(0);
        assert!(!v["accumulators"].as_array().expect("a list").iter().any(saturated), "{preset}: {v}");
        let v = json(0, &["verify", text(&g), text(&q), "--data", EVAL, "--limit", "16"]);
        assert!(v["consistent"] == true && v["frames"] == 16, "{preset}: {v}");
        assert_eq!(v["unmatched"], serde_json::json!([]), "{preset}");
        assert!(v["compared_layers"].as_u64().is_some_and(|n| n > 6), "{preset}: {v}");
        assert!(v["compared_elements"].as_u64().is_some_and(|n| n > 50_000), "{preset}: {v}");
    }
}

fn a_target_is_fixed_at_level_4() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, _) = digits(dir.path());
    let other = dir.path().join("other");
    let args = ["convert", text(&g), "--target", "onnxruntime", "-o", text(&other)];
    refused(&args, &["level 4", "samebit", "onnxruntime", "calibrate for"]);
    assert!(!other.exists());
    json(0, &["convert", text(&g), "--target", "samebit", "-o", text(&other)]);
    // At level 1 the target is open.
    let (g, _, _) = artefacts(dir.path(), Path::new(MODEL), CALIB, &["--consistency", "1"]);
    let v = json(0, &["convert", text(&g), "--target", "onnxruntime", "-o", text(&other)]);
    assert_eq!(v["target"], "onnxruntime");
}

const PAIRS: &str = "x86-avx2-saturating";

fn sums_of_pairs_saturate_for_their_target() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, _, _) = artefacts(dir.path(), Path::new(MODEL), CALIB, &["--consistency", "1"]);
    let converted = |target: &str| {
        let q = dir.path().join(target);
        let v = json(0, &["convert", text(&g), "--target", target, "-o", text(&q)]);
        let bounds = v["accumulators"].as_array().expect("a list").iter().map(|a| a["bound"].as_u64());
        (q, bounds.collect::<Option<Vec<u64>>>().expect("numbers"))
    };
    let ((exact, sums), (pairs, wider)) = (converted("onnxruntime"), converted(PAIRS));
    // But for the sums the two targets are one, so that what differs is what saturates.
    let v = json(1, &["verify", text(&exact), text(&pairs), "--data", EVAL, "--limit", "4"]);
    assert!(v["consistent"] == false, "{v}");
    assert!(sums.len() > 3 && sums.iter().zip(&wider).all(|(a, b)| a < b), "{sums:?} {wider:?}");
    let as_pairs = ["--data", EVAL, "--limit", "4", "--profile", PAIRS];
    let v = json(0, &[&["verify", text(&exact), text(&pairs)], &as_pairs[..]].concat());
    assert!(v["consistent"] == true && v["compared_elements"].as_u64() > Some(10_000), "{v}");
}

fn types_that_sums_do_not_take_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "preset = \"all-i16\"\n").expect("writes");
    let more = ["--consistency", "1", "--config", text(&config)];
    let (g, q, _) = artefacts(dir.path(), Path::new(MODEL), CALIB, &more);
    let other = dir.path().join("other");
    refused(&["convert", text(&g), "--target", PAIRS, "-o", text(&other)], &["i16 codes", PAIRS, "u8, i8"]);
    // A target that has i16, but sums that do not take it.
    let target = dir.path().join("target.toml");
    let profile = "name = \"wide\"\nabout = \"-\"\nactivations = [\"i16\"]\nweights = { types = [\"i8\"] }\n";
    let sums = "[default]\naccumulator = \"saturating_i16_pairs\"\n";
    std::fs::write(&target, profile.to_owned() + sums).expect("writes");
    let args = ["convert", text(&g), "--target", text(&target), "-o", text(&other)];
    refused(&args, &["saturating_i16_pairs", "i16 times i8", "another target"]);
    assert!(!other.exists());
    let run = ["verify", text(&q), text(&q), "--random", "1", "--profile", PAIRS];
    refused(&run, &["--profile", PAIRS, "i16 times i8"]);
    // Operators of ONNX Runtime with weights of u8.
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/onnxruntime/operators.onnx");
    refused(&["verify", model, model, "--random", "1", "--profile", PAIRS], &["conv_0", "u8 times u8"]);
}

fn sums_on_data_stay_within_their_bounds() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, q) = digits(dir.path());
    let v = json(0, &["convert", text(&g), "--data", EVAL, "--limit", "32", "-o", text(&q)]);
    let all = list(&v, "accumulators");
    assert!(all.len() > 4, "{v}");
    for a in all {
        let (bound, most) = (a["bound"].as_u64().expect("a bound"), a["observed"].as_u64().expect("a sum"));
        assert!(most > 0 && most <= bound, "{a}");
    }
    // The same as the sums of the first product, formed here.
    let graph = load(&q);
    let node = graph.nodes().iter().find(|n| n.op.integer_of().is_some()).expect("a product").clone();
    let (op, params) = node.op.integer_of().expect("on codes");
    assert_eq!(op.def().name, "Conv");
    let x = samebit::data::Dataset::open(Path::new(EVAL)).expect("opens").limit(32);
    let bound = x
        .inputs_for(&[(graph.value(graph.inputs[0]).name.clone(), graph.value(graph.inputs[0]).ty.clone())])
        .expect("fits");
    let options = samebit::data::LoaderOptions { batch: 32, ..Default::default() };
    let batch =
        samebit::data::Loader::new(bound, options).expect("loads").next().expect("one").expect("reads");
    let taps = [node.inputs[0]];
    let codes = Engine::new(graph.clone(), &Device::Cpu).run(&batch.inputs, &taps).expect("runs");
    let numbers = |t: &Tensor, zero: i32| {
        let steps = t.codes().expect("codes").into_iter().map(|q| (q - zero) as f32).collect();
        Tensor::from_f32(t.shape(), steps)
    };
    let zero = |i: usize| params.inputs[i].as_ref().expect("codes").zero_points()[0];
    let constant = |i: usize| graph.value(node.inputs[i]).constant.clone().expect("a constant");
    let bias = constant(2).codes().expect("codes").into_iter().map(|b| b as f32).collect();
    let bias = Tensor::from_f32(constant(2).shape(), bias);
    let inputs = [numbers(&codes.values[&taps[0]], zero(0)), numbers(&constant(1), zero(1)), bias];
    let sums = op.eval(&samebit::graph::Scratch::new(), &inputs).expect("computes").remove(0);
    // Below 2^24 f32 holds them exactly.
    let most = sums.f32s().iter().fold(0f32, |m, s| m.max(s.abs()));
    assert!(most < 16_777_216.0);
    assert_eq!(
        all.iter().find(|a| a["node"] == node.name.as_str()).expect("is listed")["observed"],
        most as u64
    );
    refused(&["convert", text(&g), "--limit", "2", "-o", text(&q)], &["--data"]);
}

fn quantizers_without_parameters_are_listed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, prepared) = prepare_model(&load(Path::new(MODEL)), &QuantConfig::default()).expect("prepares");
    let path = dir.path().join("g");
    file::save(&prepared.graph, &path).expect("saves");
    let names = prepared.graph.nodes().iter().filter(|n| n.quantizer().is_some()).map(|n| n.name.as_str());
    let some: Vec<&str> = names.take(3).collect();
    assert_eq!(some.len(), 3);
    refused(&["convert", text(&path), "-o", text(&dir.path().join("q"))], &some);
}

fn preserved_nodes_stay_in_floats() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, _, plain) = artefacts(dir.path(), Path::new(MODEL), CALIB, &[]);
    let kept = dir.path().join("kept");
    let v = json(0, &["convert", text(&g), "--preserve", "*block1*", "-o", text(&kept)]);
    let islands = v["float_islands"].as_array().expect("a list");
    let ours: Vec<&Value> = islands.iter().filter(|i| i["reason"] == "it is preserved").collect();
    assert!(ours.iter().any(|i| i["op"] == "Conv"), "{v}");
    assert!(ours.iter().all(|i| i["node"].as_str().is_some_and(|n| n.contains("block1"))), "{v}");
    assert!(v["integer_ops"].as_u64() < plain["integer_ops"].as_u64(), "{v}");
    // Per-channel weights and all, it runs, and what is before it is as it was.
    let v = json(0, &["eval", text(&g), text(&kept), "--data", EVAL, "--limit", "32"]);
    assert!(v["models"][1]["metrics"]["top1"].as_f64().is_some_and(|t| t > 0.8), "{v}");
    refused(
        &["convert", text(&g), "--preserve", "nothing", "-o", text(&kept)],
        &["--preserve nothing", "no node"],
    );
}

/// A channel whose weights are almost zero gives its bias, from calibration to the integer model.
/// Its elements are summed over: they have one scale, and all of them count in the bound of the sums.
fn a_product_with_a_vector_is_integer() {
    const K: usize = 64;
    let dir = tempfile::tempdir().expect("a folder");
    let (model, data, x) = (dir.path().join("m.onnx"), dir.path().join("d.toml"), dir.path().join("x.npy"));
    let weights: Vec<f32> = (0..K).map(|i| 0.5 + i as f32 / 64.0).collect();
    let onnx = Model::new()
        .input("x", F32, &[D::Name("N"), D::Size(5), D::Size(K as i64)])
        .init(f32s("w", &[K as i64], &weights))
        .node("mm", "MatMul", &["x", "w"], &["y"], &[])
        .output("y");
    std::fs::write(&model, onnx.model(17)).expect("writes");
    let numbers = (0..8 * 5 * K).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
    write_npy(&x, &Tensor::from_f32([8, 5, K], numbers)).expect("writes");
    let toml = "[dataset]\nname = \"x\"\n[[input]]\nname = \"x\"\nnpy = \"x.npy\"\n";
    std::fs::write(&data, toml).expect("writes");
    let (g, q, v) = artefacts(dir.path(), &model, text(&data), &[]);
    let bound = &list(&v, "accumulators")[0]["bound"];
    assert!(list(&v, "float_islands").is_empty() && bound.as_u64() > Some(127 * 40 * K as u64), "{v}");
    json(0, &["verify", text(&g), text(&q), "--data", text(&data)]);
    let v = json(0, &["eval", text(&model), text(&q), "--data", text(&data)]);
    let cosine = v["models"][1]["agreement"]["y"]["cosine"].as_f64();
    assert!(cosine > Some(0.999), "{v}");
}

fn dead_channels_keep_their_bias() {
    let mut graph = Graph::new("dead");
    let shape = vec![Dim::Batch(1), Dim::Fixed(2), Dim::Fixed(4), Dim::Fixed(4)];
    let x = graph.add_input("x", TensorType { dtype: DType::F32, shape });
    let w =
        graph.add_constant("w", Tensor::from_f32([3, 2, 1, 1], vec![0.5, -0.25, 1e-12, -2e-12, 0.125, 1.0]));
    let b = graph.add_constant("b", Tensor::from_f32([3], vec![0.25, 1.5, -0.5]));
    let types: Vec<TensorType> = [x, w, b].iter().map(|v| graph.value(*v).ty.clone()).collect();
    let conv = build("Conv", Attrs::new(), &types).expect("reads");
    let y = graph.add_node("conv", None, conv, &[x, w, b], &["y".to_owned()]).expect("legal")[0];
    let relu = build("Relu", Attrs::new(), &[graph.value(y).ty.clone()]).expect("reads");
    let z = graph.add_node("relu", None, relu, &[y], &["z".to_owned()]).expect("legal")[0];
    graph.outputs.push(z);
    let dir = tempfile::tempdir().expect("a folder");
    let (float, data) = (dir.path().join("float"), dir.path().join("x.npy"));
    file::save(&graph, &float).expect("saves");
    let numbers: Vec<f32> = (0..8 * 32).map(|i| (i * 29 % 101) as f32 / 50.0 - 1.0).collect();
    let frames = Tensor::from_f32([8, 2, 4, 4], numbers);
    write_npy(&data, &frames).expect("writes");
    let set = dir.path().join("set.toml");
    let toml =
        "[dataset]\nname = \"d\"\n[[input]]\nname = \"x\"\nnpy = \"x.npy\"\nsource_layout = \"nchw\"\n";
    std::fs::write(&set, toml).expect("writes");
    let config = dir.path().join("config.toml");
    for (preset, step) in [("all-i8", 0.02), ("all-i16", 0.01)] {
        std::fs::write(&config, format!("preset = \"{preset}\"\n")).expect("writes");
        for level in ["1", "4"] {
            let more = ["--consistency", level, "--config", text(&config)];
            let (_, q, v) = artefacts(dir.path(), &float, text(&set), &more);
            let accumulators = v["accumulators"].as_array().expect("a list");
            assert!(accumulators.len() == 1 && accumulators[0]["saturated_bias"] == 0, "{preset}: {v}");
            let q = load(&q);
            let run = |g: &Graph| {
                let trace =
                    Engine::new(g.clone(), &Device::Cpu).run(std::slice::from_ref(&frames), &g.outputs);
                trace.expect("runs").values[&g.outputs[0]].clone()
            };
            let (want, got) = (run(&graph), run(&q));
            for (i, (w, g)) in want.f32s().iter().zip(got.f32s()).enumerate() {
                assert!((w - g).abs() < step, "{preset}, level {level}, element {i}: {g} for {w}");
            }
        }
    }
}

/// What may stay in floats: a softmax behind the last sums, and what moves its numbers.
fn cnns_are_integer_but_for_their_tails() {
    let data = shared("data").expect("seen before");
    let cases = [
        ("resnet8_cifar10", 1),
        ("mobilenetv1_025_vww", 1),
        ("squeezenet11_imagenet", 1),
        ("ultraface_rfb320", 2),
    ];
    for (model, islands) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let onnx = data.join(format!("models/{model}.onnx"));
        let example =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/datasets/{model}.calib.toml"));
        let toml = std::fs::read_to_string(&example).expect("an example");
        let set = dir.path().join("set.toml");
        std::fs::write(&set, toml.replace("../../../shared/data", text(&data))).expect("writes");
        let (g, q, v) = artefacts(dir.path(), &onnx, text(&set), &[]);
        let found = list(&v, "float_islands");
        assert_eq!(found.len(), islands, "{model}: {found:?}");
        for island in found {
            assert!(
                ["Softmax", "Reshape"].contains(&island["op"].as_str().expect("an operator")),
                "{model}: {island}"
            );
        }
        for a in list(&v, "accumulators") {
            assert!(a["saturated_bias"] == 0 && a["bound"].as_u64() > Some(0), "{model}: {a}");
        }
        let v = json(0, &["verify", text(&g), text(&q), "--data", text(&set), "--limit", "2"]);
        assert_eq!(v["consistent"], true, "{model}: {v}");
        println!("{model}: {} elements of {} tensors", v["compared_elements"], v["compared_layers"]);
    }
}

/// On the device as on the CPU.
fn sums_that_saturate_in_pairs_run_anywhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, _, _) = artefacts(dir.path(), Path::new(MODEL), CALIB, &["--consistency", "1"]);
    let pairs = dir.path().join("pairs");
    json(0, &["convert", text(&g), "--target", "x86-avx2-saturating", "-o", text(&pairs)]);
    let v = json(0, &["verify", text(&pairs), text(&pairs), "--random", "4", "--device-b", "gpu"]);
    assert!(v["consistent"] == true && v["dispatches"].as_u64() > Some(0), "{v}");
    assert_eq!(list(&v, "cpu_ops"), &Vec::<Value>::new());
}

/// Models of ONNX Runtime's quantizer have no islands but what has no integer form, and their integer models run.
fn models_with_quantizers_are_integer() {
    let data = shared("data").expect("seen before");
    let cases = [
        ("resnet8_cifar10", "input", "output"),
        ("mobilenetv1_025_vww", "input", "output"),
        ("squeezenet11_imagenet", "data", "prob"),
        ("ultraface_rfb320", "input", "scores"),
    ];
    for (model, input, output) in cases {
        for form in ["qdq_u8", "qdq_s8"] {
            let dir = tempfile::tempdir().expect("a folder");
            let (q, dump) = (dir.path().join("q"), dir.path().join("dump"));
            let onnx = data.join(format!("quantized_by_onnxruntime/{model}.{form}.onnx"));
            let v = json(0, &["convert", text(&onnx), "--target", "onnxruntime", "-o", text(&q)]);
            assert_eq!(list(&v, "float_islands"), &Vec::<Value>::new(), "{model}.{form}");
            let golden = format!("{input}={}", text(&data.join(format!("golden/{model}.in.{input}.npy"))));
            let o = samebit(&["run", text(&q), "--input", &golden, "--dump", text(&dump)]);
            assert!(o.status.success(), "{model}.{form}: {}", String::from_utf8_lossy(&o.stderr));
            let read =
                |path: &Path| Array::open(path).and_then(|a| a.read()).unwrap_or_else(|e| panic!("{e}"));
            let got = read(&dump.join(format!("{output}.npy")));
            let want = read(&data.join(format!("golden/{model}.{form}.noopt.out.{output}.npy")));
            assert_eq!(got.shape(), want.shape(), "{model}.{form}");
            let off = got.f32s().iter().zip(want.f32s()).map(|(g, w)| (g - w).abs()).fold(0f32, f32::max);
            println!("{model}.{form}: largest difference of {output} from ONNX Runtime {off}");
            // Softmax differs, and what is before it by a code here and there.
            assert!(off < 0.06, "{model}.{form}: {off}");
        }
    }
}
