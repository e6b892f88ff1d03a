//! The integer model against `scripts/oracle.py`, which computes the same definitions a second time: random operators of
//! every form that `convert` makes, and whole models. Without a Python that has numpy the tests are reported as ignored.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, write_npy};
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::sample::Rng;
use samebit::graph::{Attrs, Graph, Stage, ValueId, file};
use samebit::onnx::ImportOptions;
use samebit::ops::{build, fake_quant};
use samebit::passes::convert::{ConvertOptions, as_profile, convert};
use samebit::quant::{Origin, Profile, QParams, Quantizer, Role, Spec};
use samebit::tensor::{DType, Tensor, TensorType};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::binary::{samebit, text};
use support::python::python;
use support::{shared, trial};

const FORMS: usize = 18;
/// From here on pairs of products saturate.
const PAIRS: usize = 14;
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

/// A fake-quant graph that grows.
struct Sketch<'a> {
    graph: Graph,
    inputs: Vec<Tensor>,
    rng: &'a mut Rng,
    pairs: bool,
}

const ACTIVATIONS: [DType; 6] = [DType::I8, DType::U8, DType::I8, DType::I16, DType::U16, DType::I4];
const WEIGHTS: [DType; 4] = [DType::I8, DType::I8, DType::I16, DType::I4];

impl Sketch<'_> {
    fn params(&mut self, range: f32) -> QParams {
        let dtype = self.rng.pick(if self.pairs { &ACTIVATIONS[..2] } else { &ACTIVATIONS });
        self.params_of(dtype, range)
    }

    fn params_of(&mut self, dtype: DType, range: f32) -> QParams {
        let (low, high) = dtype.limits().expect("codes");
        let zero = if self.rng.int(0, 3) == 0 { 0 } else { self.rng.code(low, high) };
        let scale = range / (high - low) as f32 * self.rng.float(-1.5, 1.5).exp2();
        QParams::per_tensor(dtype, scale, zero.clamp(low, high)).expect("legal")
    }

    fn fresh(&self, what: &str) -> String {
        format!("{what}{}", self.graph.nodes().len())
    }

    fn op(&mut self, name: &'static str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
        let types: Vec<TensorType> = inputs.iter().map(|v| self.graph.value(*v).ty.clone()).collect();
        let op = build(name, attrs, &types).unwrap_or_else(|e| panic!("{name}: {e}"));
        let label = self.fresh(name);
        let out = format!("{label}/out");
        self.graph.add_node(label, None, op, inputs, &[out]).unwrap_or_else(|e| panic!("{name}: {e}"))[0]
    }

    fn quantized(&mut self, v: ValueId, params: QParams, role: Role) -> ValueId {
        let q = Quantizer::with_params(Spec::new(params.dtype(), role, "fixed"), params, Origin::Imported);
        let name = self.fresh("quantizer");
        let out = format!("{name}/out");
        self.graph.add_node(name, None, fake_quant(q), &[v], &[out]).expect("legal")[0]
    }

    /// An input with a quantizer, a little beyond whose range its numbers go.
    fn input(&mut self, shape: &[usize], range: f32) -> ValueId {
        let params = self.params(range);
        self.input_of(shape, params)
    }

    fn input_of(&mut self, shape: &[usize], params: QParams) -> ValueId {
        let (step, (low, high)) = (params.step(0), params.codes());
        let (low, high) = (1.1 * step.dequantize(low), 1.1 * step.dequantize(high));
        let n = shape.iter().product();
        let numbers =
            (0..n).map(|_| self.rng.float(low.min(-step.scale()), high.max(step.scale()))).collect();
        self.inputs.push(Tensor::from_f32(shape, numbers));
        let name = format!("x{}", self.inputs.len());
        let v = self.graph.add_input(name, TensorType::new(DType::F32, shape.to_vec()));
        self.quantized(v, params, Role::Activation)
    }

    fn constant(&mut self, shape: &[usize], range: f32) -> ValueId {
        let n = shape.iter().product();
        let numbers = (0..n).map(|_| self.rng.float(-range, range)).collect();
        self.graph.new_constant("constant", Tensor::from_f32(shape, numbers))
    }

    /// Weights with one scale, or with one for each index of an axis.
    fn weights(&mut self, shape: &[usize], axis: usize) -> ValueId {
        let v = self.constant(shape, 1.0);
        let dtype = if self.pairs { DType::I8 } else { self.rng.pick(&WEIGHTS) };
        let (low, high) = dtype.limits().expect("codes");
        let n = if self.rng.int(0, 3) == 0 { 1 } else { shape[axis] };
        let scales: Vec<f32> = (0..n).map(|_| self.rng.float(-4.0, 0.3).exp2() / high as f32).collect();
        let axis = (n > 1 || shape[axis] == 1).then_some(axis);
        let some = self.pairs && self.rng.int(0, 2) == 0;
        let zeros = (0..n).map(|_| if some { self.rng.code(low, high) } else { 0 }).collect();
        let params = QParams::new(dtype, false, scales, zeros, axis).expect("legal");
        self.quantized(v, params, Role::Weight)
    }

    /// Perhaps a clamp, then a quantizer.
    fn end(&mut self, v: ValueId, range: f32) {
        let v = match self.rng.int(0, 3) {
            0 => self.op("Relu", Attrs::new(), &[v]),
            1 => self.op("Clip", Attrs::new().float("min", -0.2 * range).float("max", 0.3 * range), &[v]),
            _ => v,
        };
        let params = self.params(range);
        let v = self.quantized(v, params, Role::Activation);
        self.graph.outputs.push(v);
    }

    /// Whether an output of products shall be numbers.
    fn end_of_product(&mut self, y: ValueId, k: usize) {
        let range = (k as f32).sqrt();
        if self.rng.int(0, 5) == 0 {
            self.graph.outputs.push(y);
        } else if self.rng.int(0, 2) == 0 {
            let shape = self.graph.value(y).ty.dims().expect("fixed");
            let other = self.input(&shape, range);
            let y = self.op("Add", Attrs::new(), &[y, other]);
            self.end(y, range);
        } else {
            self.end(y, range);
        }
    }

    fn sizes(&mut self, n: usize, low: usize, high: usize) -> Vec<usize> {
        (0..n).map(|_| self.rng.int(low, high)).collect()
    }

    fn conv(&mut self) {
        let n = self.rng.int(1, 3);
        let (groups, c, o) = match self.rng.int(0, 3) {
            0 => (1, self.rng.int(1, 9), self.rng.int(1, 9)),
            1 => (2, 2 * self.rng.int(1, 4), 2 * self.rng.int(1, 4)),
            2 => (5, 5, 10),
            _ => (7, 7, 7),
        };
        let kernel = self.sizes(n, 1, 3);
        let shape = [vec![self.rng.int(1, 2), c], self.sizes(n, 7, 11)].concat();
        let x = self.input(&shape, 4.0);
        let w = self.weights(&[vec![o, c / groups], kernel.clone()].concat(), 0);
        let mut inputs = vec![x, w];
        if self.rng.int(0, 2) > 0 {
            inputs.push(self.constant(&[o], 2.0));
        }
        let attrs = Attrs::new()
            .sizes("kernel_shape", &kernel)
            .sizes("strides", &self.sizes(n, 1, 3))
            .sizes("dilations", &self.sizes(n, 1, 2))
            .sizes("pads", &self.sizes(2 * n, 0, 2))
            .int("group", groups as i64);
        let y = self.op("Conv", attrs, &inputs);
        self.end_of_product(y, 4 * c / groups * kernel.iter().product::<usize>());
    }

    fn gemm(&mut self) {
        let (m, k, n) = (self.rng.int(1, 5), self.rng.int(1, 70), self.rng.int(1, 9));
        let (ta, tb) = (self.rng.int(0, 1), self.rng.int(0, 1));
        let x = self.input(&if ta == 1 { [k, m] } else { [m, k] }, 4.0);
        let w = self.weights(&if tb == 1 { [n, k] } else { [k, n] }, 1 - tb);
        let mut inputs = vec![x, w];
        if self.rng.int(0, 2) > 0 {
            inputs.push(self.constant(&[n], 2.0));
        }
        let attrs = Attrs::new().int("transA", ta as i64).int("transB", tb as i64);
        let y = self.op("Gemm", attrs, &inputs);
        self.end_of_product(y, 4 * k);
    }

    fn matmul(&mut self) {
        let (m, k, n) = (self.rng.int(1, 5), self.rng.int(1, 40), self.rng.int(1, 9));
        let (left, right): (Vec<usize>, Vec<usize>) = self.rng.pick(&[
            (vec![m, k], vec![k, n]),
            (vec![3, m, k], vec![k, n]),
            (vec![2, 3, m, k], vec![3, k, n]),
            (vec![m, k], vec![k]),
            (vec![k], vec![k, n]),
        ]);
        let x = self.input(&left, 4.0);
        let computed = self.rng.int(0, 1) == 0;
        let axis = right.len() - 1;
        let w = if right.len() == 1 || computed {
            let params = if self.pairs { self.params_of(DType::I8, 2.0) } else { self.params(2.0) };
            self.input_of(&right, params)
        } else {
            self.weights(&right, axis)
        };
        let mut y = self.op("MatMul", Attrs::new(), &[x, w]);
        if right.len() > 1 && left.len() > 1 && self.rng.int(0, 1) == 0 {
            let bias = self.constant(&[n], 2.0);
            y = self.op("Add", Attrs::new(), &[y, bias]);
        }
        self.end_of_product(y, 8 * k);
    }

    fn pair(&mut self, name: &'static str) {
        let (c, h, w) = (self.rng.int(1, 5), self.rng.int(1, 5), self.rng.int(1, 30));
        let other = self.rng.pick(&[vec![2, c, h, w], vec![c, 1, 1], vec![1], vec![2, c, h, w]]);
        // Scales that are alike, and scales far apart.
        let ratio =
            if self.rng.int(0, 2) == 0 { self.rng.float(-70.0, 10.0) } else { self.rng.float(-3.0, 3.0) };
        let a = self.input(&[2, c, h, w], 1.0);
        let b = self.input(&other, ratio.exp2());
        let swap = self.rng.int(0, 1) == 0;
        let y = self.op(name, Attrs::new(), &if swap { [b, a] } else { [a, b] });
        self.end(y, if name == "Mul" { ratio.exp2() } else { 1.0 + ratio.exp2() });
    }

    fn window(&mut self, n: usize) -> Attrs {
        let attrs = Attrs::new()
            .sizes("kernel_shape", &self.sizes(n, 2, 4))
            .sizes("strides", &self.sizes(n, 1, 3))
            .int("ceil_mode", self.rng.int(0, 1) as i64);
        match self.rng.int(0, 2) {
            0 => attrs.str("auto_pad", "SAME_UPPER"),
            _ => attrs.sizes("pads", &self.sizes(2 * n, 0, 1)),
        }
    }

    fn average(&mut self) {
        let n = self.rng.int(1, 3);
        let shape = [vec![2, 3], self.sizes(n, 5, 9)].concat();
        let x = self.input(&shape, 1.0);
        let attrs = self.window(n).int("count_include_pad", self.rng.int(0, 1) as i64);
        let y = self.op("AveragePool", attrs, &[x]);
        self.end_of_mean(y, x);
    }

    /// Half of the means have the parameters of their input, where halves are real.
    fn end_of_mean(&mut self, y: ValueId, x: ValueId) {
        if self.rng.int(0, 1) == 0 {
            return self.end(y, 0.7);
        }
        let producer = self.graph.producers()[&x];
        let params =
            self.graph.nodes()[producer].quantizer().and_then(|q| q.params.clone()).expect("has some");
        let v = self.quantized(y, params, Role::Activation);
        self.graph.outputs.push(v);
    }

    fn mean(&mut self) {
        let shape = [2, self.rng.int(1, 5), self.rng.int(1, 8), self.rng.int(1, 8)];
        let x = self.input(&shape, 1.0);
        let y = if self.rng.int(0, 1) == 0 {
            self.op("GlobalAveragePool", Attrs::new(), &[x])
        } else {
            let axes = self.rng.pick(&[vec![1], vec![2, 3], vec![1, 3]]);
            let keep = self.rng.int(0, 1) as i64;
            self.op("ReduceMean", Attrs::new().ints("axes", axes).int("keepdims", keep), &[x])
        };
        self.end_of_mean(y, x);
    }

    /// What acts on codes: a clamp, a pool of maxima, another order.
    fn codes(&mut self) {
        let x = self.input(&[2, 4, 6, 7], 1.0);
        let mut y = self.op("Clip", Attrs::new().float("min", -0.1).float("max", 0.4), &[x]);
        let attrs = self.window(2);
        y = self.op("MaxPool", attrs, &[y]);
        y = self.op("Relu", Attrs::new(), &[y]);
        y = self.op("Transpose", Attrs::new().ints("perm", [0, 2, 3, 1]), &[y]);
        self.end(y, 0.8);
    }

    fn concat(&mut self) {
        let (a, b) = (self.input(&[2, 3, 5], 1.0), self.input(&[2, 4, 5], 2.0));
        let y = self.op("Concat", Attrs::new().int("axis", 1), &[a, b]);
        self.end(y, 1.5);
    }

    /// One tensor with two quantizers, and a quantizer behind a quantizer.
    fn several(&mut self) {
        let x = self.input(&[2, 3, 8, 8], 2.0);
        let w = self.weights(&[4, 3, 3, 3], 0);
        let attrs = Attrs::new().sizes("kernel_shape", &[3, 3]).sizes("pads", &[1, 1, 1, 1]);
        let y = self.op("Conv", attrs, &[x, w]);
        for _ in 0..2 {
            let params = self.params(4.0);
            let v = self.quantized(y, params, Role::Activation);
            self.end(v, 4.0);
        }
    }
}

/// Profile `samebit` but for the sums.
fn saturating() -> Profile {
    let ops =
        ["Conv", "Gemm", "MatMul"].map(|op| format!("[op.{op}]\naccumulator = \"saturating_i16_pairs\"\n"));
    Profile::parse(&(Profile::default().source + &ops.concat())).expect("a profile")
}

fn case(rng: &mut Rng, form: usize, label: String) -> Case {
    let mut graph = Graph::new("case");
    graph.stage = Stage::FakeQuant;
    let pairs = form >= PAIRS;
    let mut s = Sketch { graph, inputs: Vec::new(), rng, pairs };
    match form {
        0..=2 | 14..=15 => s.conv(),
        3 | 16 => s.gemm(),
        4 | 17 => s.matmul(),
        5 => s.pair("Add"),
        6 => s.pair("Sub"),
        7 => s.pair("Mul"),
        8 => s.average(),
        9 => s.mean(),
        10 => s.codes(),
        11 => s.concat(),
        12 => s.several(),
        _ => {
            let x = s.input(&[2, 3, 4], 1.0);
            s.end(x, 1.0);
        }
    }
    let Sketch { graph, inputs, .. } = s;
    let options = ConvertOptions { profile: pairs.then(saturating), ..ConvertOptions::default() };
    let converted = convert(&graph, &options).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert!(converted.islands.is_empty(), "{label}: {:?}", converted.islands);
    Case { label, graph: converted.graph, inputs, engine: None }
}

fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for form in 0..FORMS {
        for round in 0..ROUNDS {
            let seed = 1000 * form as u64 + round;
            out.push(case(&mut Rng::new(seed), form, format!("form {form}, seed {seed}")));
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
    let mut rng = Rng::new(1);
    let (mut changed, mut right) = (Vec::new(), Vec::new());
    for seed in 0..20 {
        let case = case(&mut rng, 3, format!("{seed}"));
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
    for form in PAIRS..FORMS {
        let case = case(&mut Rng::new(form as u64), form, format!("form {form}"));
        let exact = as_profile(case.graph.clone(), &Profile::default()).expect("takes its types");
        let back = as_profile(exact.clone(), &saturating()).expect("takes its types");
        same.push(Case { engine: Some(back), ..case.clone() });
        other.push(Case { engine: Some(exact), ..case });
    }
    assert_eq!(differences(&same).0, Vec::<String>::new());
    assert_eq!(differences(&other).0.len(), other.len());
}
