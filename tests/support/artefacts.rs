//! Calibrated and converted models by the binary.

#![allow(dead_code, reason = "each test binary uses a part")]

use super::binary::{json, text};
use samebit::graph::Graph;
use samebit::onnx::ImportOptions;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
pub const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");
pub const EVAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

/// Calibrated at a level and converted: the two graph files, and what `convert` says.
pub fn artefacts(dir: &Path, model: &Path, data: &str, more: &[&str]) -> (PathBuf, PathBuf, Value) {
    let (g, q) = (dir.join("g"), dir.join("q"));
    let args = ["calibrate", text(model), "--data", data, "--limit", "8", "-o", text(&g)];
    json(0, &[&args[..], more].concat());
    let v = json(0, &["convert", text(&g), "-o", text(&q)]);
    (g, q, v)
}

pub fn digits(dir: &Path) -> (PathBuf, PathBuf) {
    let (g, q, _) = artefacts(dir, Path::new(MODEL), CALIB, &[]);
    (g, q)
}

pub fn load(path: &Path) -> Graph {
    samebit::model::load(path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

pub fn list<'a>(v: &'a Value, name: &str) -> &'a Vec<Value> {
    v[name].as_array().unwrap_or_else(|| panic!("{name} in {v}"))
}
