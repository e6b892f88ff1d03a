//! Integer forms beyond those of convolutional networks, through the binary: what transformers, detectors and pictures
//! that are sampled leave in floats, and that the simulation, the integer model and the deployment file are one.

mod support;

use libtest_mimic::Arguments;
use samebit::data::write_npy;
use samebit::graph::sample::Rng;
use samebit::tensor::Tensor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::binary::{json, text};
use support::onnx::{A, D, F32, Graph as Model, f32s, i64s};
use support::{gpu, shared, trial};

const FRAMES: usize = 12;

fn main() {
    let absent = shared("data/models").is_none();
    let trials = vec![
        trial("a_graph_of_all_forms_has_no_islands", false, a_graph_of_all_forms_has_no_islands),
        trial("points_have_the_scale_of_their_picture", false, points_have_the_scale_of_their_picture),
        trial("transformers_are_integer_but_for_their_tails", absent, transformers_are_integer),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A picture that is enlarged three ways, sampled at points, summed and normalised, and the sum of a product.
fn model(padding: &'static str) -> Vec<u8> {
    let mut rng = Rng::new(17);
    let mut numbers = |name: &str, dims: &[i64], low: f32, high: f32| {
        let n: i64 = dims.iter().product();
        f32s(name, dims, &(0..n).map(|_| rng.float(low, high)).collect::<Vec<_>>())
    };
    let resize = |mode: &'static str, coordinates: &'static str| {
        let mut all = vec![("mode", A::Str(mode)), ("coordinate_transformation_mode", A::Str(coordinates))];
        if mode == "nearest" {
            all.extend([("nearest_mode", A::Str("floor")), ("extrapolation_value", A::Float(0.7))]);
        }
        all
    };
    Model::new()
        .input("x", F32, &[D::Name("N"), D::Size(4), D::Size(6), D::Size(8)])
        .input("points", F32, &[D::Name("N"), D::Size(2), D::Size(5), D::Size(7)])
        .init(numbers("w", &[4, 3, 3, 3], -0.5, 0.5))
        .init(numbers("b", &[6], -0.3, 0.3))
        .init(numbers("gamma", &[7], 0.5, 1.5))
        .init(numbers("beta", &[7], -0.5, 0.5))
        .init(numbers("w2", &[7, 4], -0.5, 0.5))
        .init(f32s("scales", &[4], &[1.0, 1.0, 2.0, 1.5]))
        .init(f32s("roi", &[8], &[0.0, 0.0, -0.1, 0.0, 1.0, 1.0, 1.0, 1.1]))
        .init(f32s("same", &[4], &[1.0, 1.0, 1.0, 1.0]))
        .init(i64s("rows", &[1], &[2]))
        .init(i64s("last", &[1], &[-1]))
        .node(
            "up",
            "ConvTranspose",
            &["x", "w", "b"],
            &["a"],
            &[
                ("group", A::Int(2)),
                ("strides", A::Ints(vec![2, 2])),
                ("pads", A::Ints(vec![1, 1, 1, 1])),
                ("output_padding", A::Ints(vec![1, 1])),
            ],
        )
        .node("positive", "Relu", &["a"], &["a+"], &[])
        .node("crop", "Resize", &["a+", "roi", "same"], &["c"], &resize("nearest", "tf_crop_and_resize"))
        .node("between", "Resize", &["c", "", "scales"], &["d"], &resize("linear", "half_pixel"))
        .node("turn", "Transpose", &["points"], &["grid"], &[("perm", A::Ints(vec![0, 2, 3, 1]))])
        .node("sample", "GridSample", &["d", "grid"], &["e"], &[("padding_mode", A::Str(padding))])
        .node("sum", "ReduceSum", &["e", "rows"], &["f"], &[("keepdims", A::Int(0))])
        .node("norm", "LayerNormalization", &["f", "gamma", "beta"], &["g"], &[])
        .node("bend", "Exp", &["g"], &["h"], &[])
        .node("inverse", "Reciprocal", &["h"], &["i"], &[])
        .node("product", "MatMul", &["i", "w2"], &["j"], &[])
        .node("total", "ReduceSum", &["j", "last"], &["y"], &[("keepdims", A::Int(0))])
        .output("y")
        .model(20)
}

/// The model and its data in a folder.
fn written(dir: &Path, padding: &'static str) -> (PathBuf, PathBuf) {
    let (onnx, set) = (dir.join("m.onnx"), dir.join("set.toml"));
    std::fs::write(&onnx, model(padding)).expect("writes");
    let mut rng = Rng::new(5);
    let mut draw = |name: &str, shape: &[usize], most: f32| {
        let v = (0..shape.iter().product()).map(|_| rng.float(-most, most)).collect();
        write_npy(&dir.join(name), &Tensor::from_f32(shape, v)).expect("writes");
    };
    draw("x.npy", &[FRAMES, 4, 6, 8], 1.0);
    draw("points.npy", &[FRAMES, 2, 5, 7], 1.3);
    let input = |name: &str| {
        format!("[[input]]\nname = \"{name}\"\nnpy = \"{name}.npy\"\nsource_layout = \"nchw\"\n")
    };
    let toml = format!("[dataset]\nname = \"drawn\"\n{}{}", input("x"), input("points"));
    std::fs::write(&set, toml).expect("writes");
    (onnx, set)
}

/// Calibrated, converted and compiled; what `convert` says, after all three were found to be one.
fn stages(dir: &Path, onnx: &Path, set: &Path, preset: &str) -> Value {
    let at = |name: &str| dir.join(name);
    let (config, g, q, bin) = (at("config.toml"), at("g"), at("q"), at("bin"));
    std::fs::write(&config, format!("preset = \"{preset}\"\n")).expect("writes");
    let data = ["--data", text(set), "--limit", "8"];
    json(0, &[&["calibrate", text(onnx), "--config", text(&config), "-o", text(&g)], &data[..]].concat());
    let v = json(0, &["convert", text(&g), "-o", text(&q)]);
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    let data = ["--data", text(set), "--limit", "2"];
    let same = json(0, &[&["verify", text(&g), text(&q)], &data[..]].concat());
    assert_eq!((&same["consistent"], &same["unmatched"]), (&true.into(), &serde_json::json!([])), "{same}");
    if gpu().is_some() {
        let on_gpu = ["--device-b", "gpu"];
        let same = json(0, &[&["verify", text(&q), text(&bin)], &data[..], &on_gpu].concat());
        assert_eq!(same["consistent"], true, "{same}");
    }
    v
}

fn names<'a>(v: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    let all = v[list].as_array().unwrap_or_else(|| panic!("{list} in {v}")).iter();
    all.map(|r| r[key].as_str().expect("a name")).collect()
}

fn a_graph_of_all_forms_has_no_islands() {
    for (preset, least, padding) in [("default", 0.98, "zeros"), ("all-i16", 0.999, "border")] {
        let dir = tempfile::tempdir().expect("a folder");
        let (onnx, set) = written(dir.path(), padding);
        let v = stages(dir.path(), &onnx, &set, preset);
        assert_eq!(v["float_islands"], serde_json::json!([]), "{preset}: {v}");
        let q = dir.path().join("q");
        let v = json(0, &["eval", text(&onnx), text(&q), "--data", text(&set)]);
        let cosine = v["models"][1]["agreement"]["y"]["cosine"].as_f64();
        println!("{preset}: cosine {cosine:?}");
        assert!(cosine > Some(least), "{preset}: {v}");
    }
}

/// One pixel beyond the shorter axis, whatever was observed; mirrored pictures have no such end.
fn points_have_the_scale_of_their_picture() {
    for (padding, scale) in [("zeros", Some((1.0 + 2.0 / 24.0) / 32767.0)), ("reflection", None)] {
        let dir = tempfile::tempdir().expect("a folder");
        let (onnx, set) = written(dir.path(), padding);
        let g = dir.path().join("g");
        let v = json(0, &["calibrate", text(&onnx), "--data", text(&set), "-o", text(&g)]);
        let all = v["quantizers"].as_array().expect("a list");
        let grid: Vec<&Value> = all.iter().filter(|q| q["role"] == "grid").collect();
        assert!(grid.len() == 1 && grid[0]["dtype"] == "i16", "{grid:?}");
        let got = grid[0]["scale"][0].as_f64().expect("a number");
        let origin = if scale.is_some() { "fixed" } else { "observed" };
        let want = scale.unwrap_or(1.3 / 32767.5);
        assert!((got / want - 1.0).abs() < 0.01 && grid[0]["origin"] == origin, "{padding}: {grid:?} {want}");
        // What lies beyond is not missed.
        let v = json(0, &["check", text(&onnx), "--data", text(&set)]);
        assert!(!names(&v, "findings", "rule").contains(&"fixed-range"), "{padding}: {v}");
    }
}

fn transformers_are_integer() {
    let data = shared("data").expect("seen before");
    for model in ["vit_cifar10", "bev_grid"] {
        let dir = tempfile::tempdir().expect("a folder");
        let onnx = data.join(format!("models/{model}.onnx"));
        let example =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/datasets/{model}.calib.toml"));
        let toml = std::fs::read_to_string(&example).expect("an example");
        let set = dir.path().join("set.toml");
        std::fs::write(&set, toml.replace("../../../shared/data", text(&data))).expect("writes");
        let v = stages(dir.path(), &onnx, &set, "default");
        let islands = names(&v, "float_islands", "op");
        let tail = ["Sigmoid", "Tanh", "Concat"];
        assert!(islands.iter().all(|op| tail.contains(op) && model == "bev_grid"), "{model}: {islands:?}");
        let saturated = v["accumulators"].as_array().expect("a list").iter().map(|a| &a["saturated_bias"]);
        assert!(saturated.clone().count() > 10 && saturated.clone().all(|n| *n == 0), "{model}: {v}");
    }
}
