//! Scales as JSON through the binary: written in the forms of other tools and read back to the same scales.

mod support;

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
