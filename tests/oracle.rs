//! The integer model against `scripts/oracle.py`, which computes the same definitions a second time: random operators of
//! every form that `convert` makes, and whole models. Without a Python that has numpy the tests are reported as ignored.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, write_npy};
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::sample::Rng;
use samebit::graph::{Graph, Stage, ValueId, file};
use samebit::onnx::ImportOptions;
use samebit::passes::convert::{ConvertOptions, as_profile, convert};
use samebit::quant::Profile;
use samebit::tensor::{DType, Tensor};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::binary::{samebit, text};
use support::python::python;
use support::sketch::{FORMS, Form, PAIRS, Sketch};
use support::{shared, trial};

const ROUNDS: u64 = 24;

fn main() {
    let without = python().is_none();
    let no_models = without || shared("data/models").is_none();
    let trials = vec![
        trial("random_operators_are_the_oracles", without, random_operators_are_the_oracles),
        trial("models_are_the_oracles", no_models, models_are_the_oracles),
        trial("a_wrong_model_is_noticed", without, a_wrong_model_is_noticed),
        trial("pairs_saturate_for_their_target_alone", without, pairs_saturate_for_their_target_alone),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A graph on codes with its inputs, and another one that the engine runs in its place.
#[derive(Clone)]
struct Case {
    label: String,
    graph: Graph,
    inputs: Vec<Tensor>,
    engine: Option<Graph>,
}

/// What differs: the tensors of all cases that the oracle gives otherwise, and how many were compared.
fn differences(cases: &[Case]) -> (Vec<String>, usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut jobs = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let at = |what: &str| dir.path().join(format!("{i}.{what}"));
        file::save(&case.graph, &at("graph")).expect("saves");
        let mut inputs = serde_json::Map::new();
        for (k, (v, t)) in case.graph.inputs.iter().zip(&case.inputs).enumerate() {
            let path = at(&format!("{k}.npy"));
            write_npy(&path, t).expect("writes");
            inputs.insert(case.graph.value(*v).name.clone(), text(&path).into());
        }
        jobs.push(serde_json::json!({ "graph": at("graph"), "inputs": inputs, "out": at("out") }));
    }
    let list = dir.path().join("jobs.json");
    std::fs::write(&list, serde_json::to_vec(&jobs).expect("plain data")).expect("writes");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/oracle.py");
    let o = Command::new(python().expect("seen before")).arg(script).arg(&list).output().expect("runs");
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (i, case) in cases.iter().enumerate() {
        let out = dir.path().join(format!("{i}.out"));
        let index = std::fs::read(out.join("index.json")).expect("an index");
        let index: Vec<(String, PathBuf)> = serde_json::from_slice(&index).expect("a list");
        assert!(!index.is_empty(), "{}: the oracle computed nothing", case.label);
        let values: Vec<ValueId> =
            index.iter().map(|(n, _)| case.graph.find_value(n).expect("a tensor")).collect();
        let graph = case.engine.as_ref().unwrap_or(&case.graph).clone();
        let trace = Engine::new(graph, &Device::Cpu).run(&case.inputs, &values);
        let trace = trace.unwrap_or_else(|e| panic!("{}: {e}", case.label));
        for ((name, file), v) in index.iter().zip(&values) {
            let want = Array::open(&out.join(file)).and_then(|a| a.read()).expect("reads");
            let got = &trace.values[v];
            assert_eq!(got.shape(), want.shape(), "{}: {name}", case.label);
            let differs = |i: &usize| got.number(*i).to_bits() != want.number(*i).to_bits();
            let count = (0..got.len()).filter(differs).count();
            if let Some(i) = (0..got.len()).find(differs) {
                let (g, w) = (got.number(i), want.number(i));
                wrong.push(format!("{}: {name}: {count} of {}, first {g} for {w}", case.label, got.len()));
            }
            compared += got.len();
        }
    }
    (wrong, compared)
}

/// Profile `samebit` but for the sums.
fn saturating() -> Profile {
    let ops =
        ["Conv", "Gemm", "MatMul"].map(|op| format!("[op.{op}]\naccumulator = \"saturating_i16_pairs\"\n"));
    Profile::parse(&(Profile::default().source + &ops.concat())).expect("a profile")
}

fn case(seed: u64, form: Form, pairs: bool, label: String) -> Case {
    let mut graph = Graph::new("case");
    graph.stage = Stage::FakeQuant;
    let mut s = Sketch { graph, inputs: Vec::new(), rng: Rng::new(seed), pairs };
    form(&mut s);
    let Sketch { graph, inputs, .. } = s;
    let options = ConvertOptions { profile: pairs.then(saturating), ..ConvertOptions::default() };
    let converted = convert(&graph, &options).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert!(converted.islands.is_empty(), "{label}: {:?}", converted.islands);
    Case { label, graph: converted.graph, inputs, engine: None }
}

fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let all = FORMS.iter().map(|f| (f, false)).chain(PAIRS.iter().map(|f| (f, true)));
    for (i, ((name, form), pairs)) in all.enumerate() {
        for round in 0..ROUNDS {
            let seed = 1000 * i as u64 + round;
            out.push(case(seed, *form, pairs, format!("{name}, seed {seed}")));
        }
    }
    out
}

fn random_operators_are_the_oracles() {
    let cases = cases();
    let (wrong, compared) = differences(&cases);
    println!("{} graphs, {compared} elements", cases.len());
    assert!(compared > 100_000, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn models_are_the_oracles() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cases = Vec::new();
    for (model, input) in [("resnet8_cifar10", "input"), ("squeezenet11_imagenet", "data")] {
        let data = shared("data").expect("seen before");
        let golden = data.join(format!("golden/{model}.in.{input}.npy"));
        let set = dir.path().join(format!("{model}.toml"));
        let toml = format!(
            "[dataset]\nname = \"golden\"\n[[input]]\nname = \"{input}\"\nnpy = \"{}\"\nsource_layout = \"nchw\"\n",
            text(&golden)
        );
        std::fs::write(&set, toml).expect("writes");
        let (g, q) = (dir.path().join(format!("{model}.g")), dir.path().join(format!("{model}.q")));
        let onnx = data.join(format!("models/{model}.onnx"));
        for args in [
            vec!["calibrate", text(&onnx), "--data", text(&set), "--consistency", "4", "-o", text(&g)],
            vec!["convert", text(&g), "-o", text(&q)],
        ] {
            let o = samebit(&args);
            assert!(o.status.success(), "{args:?}: {}", String::from_utf8_lossy(&o.stderr));
        }
        let graph = load(&q);
        let two = Array::open(&golden).and_then(|a| a.read_rows(0..2.min(a.rows()))).expect("reads");
        cases.push(Case { label: model.to_owned(), graph, inputs: vec![two], engine: None });
    }
    let (wrong, compared) = differences(&cases);
    println!("{compared} elements of {} models", cases.len());
    assert!(compared > 1_000_000, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn load(path: &Path) -> Graph {
    samebit::model::load(path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// A bias that is another one in the engine's graph than in the oracle's is found.
fn a_wrong_model_is_noticed() {
    let (mut changed, mut right) = (Vec::new(), Vec::new());
    for seed in 0..20 {
        let gemm = FORMS.iter().find(|f| f.0 == "Gemm").expect("is there").1;
        let case = case(seed, gemm, false, format!("{seed}"));
        let nodes = case.graph.nodes().iter().enumerate();
        let biased =
            nodes.filter(|(_, n)| n.inputs.len() == 3 && n.op.integer_of().is_some()).find_map(|(i, n)| {
                let t = case.graph.value(n.inputs[2]).constant.as_ref()?;
                (t.dtype() == DType::I32).then(|| (i, n.inputs.clone(), t.codes().expect("i32")))
            });
        let Some((at, mut inputs, bias)) = biased else { continue };
        let mut graph = case.graph.clone();
        let most = bias.iter().map(|b| b.abs()).max().unwrap_or(0) + 1000;
        inputs[2] = graph.new_constant("other", Tensor::from_i32([bias.len()], vec![-most; bias.len()]));
        graph.set_inputs(at, inputs);
        changed.push(Case { engine: Some(graph), ..case.clone() });
        right.push(case);
    }
    assert!(changed.len() > 3);
    let (wrong, _) = differences(&changed);
    assert!(!wrong.is_empty());
    assert!(differences(&right).0.is_empty());
}

/// Run as another target, exact sums are saturating ones and the other way round; both differ.
fn pairs_saturate_for_their_target_alone() {
    let (mut same, mut other) = (Vec::new(), Vec::new());
    for (i, (name, form)) in PAIRS.iter().enumerate() {
        let case = case(14 + i as u64, *form, true, (*name).to_owned());
        let exact = as_profile(case.graph.clone(), &Profile::default()).expect("takes its types");
        let back = as_profile(exact.clone(), &saturating()).expect("takes its types");
        same.push(Case { engine: Some(back), ..case.clone() });
        other.push(Case { engine: Some(exact), ..case });
    }
    assert_eq!(differences(&same).0, Vec::<String>::new());
    assert_eq!(differences(&other).0.len(), other.len());
}
