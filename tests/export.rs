//! `export` through the binary: what is replaced, alone and together, and that the stages before and behind it agree.

mod support;

use libtest_mimic::Arguments;
use samebit::data::write_npy;
use samebit::graph::sample::Rng;
use samebit::graph::{Graph, Stage};
use samebit::onnx::ImportOptions;
use samebit::ops::table_error;
use samebit::quant::QParams;
use samebit::tensor::{DType, Tensor};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::binary::{json, refused, text};
use support::onnx::{self, D, F32};
use support::trial;

fn main() {
    let trials = vec![
        trial("the_stages_agree", false, the_stages_agree),
        trial("one_replacement_alone", false, one_replacement_alone),
        trial("level_3_simulates_what_is_exported", false, level_3_simulates_what_is_exported),
        trial("tables_are_as_near_as_codes_can_be", false, tables_are_as_near_as_codes_can_be),
        trial("every_code_has_an_entry", false, every_code_has_an_entry),
        trial("other_stages_are_refused", false, other_stages_are_refused),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn load(path: &Path) -> Graph {
    samebit::model::load(path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    /// A model with a table, a softmax and a function that ends in a product, and data for it.
    fn new(function: &str) -> Case {
        let case = Case { dir: tempfile::tempdir().expect("a folder") };
        let mut rng = Rng::new(3);
        let mut weights = |name: &str| {
            let w: Vec<f32> = (0..64).map(|_| rng.float(-0.5, 0.5)).collect();
            onnx::f32s(name, &[8, 8], &w)
        };
        let model = onnx::Graph::new()
            .input("x", F32, &[D::Name("N"), D::Size(8)])
            .init(weights("w1"))
            .init(weights("w2"))
            .init(weights("w3"))
            .init(weights("w4"))
            .node("first", "MatMul", &["x", "w1"], &["a"], &[])
            .node("bend", "Sigmoid", &["a"], &["b"], &[])
            .node("second", "MatMul", &["b", "w2"], &["c"], &[])
            .node("share", "Softmax", &["c"], &["d"], &[])
            .node("third", "MatMul", &["d", "w3"], &["e"], &[])
            .node("last", function, &["e"], &["f"], &[])
            .node("fourth", "MatMul", &["f", "w4"], &["y"], &[])
            .output("y")
            .model(17);
        std::fs::write(case.at("m.onnx"), model).expect("writes");
        let x = (0..64 * 8).map(|_| rng.float(-2.0, 2.0)).collect();
        write_npy(&case.at("x.npy"), &Tensor::from_f32([64, 8], x)).expect("writes");
        case
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Value {
        json(0, args)
    }

    fn calibrated(&self, level: &str) -> PathBuf {
        let (model, data, out) = (self.at("m.onnx"), self.at("x.npy"), self.at("g"));
        self.run(&[
            "calibrate",
            text(&model),
            "--data",
            text(&data),
            "--consistency",
            level,
            "-o",
            text(&out),
        ]);
        out
    }

    /// The largest differences of the outputs of two models.
    fn off(&self, a: &Path, b: &Path) -> f64 {
        let v = self.run(&["eval", text(a), text(b), "--data", text(&self.at("x.npy"))]);
        v["models"][1]["agreement"]["y"]["max_abs"].as_f64().expect("a number")
    }
}

fn names<'a>(v: &'a Value, list: &str) -> Vec<&'a str> {
    let all = v[list].as_array().expect("a list").iter();
    all.map(|r| r["node"].as_str().expect("a name")).collect()
}

fn the_stages_agree() {
    let case = Case::new("Tanh");
    for level in ["4", "1"] {
        let g = case.calibrated(level);
        let (e, q, of_e) = (case.at("e"), case.at("q"), case.at("of_e"));
        let v = case.run(&["export", text(&g), "-o", text(&e)]);
        assert_eq!(v["stage"], "export");
        assert_eq!(names(&v, "replaced"), ["bend", "share", "last"]);
        assert_eq!(v["kept"], serde_json::json!([]));
        assert_eq!(names(&v, "tables"), ["bend", "last"]);
        let exported = load(&e);
        assert_eq!(exported.stage, Stage::Export);
        for r in v["replaced"].as_array().expect("a list") {
            let id = r["by"].as_u64().expect("an id");
            let node = exported.nodes().iter().find(|n| u64::from(n.id.0) == id).expect("its node");
            assert!(node.op.codes().is_some(), "{r}: {}", node.label());
        }
        // Quantizers keep their ids and parameters.
        let before = load(&g);
        for n in exported.nodes() {
            if let Some(q) = n.quantizer() {
                assert_eq!(before.node(n.id).and_then(|n| n.quantizer()), Some(q));
            }
        }
        case.run(&["convert", text(&g), "-o", text(&q)]);
        let v = case.run(&["convert", text(&e), "-o", text(&of_e)]);
        assert_eq!(v["float_islands"], serde_json::json!([]), "{v}");
        // What is exported and then converted is what is converted.
        let v = case.run(&["verify", text(&q), text(&of_e), "--data", text(&case.at("x.npy"))]);
        assert!(v["consistent"] == true && v["unmatched"] == serde_json::json!([]), "{v}");
        assert_eq!(case.off(&q, &of_e), 0.0);
        let off = case.off(&g, &e);
        if level == "4" {
            assert_eq!((off, case.off(&e, &q)), (0.0, 0.0), "level 4 changes nothing");
        } else {
            assert!(off > 0.0 && off < 0.05, "{off}");
        }
    }
}

fn one_replacement_alone() {
    let case = Case::new("Tanh");
    let g = case.calibrated("1");
    let e = case.at("e");
    let mut all = 0;
    for only in ["bend", "share", "last", "{bend,last}"] {
        let v = case.run(&["export", text(&g), "--only", only, "-o", text(&e)]);
        let replaced = names(&v, "replaced");
        assert!(replaced.iter().all(|r| only.contains(r)) && !replaced.is_empty(), "{only}: {replaced:?}");
        all += replaced.len();
        let exported = load(&e);
        let on_codes =
            exported.nodes().iter().filter(|n| n.op.codes().is_some() && n.op.def().name != "Quantize");
        assert_eq!(on_codes.count(), replaced.len());
        assert!(case.off(&g, &e) < 0.05, "{only}");
    }
    assert_eq!(all, 5);
    let wrong = ["export", text(&g), "--only", "first", "-o", text(&e)];
    refused(&wrong, &["first", "bend", "share", "last"]);
}

fn level_3_simulates_what_is_exported() {
    let case = Case::new("Tanh");
    let g = case.calibrated("3");
    for n in load(&g).nodes() {
        let Some(p) = n.quantizer().and_then(|q| q.params.as_ref()) else { continue };
        assert!(
            p.scales().iter().all(|s| s.to_bits().trailing_zeros() >= 23),
            "{}: {:?}",
            n.name,
            p.scales()
        );
    }
    let (e, q) = (case.at("e"), case.at("q"));
    case.run(&["export", text(&g), "-o", text(&e)]);
    assert_eq!(case.off(&g, &e), 0.0);
    // Sums below 2^24 of powers of two are exact in f32: the integer model gives the same.
    case.run(&["convert", text(&g), "-o", text(&q)]);
    assert_eq!(case.off(&g, &q), 0.0);
}

fn tables_are_as_near_as_codes_can_be() {
    let types = [samebit::tensor::TensorType::new(DType::F32, vec![4])];
    let op = samebit::ops::build("Sigmoid", samebit::graph::Attrs::new(), &types).expect("builds");
    for dtype in [DType::I8, DType::U8, DType::I16] {
        let (_, high) = dtype.limits().expect("codes");
        let scale = 8.0 / high as f32;
        let x = QParams::per_tensor(dtype, scale, high / 2 + 1).expect("legal");
        // Numbers from 0 to 1, all within the codes.
        let y = QParams::per_tensor(DType::U8, 1.0 / 255.0, 0).expect("legal");
        let params = samebit::graph::CodeParams::new([x], y, Vec::new());
        let e = table_error(op.as_ref(), &params).expect("a table");
        assert_eq!((e.entries, e.not_finite), (1 << (dtype.size_bytes() * 8), 0));
        assert!(e.worst <= e.step / 2.0 * (1.0 + 1e-9) && e.worst > 0.4 * e.step, "{dtype}: {e:?}");
        assert!(e.mean > 0.0 && e.mean < e.worst, "{dtype}: {e:?}");
    }
}

/// What is infinite saturates; where there is nothing, the nearest code counts at which there is something.
fn every_code_has_an_entry() {
    let types = [samebit::tensor::TensorType::new(DType::F32, vec![4])];
    let entries = |name: &'static str, zero: i32, y: f32| {
        let op = samebit::ops::build(name, samebit::graph::Attrs::new(), &types).expect("builds");
        let p = |scale: f32, zero: i32| QParams::per_tensor(DType::I8, scale, zero).expect("legal");
        let params = samebit::graph::CodeParams::new([p(0.25, zero)], p(y, 3), Vec::new());
        let (_, table) = samebit::ops::table(op.as_ref(), &params).expect("fits").expect("a table");
        table.codes().expect("codes")
    };
    let at = |all: &[i32], code: i32| all[usize::try_from(code + 128).expect("a code")];
    let log = entries("Log", 0, 0.1);
    assert_eq!([at(&log, -128), at(&log, -1), at(&log, 0)], [-128; 3]);
    assert_eq!([at(&log, 1), at(&log, 4)], [3 - 14, 3]);
    let root = entries("Sqrt", 5, 0.1);
    assert_eq!([at(&root, -128), at(&root, 4), at(&root, 5), at(&root, 9)], [3, 3, 3, 13]);
    let inverse = entries("Reciprocal", 0, 0.1);
    assert_eq!([at(&inverse, -1), at(&inverse, 0), at(&inverse, 1), at(&inverse, 4)], [3 - 40, 127, 43, 13]);
    // Codes -4 to 4 are from -1 to 1.
    let arc = entries("Asin", 0, 0.1);
    assert_eq!([at(&arc, 127), at(&arc, 4), at(&arc, -4), at(&arc, -5)], [3 + 16, 3 + 16, 3 - 16, 3 - 16]);
    let case = Case::new("Reciprocal");
    let g = case.calibrated("4");
    let (e, q) = (case.at("e"), case.at("q"));
    let v = case.run(&["export", text(&g), "-o", text(&e)]);
    assert_eq!(names(&v, "replaced"), ["bend", "share", "last"]);
    let v = case.run(&["convert", text(&g), "-o", text(&q)]);
    assert_eq!(v["float_islands"], serde_json::json!([]));
    assert_eq!((case.off(&g, &e), case.off(&g, &q)), (0.0, 0.0));
}

fn other_stages_are_refused() {
    let case = Case::new("Tanh");
    let g = case.calibrated("4");
    let (e, q) = (case.at("e"), case.at("q"));
    refused(&["export", text(&case.at("m.onnx")), "-o", text(&e)], &["stage float", "fake-quant is needed"]);
    case.run(&["convert", text(&g), "-o", text(&q)]);
    refused(&["export", text(&q), "-o", text(&e)], &["stage quantized"]);
    case.run(&["export", text(&g), "-o", text(&e)]);
    refused(&["export", text(&e), "-o", text(&q)], &["stage export"]);
    refused(&["compile", text(&e), "-o", text(&q)], &["stage export", "samebit convert"]);
    let data = case.at("x.npy");
    refused(&["calibrate", text(&e), "--data", text(&data), "-o", text(&q)], &["stage export"]);
}
