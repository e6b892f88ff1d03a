//! Models on codes that ONNX Runtime made, code for code what it gives at every tensor of them, its optimizer off and on.
//!
//! `scripts/onnxruntime_codes.py` asks it, by the Python of `SAMEBIT_PEER_PYTHON` or that of `target/venv`, which `./test`
//! makes. Without one that has it, or without `../shared`, the models are reported as ignored. What it gives for single
//! operators with drawn scales lies in `tests/data/onnxruntime`.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Dataset, Loader, LoaderOptions};
use samebit::model;
use samebit::onnx::ImportOptions;
use samebit::tensor::DType;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::binary::{json, samebit, text};
use support::{shared, trial};

/// Models, with how many tensors of each are compared and how many are taken from ONNX Runtime, behind what runs in f32.
const MODELS: [(&str, u64, usize); 5] = [
    ("resnet8_cifar10", 17, 0),
    ("mobilenetv1_025_vww", 32, 0),
    ("squeezenet11_imagenet", 40, 0),
    ("ultraface_rfb320", 74, 0),
    ("vit_cifar10", 89, 11),
];
const FRAMES: usize = 16;
/// Of the operators.
const INPUTS: [&str; 5] = ["u8", "i8", "u8b", "i8b", "x"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> Option<PathBuf> {
    let given = std::env::var_os("SAMEBIT_PEER_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| root().join("target/venv/bin/python"));
    let has = Command::new(&python).args(["-c", "import onnx, onnxruntime"]).output();
    has.is_ok_and(|o| o.status.success()).then_some(python)
}

fn main() {
    let absent = shared("data/quantized_by_onnxruntime").is_none() || python().is_none();
    let trials = vec![
        trial("models_give_the_codes_of_onnx_runtime", absent, models_give_the_codes_of_onnx_runtime),
        trial("operators_give_the_codes_of_onnx_runtime", false, operators_give_the_codes_of_onnx_runtime),
        trial("a_changed_code_is_found", false, a_changed_code_is_found),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The input of a data set's first frames, as a file.
fn input(model: &Path, data: &Path, into: &Path) -> String {
    let graph = model::load(model, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let of = |v: &samebit::graph::ValueId| (graph.value(*v).name.clone(), graph.value(*v).ty.clone());
    let inputs: Vec<_> = graph.inputs.iter().map(of).collect();
    assert_eq!((inputs.len(), inputs[0].1.dtype), (1, DType::F32));
    let bound = Dataset::open(data).expect("opens").limit(FRAMES).inputs_for(&inputs).expect("fits");
    let options = LoaderOptions { batch: FRAMES, ..LoaderOptions::default() };
    let batch = Loader::new(bound, options).expect("starts").next().expect("a batch").expect("reads");
    let mut dump = samebit::data::dump::DumpWriter::create(into).expect("a folder");
    dump.append(&inputs[0].0, &batch.without_padding(&batch.inputs[0])).expect("writes");
    dump.finish(&batch.ids, None).expect("writes");
    format!("{}={}", inputs[0].0, text(&into.join(format!("{}.npy", inputs[0].0))))
}

fn models_give_the_codes_of_onnx_runtime() {
    let python = python().expect("looked for before");
    let only = std::env::var("SAMEBIT_MODEL").unwrap_or_default();
    for (name, layers, injected) in MODELS.iter().filter(|m| m.0.contains(&only)) {
        let model = shared(&format!("data/quantized_by_onnxruntime/{name}.qoperator_u8.onnx"));
        let model = model.unwrap_or_else(|| panic!("{name} is not there"));
        let data = root().join(format!("examples/datasets/{name}.toml"));
        let dir = tempfile::tempdir().expect("a folder");
        let given = input(&model, &data, &dir.path().join("input"));
        for optimizer in [None, Some("--optimizer")] {
            let dump = dir.path().join(optimizer.unwrap_or("plain"));
            let mut asked = Command::new(&python);
            asked.arg(root().join("scripts/onnxruntime_codes.py")).arg(&model).arg(&given).arg(&dump);
            let o = asked.args(optimizer).output().expect("Python runs");
            assert!(o.status.success(), "{name}: {}", String::from_utf8_lossy(&o.stderr));
            let limit = FRAMES.to_string();
            let args = ["verify", text(&model), text(&dump), "--data", text(&data), "--limit", &limit];
            let v = json(0, &args);
            println!(
                "{name} {optimizer:?}: {} tensors, {} codes",
                v["compared_layers"], v["compared_elements"]
            );
            assert_eq!(v["frames"], FRAMES, "{name}");
            assert!(v["compared_layers"].as_u64() >= Some(*layers), "{name}: {v}");
            assert!(v["injected"].as_array().is_some_and(|l| l.len() >= *injected), "{name}: {v}");
        }
    }
}

fn operators() -> (PathBuf, PathBuf) {
    let folder = root().join("tests/data/onnxruntime");
    (folder.join("operators.onnx"), folder.join("codes"))
}

fn operators_give_the_codes_of_onnx_runtime() {
    let (model, dump) = operators();
    let inputs: Vec<String> =
        INPUTS.iter().map(|n| format!("{n}={}", text(&dump.join(format!("{n}.npy"))))).collect();
    let mut args = vec!["verify", text(&model), text(&dump)];
    args.extend(inputs.iter().flat_map(|i| ["--input", i]));
    let v = json(0, &args);
    assert!(v["compared_layers"].as_u64() > Some(250), "{v}");
    // Codes of a concatenation at the scale of its output have no name there.
    let alone = v["unmatched"].as_array().expect("a list");
    assert!(alone.iter().all(|n| n.as_str().is_some_and(|n| n.starts_with("concat_"))), "{alone:?}");
}

fn a_changed_code_is_found() {
    let (model, dump) = operators();
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(&dump).expect("lists") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copies");
    }
    let changed = dir.path().join("add_0.npy");
    let mut bytes = std::fs::read(&changed).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&changed, bytes).expect("writes");
    let inputs: Vec<String> =
        INPUTS.iter().map(|n| format!("{n}={}", text(&dump.join(format!("{n}.npy"))))).collect();
    let mut args = vec!["verify", text(&model), text(dir.path())];
    args.extend(inputs.iter().flat_map(|i| ["--input", i]));
    let o = samebit(&args);
    let said = String::from_utf8_lossy(&o.stdout);
    assert_eq!(o.status.code(), Some(1), "{said}");
    assert!(said.contains("add_0"), "{said}");
}
