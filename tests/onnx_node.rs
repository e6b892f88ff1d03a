//! ONNX's own backend node tests on the CPU and, where there is an adapter, on the GPU.
//!
//! `tests/onnx_node/generate.py` writes them (`./test` calls it); without them the test is reported as ignored. A case
//! is *claimed* when its operator set is one that is imported (9 to 21), every operator of it is in the list, npy holds
//! its tensors, their types are ours, and it is not among `EXCEPTIONS`. Every claimed case must pass.

mod support;

use libtest_mimic::Arguments;
use samebit::data::Array;
use samebit::exec::Engine;
use samebit::gpu::{Choice, Device};
use samebit::onnx::{self, ImportError, ImportOptions, Problem, ProblemKind, TensorProblem};
use samebit::ops;
use samebit::tensor::{DType, Tensor};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use support::{onnx::with_texts, trial};

/// Cases of claimed operators that are not claimed, by a part of their name ($ is its end), and why. Each of them must fail.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("FLOAT8", "no type of ours"),
    ("linear_e4m3fn", "no type of ours"),
    ("linear_e5m2", "no type of ours"),
    ("add_uint8", "narrow integers are moved and converted, not computed with"),
    ("sub_uint8", "narrow integers are moved and converted, not computed with"),
    ("mul_uint8", "narrow integers are moved and converted, not computed with"),
    ("div_uint8", "narrow integers are moved and converted, not computed with"),
    ("mod_uint8", "narrow integers are moved and converted, not computed with"),
    ("mod_mixed_sign_int8", "narrow integers are moved and converted, not computed with"),
    ("test_max_uint8", "narrow integers are moved and converted, not computed with"),
    ("test_max_int8", "narrow integers are moved and converted, not computed with"),
    ("test_min_uint8", "narrow integers are moved and converted, not computed with"),
    ("test_min_int8", "narrow integers are moved and converted, not computed with"),
    ("clip_default_int8_inbounds$", "narrow integers are moved and converted, not computed with"),
    ("clip_default_int8_max", "narrow integers are moved and converted, not computed with"),
    ("clip_default_int8_min", "narrow integers are moved and converted, not computed with"),
    ("_ui8_", "narrow integers are moved and converted, not computed with"),
    ("bitwise_not_4d", "narrow integers are moved and converted, not computed with"),
    ("bitwise_or_i16_4d", "narrow integers are moved and converted, not computed with"),
    ("bitwise_and_i16", "narrow integers are moved and converted, not computed with"),
    ("bitwise_xor_i16", "narrow integers are moved and converted, not computed with"),
    ("bitwise_not_3d", "narrow integers are moved and converted, not computed with"),
    ("max_int16", "narrow integers are moved and converted, not computed with"),
    ("max_uint16", "narrow integers are moved and converted, not computed with"),
    ("min_int16", "narrow integers are moved and converted, not computed with"),
    ("min_uint16", "narrow integers are moved and converted, not computed with"),
    ("mod_mixed_sign_int16", "narrow integers are moved and converted, not computed with"),
    ("mod_uint16", "narrow integers are moved and converted, not computed with"),
    ("training", "inference only"),
    ("dropout_default_mask", "the mask is for training"),
    ("window_expanded", "the length is a runtime input"),
    ("window_symmetric_expanded", "the length is a runtime input"),
    ("center_crop_pad", "the output's shape is a runtime input"),
    ("gridsample_volumetric", "four axes only"),
    ("NCd1d2d3d4d5", "seven axes"),
    ("pow_types_int32_float32", "an integer to a float power is refused"),
    ("pow_types_int64_float32", "an integer to a float power is refused"),
    ("antialias", "antialias = 1 is refused"),
    ("cast_FLOAT_to_BFLOAT16", "truncated there, mended in later releases; ONNX Runtime and samebit round"),
    ("castlike_FLOAT_to_BFLOAT16", "truncated there, mended in later releases"),
    (
        "averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",
        "wrong there, mended in later releases",
    ),
    (
        "resize_downsample_scales_linear_align_corners",
        "taken from the unrounded length there; ONNX Runtime and samebit take the output's",
    ),
    (
        "resize_downsample_scales_cubic_align_corners",
        "taken from the unrounded length there; ONNX Runtime and samebit take the output's",
    ),
    ("qlinearmatmul_2D_int8", "wraps there; saturates in ONNX Runtime and samebit"),
    ("qlinearmatmul_3D_int8", "wraps there; saturates in ONNX Runtime and samebit"),
    (
        "nonmaxsuppression_identical_boxes",
        "shapes are static: -1 fills the rows of boxes that were not selected",
    ),
    (
        "nonmaxsuppression_suppress_by_IOU_and_scores",
        "shapes are static: -1 fills the rows of boxes that were not selected",
    ),
];

#[derive(Deserialize)]
struct Case {
    op_types: Vec<String>,
    opset: Option<i64>,
    rtol: f32,
    atol: f32,
    #[serde(default)]
    unsupported_io: bool,
    #[serde(default)]
    inputs: Vec<Io>,
    #[serde(default)]
    outputs: Vec<Io>,
}

#[derive(Deserialize)]
struct Io {
    name: String,
    file: String,
    dtype: String,
}

impl Case {
    fn is_claimed(&self) -> bool {
        const TYPES: [&str; 13] =
            ["f32", "f16", "bf16", "f64", "i32", "i64", "bool", "u8", "i8", "u16", "i16", "u4", "i4"];
        let operator = |op: &String| ops::by_onnx(op).is_some() || onnx::FOLDED.contains(&op.as_str());
        let known = |io: &Io| TYPES.contains(&io.dtype.as_str());
        !self.unsupported_io
            && self.opset.is_some_and(|v| (9..=21).contains(&v))
            && self.op_types.iter().all(operator)
            && self.inputs.iter().chain(&self.outputs).all(known)
    }
}

/// Same shape and type, numbers within the case's tolerance (f16 outputs: within its precision; casts: exact), NaN where NaN is wanted.
fn compare(got: &Tensor, want: &Tensor, case: &Case, half: bool) -> Result<(), String> {
    if got.ty() != want.ty() {
        return Err(format!("is {}, must be {}", got.ty(), want.ty()));
    }
    // A cast alone has one right answer.
    let exact = case.op_types.iter().all(|op| op == "Cast");
    let (rtol, atol) = match (exact, half) {
        (true, _) => (0.0, 0.0),
        (_, true) => (case.rtol.max(1e-3), case.atol.max(1e-3)),
        _ => (case.rtol, case.atol),
    };
    match (got.as_f32(), want.as_f32()) {
        (Some(g), Some(w)) => {
            let close = |g: f32, w: f32| {
                (g.is_nan() && w.is_nan()) || g == w || (g - w).abs() <= atol + rtol * w.abs()
            };
            match g.iter().zip(w).position(|(g, w)| !close(*g, *w)) {
                Some(i) => Err(format!("element {i} is {}, must be {}", g[i], w[i])),
                None => Ok(()),
            }
        }
        _ if got == want => Ok(()),
        _ => Err(format!("elements differ: {:?}, must be {:?}", got.data(), want.data())),
    }
}

fn run(dir: &Path, case: &Case, device: &Device) -> Result<(), String> {
    let read = |io: &Io| -> Result<Tensor, String> {
        let stored = Array::open(&dir.join(&io.file)).and_then(|a| a.read()).map_err(|e| e.to_string())?;
        // Narrow integers, which npy or its reader keep in wider ones.
        let narrow = ["i16", "u16", "i4", "u4"].iter().find(|t| **t == io.dtype);
        let Some(dtype) = narrow.and_then(|t| DType::from_name(t)) else { return Ok(stored) };
        let codes = stored.codes().ok_or("no integers")?;
        Tensor::from_codes(dtype, stored.shape(), &codes).ok_or(format!("no {dtype}"))
    };
    let graph =
        onnx::import(&dir.join("model.onnx"), &ImportOptions::default()).map_err(|e| e.to_string())?;
    let mut inputs = Vec::new();
    for id in &graph.inputs {
        let name = &graph.value(*id).name;
        let io = case.inputs.iter().find(|io| io.name == *name).ok_or(format!("no file for input {name}"))?;
        inputs.push(read(io)?);
    }
    let outputs = graph.outputs.clone();
    let names: Vec<String> = outputs.iter().map(|v| graph.value(*v).name.clone()).collect();
    let mut engine = Engine::new(graph, device);
    let trace = engine.run(&inputs, &[]).map_err(|e| e.to_string())?;
    for io in &case.outputs {
        let i = names.iter().position(|n| *n == io.name).ok_or(format!("no output {}", io.name))?;
        compare(&trace.values[&outputs[i]], &read(io)?, case, io.dtype == "f16")
            .map_err(|e| format!("output {} {e}", io.name))?;
    }
    Ok(())
}

fn main() {
    let absent = !root().is_dir();
    let trials = vec![
        trial("claimed_node_tests_pass", absent, claimed_node_tests_pass),
        trial("inputs_that_are_refused_bring_no_other_problem", absent, inputs_that_are_refused),
        trial("the_comparison_notices_a_changed_element", false, the_comparison_notices_a_changed_element),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn root() -> PathBuf {
    std::env::var_os("SAMEBIT_ONNX_NODE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/onnx-node"), PathBuf::from)
}

/// Every case with its folder, in the order of their names.
fn cases() -> Vec<(PathBuf, String, Case)> {
    let filter = std::env::var("SAMEBIT_ONNX_NODE_FILTER").unwrap_or_default();
    let mut out = Vec::new();
    for dir in std::fs::read_dir(root()).expect("lists") {
        let dir = dir.expect("lists").path();
        let name = dir.file_name().expect("has a name").to_string_lossy().into_owned();
        if name.contains(&filter) {
            let text = std::fs::read_to_string(dir.join("case.json")).expect("every case has a case.json");
            let case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            out.push((dir, name, case));
        }
    }
    out.sort_by(|a, b| a.1.cmp(&b.1));
    out
}

/// Right nodes some of whose inputs are of a type that is not read: that is all that is wrong, whatever the node. All
/// inputs are made so, each alone, and all but each.
fn inputs_that_are_refused() {
    let (mut tried, mut failures) = (0, Vec::new());
    for (dir, name, case) in cases() {
        let excepted = EXCEPTIONS.iter().any(|(part, _)| format!("{name}$").contains(part));
        if !case.is_claimed() || excepted || case.inputs.is_empty() {
            continue;
        }
        let bytes = std::fs::read(dir.join("model.onnx")).expect("every case has a model.onnx");
        // Another release of ONNX has cases that are neither right here nor excepted.
        if onnx::import_bytes(bytes.clone(), &ImportOptions::default()).is_err() {
            continue;
        }
        let of_input =
            |p: &Problem| matches!(&p.kind, ProblemKind::Tensor(TensorProblem::ElementType { .. }));
        let inputs = with_texts(&mut bytes.clone(), |_| true);
        let mut try_with = |which: &dyn Fn(usize) -> bool| {
            let mut bytes = bytes.clone();
            with_texts(&mut bytes, which);
            let changed = (0..inputs).filter(|i| which(*i)).count();
            match onnx::import_bytes(bytes, &ImportOptions::default()) {
                Err(ImportError::Problems(p)) if p.len() <= changed && p.iter().all(of_input) => tried += 1,
                Err(e) => failures.push(format!("{name}: {e}")),
                // An input that is not used is not looked at.
                Ok(_) if changed < inputs => {}
                Ok(_) => failures.push(format!("{name}: imported")),
            }
        };
        try_with(&|_| true);
        for one in (0..inputs).filter(|_| inputs > 1) {
            try_with(&|i| i == one);
            try_with(&|i| i != one);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(
        tried > 2000 || std::env::var_os("SAMEBIT_ONNX_NODE_FILTER").is_some(),
        "only {tried} were tried"
    );
}

fn claimed_node_tests_pass() {
    let mut devices = vec![("cpu", Device::Cpu)];
    devices.extend(Device::open(&Choice::Gpu).ok().map(|d| ("gpu", d)));
    let filter = std::env::var("SAMEBIT_ONNX_NODE_FILTER").unwrap_or_default();
    let (mut claimed, mut all) = (0, 0);
    let mut passed = vec![0; devices.len()];
    let mut failures = Vec::new();
    let mut excepted = vec![0; EXCEPTIONS.len()];
    for (dir, name, case) in cases() {
        all += 1;
        if !case.is_claimed() {
            continue;
        }
        if let Some(i) = EXCEPTIONS.iter().position(|(part, _)| format!("{name}$").contains(part)) {
            excepted[i] += 1;
            if run(&dir, &case, &Device::Cpu).is_ok() {
                failures.push(format!("{name} passes, so it is no exception ({:?})", EXCEPTIONS[i].0));
            }
            continue;
        }
        claimed += 1;
        for (i, (device, opened)) in devices.iter().enumerate() {
            match run(&dir, &case, opened) {
                Ok(()) => passed[i] += 1,
                Err(e) => failures.push(format!("{name} on {device}: {e}")),
            }
        }
    }
    for ((device, _), passed) in devices.iter().zip(&passed) {
        println!("{device}: {passed} passed / {claimed} claimed / {all} all");
    }
    for ((part, why), n) in EXCEPTIONS.iter().zip(&excepted) {
        println!("not claimed: {n} cases *{part}*: {why}");
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(!filter.is_empty() || claimed > 690, "only {claimed} cases are claimed");
    let idle = EXCEPTIONS.iter().zip(&excepted).find(|(_, n)| **n == 0);
    assert!(!filter.is_empty() || idle.is_none(), "an exception excepts nothing: {idle:?}");
}

fn the_comparison_notices_a_changed_element() {
    let case = Case {
        op_types: vec!["Relu".to_owned()],
        opset: None,
        rtol: 1e-3,
        atol: 1e-7,
        unsupported_io: false,
        inputs: vec![],
        outputs: vec![],
    };
    let want = Tensor::from_f32([3], vec![1.0, f32::NAN, 3.0]);
    assert!(compare(&want, &want, &case, false).is_ok());
    for wrong in [vec![1.01, f32::NAN, 3.0], vec![1.0, 2.0, 3.0], vec![1.0, f32::NAN, f32::NAN]] {
        assert!(compare(&Tensor::from_f32([3], wrong), &want, &case, false).is_err());
    }
    assert!(compare(&want.reshaped([1, 3]), &want, &case, false).is_err());
    assert!(compare(&Tensor::zeros(DType::I32, [3]), &want, &case, false).is_err());
}
