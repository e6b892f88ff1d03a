//! Scales as JSON through the binary: written in the forms of other tools and read back to the same scales.

mod support;

use samebit::data::write_npy;
use samebit::graph::file;
use samebit::graph::text::parse;
use samebit::ops::by_name;
use samebit::tensor::Tensor;
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::binary::{bytes, json, refused, samebit, text};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, v: &Value) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, v.to_string()).expect("writes");
        path
    }

    /// Calibrates with a configuration on the bundled data; the graph and the quantizers by name.
    fn calibrate(&self, name: &str, config: &str, more: &[&str]) -> (PathBuf, BTreeMap<String, Value>) {
        let (toml, out) = (self.path("q.toml"), self.path(name));
        std::fs::write(&toml, config).expect("writes");
        let args = ["calibrate", MODEL, "--config", text(&toml), "-o", text(&out)];
        let v = json(0, &[&args, more].concat());
        (out, quantizers(&v))
    }

    fn save(&self, graph: &Path, form: &str) -> (PathBuf, Value, Value) {
        let path = self.path(form);
        let v = json(0, &["save-ranges", text(graph), "--form", form, "-o", text(&path)]);
        let file = serde_json::from_slice(&bytes(&path)).expect("JSON");
        (path, file, v)
    }
}

fn quantizers(v: &Value) -> BTreeMap<String, Value> {
    let all = v["quantizers"].as_array().expect("a list").iter();
    all.map(|q| (q["name"].as_str().expect("a name").to_owned(), q.clone())).collect()
}

const MIXED: &str = "preset = \"all-i8\"\n[[rule]]\nname = \"block2\"\nactivation = \"i16\"\n[[rule]]\nname = \"stem\"\nactivation = \"u8\"\nweight = \"i4\"";

#[test]
fn aimet_encodings_come_back_to_the_same_scales_without_data() {
    let dir = Folder::new();
    let (graph, before) = dir.calibrate("a.g", MIXED, &["--data", CALIB]);
    let (path, file, said) = dir.save(&graph, "aimet");
    assert_eq!((&file["version"], &said["left_out"]), (&"0.6.1".into(), &value!([])));
    // Tensors by the names of the ONNX model: also of the output, whose quantizer took its name, and of folded weights.
    let image = &file["activation_encodings"]["image"];
    let scale = before["image/quantizer"]["scale"][0].as_f64().expect("a scale");
    assert_eq!(image.as_array().map(Vec::len), Some(1));
    let of = |key: &str| image[0][key].as_f64().expect("a number");
    assert!((of("max") - 127.0 * scale).abs() < 1e-12 && of("min") == -128.0 * scale, "{image}");
    let rest = ["bitwidth", "dtype", "is_symmetric", "offset", "scale"].map(|k| image[0][k].clone());
    assert_eq!(value!(rest), value!([8, "int", "True", -128, scale]));
    assert!(file["activation_encodings"]["logits"].is_array());
    let stem = file["param_encodings"]["stem.weight"].as_array().expect("one a channel");
    assert_eq!((stem.len(), &stem[0]["bitwidth"], &stem[0]["offset"]), (16, &4.into(), &value!(-7)));

    // Types and axes are the file's, too: only what is quantized comes from the configuration.
    let (again, after) = dir.calibrate(
        "b.g",
        "preset = \"all-i8\"\n[[rule]]\nname = \"stem\"\nactivation = \"u8\"",
        &["--ranges", text(&path)],
    );
    for (name, q) in &before {
        let new = &after[name];
        assert_eq!((&new["origin"], &new["observer"]), (&"fixed".into(), &"fixed".into()), "{name}");
        for key in ["scale", "zero_point", "dtype", "axis"] {
            assert_eq!(new[key], q[key], "{name} {key}");
        }
    }
    let written = bytes(&path);
    assert_eq!(bytes(&dir.save(&again, "aimet").0), written);
    let out = samebit(&["save-ranges", text(&again), "--form", "aimet", "-o", "-"]);
    assert_eq!(out.stdout, written);
}

#[test]
fn ranges_for_onnx_runtime_come_back_to_the_same_scales() {
    let dir = Folder::new();
    let (graph, before) = dir.calibrate("a.g", MIXED, &["--data", CALIB]);
    let (path, file, said) = dir.save(&graph, "onnxruntime");
    assert_eq!((&file["CLS"], &file["smooth_quant"]), (&"TensorsData".into(), &false.into()));
    assert_eq!(file["calibration_method"]["value"], "CalibrationMethod.MinMax");
    let weights = before.values().filter(|q| q["role"] == "weight" || q["role"] == "constant").count();
    assert_eq!(said["left_out"].as_array().map(Vec::len), Some(weights));
    assert_eq!(said["tensors"].as_u64(), Some((before.len() - weights) as u64));
    let end = |name: &str, key: &str| file["data"][name][key]["data"].as_f64().expect("a number");
    let scale = before["image/quantizer"]["scale"][0].as_f64().expect("a scale");
    assert_eq!(
        (end("image", "lowest"), file["data"]["image"]["highest"]["dtype"].as_str()),
        (-128.0 * scale, Some("float32"))
    );
    assert!((end("image", "highest") / (127.0 * scale) - 1.0).abs() < 1e-6);
    // ONNX Runtime fuses the clamp into what is before it and asks for the range of that.
    assert_eq!(file["data"]["stem_bn"], file["data"]["stem_relu"]);
    let (_, after) = dir.calibrate("b.g", MIXED, &["--ranges", text(&path)]);
    for (name, q) in &before {
        let origin = if q["role"] == "weight" || q["role"] == "constant" { "observed" } else { "fixed" };
        assert_eq!(after[name]["origin"], origin, "{name}");
        assert_eq!(
            (&after[name]["scale"], &after[name]["zero_point"]),
            (&q["scale"], &q["zero_point"]),
            "{name}"
        );
    }
}

#[test]
fn what_a_file_does_not_name_is_observed() {
    let dir = Folder::new();
    let (_, plain) = dir.calibrate("a.g", "", &["--data", CALIB]);
    let pairs = dir.write("pairs.json", &value!({ "image": [0.0, 1.0], "logits": [-9.0, 9.0] }));
    let (_, some) = dir.calibrate("b.g", "", &["--data", CALIB, "--ranges", text(&pairs)]);
    for (name, q) in &some {
        if name == "image/quantizer" {
            // As ONNX Runtime's quantizer does: 255 steps from 0 to 1.
            assert_eq!((&q["origin"], &q["zero_point"]), (&"fixed".into(), &value!([-128])));
            assert_eq!(q["scale"][0].as_f64(), Some(f64::from(1.0f32 / 255.0)));
        } else {
            assert_eq!((&q["origin"], &q["scale"]), (&"observed".into(), &plain[name]["scale"]), "{name}");
        }
    }
    let out = dir.path("g");
    let v = json(0, &["calibrate", MODEL, "--data", CALIB, "--ranges", text(&pairs), "-o", text(&out)]);
    let warnings = v["warnings"].to_string();
    assert!(warnings.contains("1 tensors of the file are not quantized here: logits"), "{warnings}");
    refused(
        &["calibrate", MODEL, "--ranges", text(&pairs), "-o", text(&out)],
        &["no scale for", "stem_relu", "--data"],
    );
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let dir = Folder::new();
    let out = dir.path("g");
    let step = |more: Value| {
        let mut e =
            value!({ "bitwidth": 8, "dtype": "int", "offset": -128, "scale": 0.5, "is_symmetric": "True" });
        e.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        e
    };
    let of = |name: &str, e: Value| value!({ "version": "0.6.1", "activation_encodings": { name: e }, "param_encodings": {} });
    for (file, parts) in [
        (value!({ "imagee": [0, 1] }), vec!["\"imagee\"", "near: image", "another model"]),
        (value!({ "image": [1, 0] }), vec!["\"image\"", "range"]),
        (value!({ "image": [0, 1, 2] }), vec!["\"image\"", "pair"]),
        (value!({ "image": { "lowest": { "data": [0, 1] }, "highest": 1 } }), vec!["\"image\"", "channels"]),
        (value!({ "ranges": 3 }), vec!["form", "aimet", "onnxruntime"]),
        (value!([1]), vec!["form"]),
        (value!({ "version": "1.0.0", "activation_encodings": [] }), vec!["1.0.0", "0.6.1"]),
        (of("image", value!([step(value!({ "dtype": "float" }))])), vec!["\"image\"", "float", "rule"]),
        (of("image", value!([step(value!({ "bitwidth": 32 }))])), vec!["\"image\"", "bitwidth 32", "16"]),
        (of("image", value!([step(value!({ "offset": 0.5 }))])), vec!["\"image\"", "offset 0.5"]),
        (of("image", value!([step(value!({ "offset": 3 }))])), vec!["\"image\"", "zero point -131"]),
        (of("image", value!([step(value!({ "scale": 0 }))])), vec!["\"image\"", "scale 0"]),
        (
            of("image", value!([step(value!({})), step(value!({}))])),
            vec!["\"image\"", "2 encodings", "one scale"],
        ),
        (of("stem.weight", value!([step(value!({})), step(value!({}))])), vec!["2 encodings", "16 channels"]),
    ] {
        let path = dir.write("r.json", &file);
        refused(
            &["calibrate", MODEL, "--data", CALIB, "--ranges", text(&path), "-o", text(&out)],
            &["r.json"],
        );
        refused(&["calibrate", MODEL, "--data", CALIB, "--ranges", text(&path), "-o", text(&out)], &parts);
    }
    let pairs = dir.write("r.json", &value!({ "image": [0, 1] }));
    let (graph, _) = dir.calibrate("a.g", "", &["--data", CALIB]);
    let args = ["calibrate", text(&graph), "--data", CALIB, "--ranges", text(&pairs), "-o", text(&out)];
    refused(&args, &["has quantizers already"]);
    refused(
        &["save-ranges", MODEL, "--form", "aimet", "-o", text(&out)],
        &["no quantizers", "samebit calibrate"],
    );
    assert!(!out.exists());
}

#[test]
fn scales_and_ranges_of_rules_are_fixed() {
    let dir = Folder::new();
    let config = "[[rule]]\nname = \"image\"\nscale = 0.0078125\n[[rule]]\nname = \"stem\"\nrange = [-2, 2]";
    let (_, q) = dir.calibrate("a.g", config, &["--data", CALIB]);
    assert_eq!(
        (&q["image/quantizer"]["scale"], &q["image/quantizer"]["origin"]),
        (&value!([0.0078125]), &"fixed".into())
    );
    let stem = &q["stem_relu/quantizer"];
    assert_eq!((&stem["scale"], &stem["origin"]), (&value!([0.015625]), &"fixed".into()));
}

#[test]
fn ranges_that_tell_nothing_are_warned_of() {
    let dir = Folder::new();
    let warned = |file: Value| {
        let (path, out) = (dir.write("r.json", &file), dir.path("z.g"));
        let v = json(0, &["calibrate", MODEL, "--data", CALIB, "--ranges", text(&path), "-o", text(&out)]);
        (
            quantizers(&v)["image/quantizer"]["scale"][0].as_f64(),
            v["warnings"].as_array().expect("a list").clone(),
        )
    };
    let one = |w: &[Value], part: &str| w.len() == 1 && w[0].as_str().is_some_and(|w| w.contains(part));
    let (scale, w) = warned(value!({ "image": [0, 0] }));
    assert!(
        scale == Some(1.0) && one(&w, "--ranges: image: its range in the file is zero: scale 1"),
        "{w:?}"
    );
    let (scale, w) = warned(value!({ "image": [5, 5] }));
    assert!(scale != Some(1.0) && one(&w, "the number 5.0 alone"), "{w:?}");
    assert_eq!(warned(value!({ "image": [0, 1] })).1, Vec::<Value>::new());
}

#[test]
fn what_an_operator_bounds_keeps_its_scale() {
    let dir = Folder::new();
    let model = "graph \"attention\" float
input v0 \"x\" f32[N,3,4]
const v1 \"w\" f32[4,4] [1.0, 0.5, -0.25, 0.1, 0.2, 1.0, 0.0, 0.3, 0.0, -0.5, 1.0, 0.0, 0.3, 0.1, 0.2, 1.0]
%0 \"turn\" Transpose(v0) {perm = [0, 2, 1]} -> v2 \"t\" f32[N,4,3]
%1 \"scores\" MatMul(v0, v2) -> v3 \"s\" f32[N,3,3]
%2 \"softmax\" Softmax(v3) {axis = -1, to_end = 0} -> v4 \"p\" f32[N,3,3]
%3 \"mixed\" MatMul(v4, v0) -> v5 \"a\" f32[N,3,4]
%4 \"last\" MatMul(v5, v1) -> v6 \"y\" f32[N,3,4]
output v6
";
    let graph = parse(model, by_name, &BTreeMap::default()).unwrap_or_else(|e| panic!("{e}"));
    let (g, x, out) = (dir.path("m.g"), dir.path("x.npy"), dir.path("out.g"));
    file::save(&graph, &g).expect("saves");
    write_npy(&x, &Tensor::from_f32([2, 3, 4], (0..24).map(|i| i as f32 / 8.0).collect())).expect("writes");
    let args = ["calibrate", text(&g), "--data", text(&x), "-o", text(&out)];
    let before = quantizers(&json(0, &args));
    let ranges = dir.write("r.json", &value!({ "p": [0, 0.5], "s": [-4, 4], "softmax/exp": [0, 0.25] }));
    let v = json(0, &[&args[..], &["--ranges", text(&ranges)]].concat());
    let after = quantizers(&v);
    let taps: Vec<&String> = before.keys().filter(|n| before[*n]["role"] == "tap").collect();
    assert!(taps.len() >= 4, "{taps:?}");
    for name in taps {
        let same = after[name]["scale"] == before[name]["scale"];
        // Scores are as large as the data makes them.
        assert_eq!(same, name.as_str() != "s/quantizer", "{name}: {}", after[name]);
    }
    let warnings: Vec<&str> =
        v["warnings"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for name in ["p", "softmax/exp"] {
        let said = |w: &&str| w.starts_with(&format!("--ranges: {name}: keeps scale")) && w.contains("fixes");
        assert!(warnings.iter().any(said), "{name}: {warnings:?}");
    }
    // What is written is read again without a word.
    let (path, _, _) = dir.save(&out, "aimet");
    let again = json(0, &[&args[..], &["--ranges", text(&path)]].concat());
    assert_eq!(again["warnings"], value!([]));
}

#[test]
fn zero_points_of_an_imported_model_are_offsets() {
    let dir = Folder::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/qat_digits/model.onnx");
    let (_, file, _) = dir.save(&model, "aimet");
    let e = &file["activation_encodings"]["/left.0/Conv_output_0"][0];
    // u8 with zero point 125.
    let scale = e["scale"].as_f64().expect("a scale");
    assert_eq!(
        (&e["offset"], &e["is_symmetric"], e["min"].as_f64()),
        (&value!(-125), &"False".into(), Some(-125.0 * scale))
    );
    assert!((e["max"].as_f64().expect("an end") - 130.0 * scale).abs() < 1e-12);
}
