//! A model that PyTorch trained with quantizers, through the binary: what ONNX Runtime computes, and the scales of the
//! file.

mod support;

use samebit::data::Array;
use samebit::tensor::Tensor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::binary::{json, text};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/qat_digits");
const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");
/// What the mean over the plane takes.
const FEATURES: &str = "/activation_post_process_6/DequantizeLinear_output_0";

fn file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn array(path: &Path) -> Tensor {
    Array::open(path).expect("opens").read().expect("reads")
}

#[test]
fn the_codes_are_those_of_onnx_runtime() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, input) = (file("model.onnx"), format!("image={}", text(&file("image.npy"))));
    let args = ["run", text(&model), "--input", &input, "--layers", FEATURES, "--dump", text(dir.path())];
    let v = json(0, &args);
    let outputs = v["outputs"].as_array().expect("a list");
    let of = |name: &str| -> Vec<f32> {
        let o = outputs.iter().find(|o| o["name"] == name).unwrap_or_else(|| panic!("{name} in {v}"));
        let path = dir.path().join(o["file"].as_str().expect("a file"));
        array(&path).f32s().to_vec()
    };
    let features = of(FEATURES);
    assert_eq!(features, array(&file("features.npy")).f32s(), "before the mean");
    // Means of 16 codes lie half way between two so often that the order of a float sum shows: a code of the output here
    // and there, whose step is 0.08686.
    let (logits, want) = (of("logits"), array(&file("logits.npy")));
    let differ: Vec<f32> =
        logits.iter().zip(want.f32s()).map(|(a, b)| (a - b).abs()).filter(|d| *d > 0.0).collect();
    assert!(differ.iter().all(|d| *d < 0.0869) && differ.len() * 20 < logits.len(), "{differ:?}");
}

#[test]
fn calibration_keeps_every_scale_of_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("g");
    let model = file("model.onnx");
    let v = json(0, &["calibrate", text(&model), "--data", CALIB, "--consistency", "1", "-o", text(&out)]);
    let all = v["quantizers"].as_array().expect("a list");
    let count = |role: &str, dtype: &str| {
        all.iter().filter(|q| q["role"] == role && q["dtype"] == dtype && q["origin"] == "imported").count()
    };
    assert_eq!(
        [count("input", "u8"), count("activation", "u8"), count("output", "u8"), count("weight", "i8")],
        [1, 7, 1, 5]
    );
    assert_eq!(all.len(), 14);
    let weights = all.iter().filter(|q| q["role"] == "weight");
    assert!(weights.clone().all(|q| q["axis"] == 0 && q["scale"].as_array().is_some_and(|s| s.len() >= 10)));
    let v = json(0, &["eval", text(&model), text(&out), "--data", DATA]);
    let top1 = |i: usize| v["models"][i]["metrics"]["top1"].clone();
    // 768 of 797, as in PyTorch and ONNX Runtime.
    assert!(top1(0).as_f64().is_some_and(|t| (t - 768.0 / 797.0).abs() < 1e-12), "{v}");
    assert_eq!(top1(1), top1(0));
    let same: &Value = &v["models"][1]["agreement"]["logits"]["max_abs"];
    assert_eq!(same.as_f64(), Some(0.0), "the graph of a calibration that had nothing to find is the model");
}
