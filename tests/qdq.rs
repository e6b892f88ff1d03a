//! Models with ONNX's quantizers as graphs with quantizers of ours: the same parameters, the same codes, the same outputs.

mod support;

use libtest_mimic::Arguments;
use samebit::data::Array;
use samebit::exec::CpuExecutor;
use samebit::exec::parity::{Tolerance, compare};
use samebit::graph::sample::Rng;
use samebit::graph::{Graph, QuantRule, Stage};
use samebit::onnx::{ImportOptions, import, import_bytes};
use samebit::passes::from_qdq::from_qdq;
use samebit::quant::{Division, Origin, Role, Rounding, State};
use samebit::tensor::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use support::onnx::{self, A, D, F32, I32, I64};
use support::{shared, trial};

fn main() {
    let absent = models().is_empty();
    let golden = shared("data/golden").is_none() || absent;
    let trials = vec![
        trial("pairs_become_quantizers_with_their_parameters", false, pairs),
        trial("constants_become_numbers_with_quantizers", false, constants),
        trial("codes_that_pass_through_operators_are_followed", false, passing),
        trial("what_has_no_partner_stays_an_operator", false, alone),
        trial("the_outputs_are_those_of_the_operators", false, same_outputs_of_small_graphs),
        trial("no_parameter_of_a_model_changes", absent, no_parameter_changes),
        trial("codes_of_constants_come_back", absent, codes_come_back),
        trial("outputs_of_models_are_those_of_their_operators", absent, same_outputs_of_models),
        trial("outputs_of_models_are_those_of_onnx_runtime", golden, golden_outputs),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The models that ONNX Runtime's quantizer made.
fn models() -> Vec<PathBuf> {
    let Some(folder) = shared("data/quantized_by_onnxruntime") else { return Vec::new() };
    let files = std::fs::read_dir(folder).expect("lists").map(|f| f.expect("lists").path());
    let mut out: Vec<PathBuf> = files.filter(|p| p.to_string_lossy().contains(".qdq_")).collect();
    out.sort();
    out
}

fn raw(model: Vec<u8>) -> Graph {
    import_bytes(model, &ImportOptions::default()).expect("imports")
}

fn converted(model: Vec<u8>) -> Graph {
    from_qdq(raw(model)).expect("converts")
}

fn scale(name: &str, v: f32) -> onnx::Message {
    onnx::f32s(name, &[], &[v])
}

/// Adds x -> Quantize -> Dequantize, called by the tensor.
fn pair(g: onnx::Graph, x: &str, y: &str, s: &str, z: &str) -> onnx::Graph {
    let codes = format!("{y}.codes");
    g.node(&format!("{y}.q"), "QuantizeLinear", &[x, s, z], &[&codes], &[]).node(
        &format!("{y}.d"),
        "DequantizeLinear",
        &[&codes, s, z],
        &[y],
        &[],
    )
}

/// Input, product, output: a small quantized model.
fn small() -> onnx::Graph {
    let g = onnx::Graph::new()
        .input("x", F32, &[D::Name("N"), D::Size(2)])
        .init(scale("sx", 0.1))
        .init(onnx::tensor("zx", 2, &[], &[7]))
        .init(onnx::tensor("w", 3, &[2, 3], &[1, 2, 253, 4, 5, 128]))
        .init(onnx::f32s("sw", &[3], &[0.3, 0.7, 0.011]))
        .init(onnx::tensor("zw", 3, &[3], &[0, 0, 0]))
        .init(onnx::tensor("b", I32, &[3], &[5, 0, 0, 0, 251, 255, 255, 255, 9, 0, 0, 1]))
        .init(onnx::f32s("sb", &[3], &[0.03, 0.07, 0.0011]))
        .init(scale("sy", 0.05))
        .init(onnx::tensor("zy", 3, &[], &[0xff]));
    let axis = |v| [("axis", A::Int(v))];
    let g = pair(g, "x", "xq", "sx", "zx")
        .node("w.d", "DequantizeLinear", &["w", "sw", "zw"], &["wf"], &axis(1))
        .node("b.d", "DequantizeLinear", &["b", "sb"], &["bf"], &axis(0))
        .node("product", "Gemm", &["xq", "wf", "bf"], &["sum"], &[]);
    pair(g, "sum", "y", "sy", "zy").output("y")
}

/// Names of the operators, in order.
fn ops(g: &Graph) -> Vec<&'static str> {
    g.nodes().iter().map(|n| n.op.def().name).collect()
}

fn pairs() {
    let g = converted(small().model(13));
    assert_eq!((g.stage, ops(&g)), (Stage::FakeQuant, vec!["FakeQuant", "FakeQuant", "Gemm", "FakeQuant"]));
    let of = |name: &str| {
        g.nodes().iter().find(|n| n.name == name).expect("keeps its name").quantizer().expect("is one")
    };
    let (x, y) = (of("xq.d"), of("y.d"));
    assert_eq!((x.spec.role, y.spec.role), (Role::Input, Role::Output));
    for q in [x, y] {
        assert_eq!((q.state, q.origin), (State::Validation, Origin::Imported));
        assert_eq!((q.spec.division, q.spec.rounding), (Division::Divide, Rounding::HalfEven));
    }
    let (px, py) = (x.params.as_ref().expect("known"), y.params.as_ref().expect("known"));
    assert_eq!((px.dtype(), px.scales(), px.zero_points()), (DType::U8, &[0.1f32][..], &[7][..]));
    assert_eq!((py.dtype(), py.scales(), py.zero_points()), (DType::I8, &[0.05f32][..], &[-1][..]));
    // What takes the outputs finds them under their names.
    assert_eq!(g.value(g.outputs[0]).name, "y");
}

fn constants() {
    let g = converted(small().model(13));
    let w = g.nodes().iter().find(|n| n.name == "w.d").expect("keeps its name");
    let q = w.quantizer().expect("is one");
    assert_eq!((q.spec.role, q.spec.axis), (Role::Weight, Some(1)));
    assert_eq!(q.params.as_ref().expect("known").scales(), [0.3, 0.7, 0.011]);
    let numbers = g.value(w.inputs[0]).constant.as_ref().expect("constant").f32s().to_vec();
    assert_eq!(numbers, [0.3, 1.4, -3.0 * 0.011, 1.2, 3.5, -128.0 * 0.011]);
    // The bias is numbers alone.
    let product = g.nodes().iter().find(|n| n.name == "product").expect("is there");
    let bias = g.value(product.inputs[2]).constant.as_ref().expect("constant").f32s().to_vec();
    assert_eq!(bias, [5.0 * 0.03, -5.0 * 0.07, (9 + (1 << 24)) as f32 * 0.0011]);
}

/// Q, two operators on codes, DQ.
fn with_operators_between(second_scale: &str) -> onnx::Graph {
    onnx::Graph::new()
        .input("x", F32, &[D::Size(1), D::Size(2), D::Size(4), D::Size(4)])
        .init(scale("s", 0.1))
        .init(scale("t", 0.2))
        .init(onnx::i64s("shape", &[2], &[1, 8]))
        .node("r", "Relu", &["x"], &["xr"], &[])
        .node("q", "QuantizeLinear", &["xr", "s"], &["a"], &[])
        .node(
            "pool",
            "MaxPool",
            &["a"],
            &["b"],
            &[("kernel_shape", A::Ints(vec![2, 2])), ("strides", A::Ints(vec![2, 2]))],
        )
        .node("flat", "Reshape", &["b", "shape"], &["c"], &[])
        .node("d", "DequantizeLinear", &["c", second_scale], &["y"], &[])
        .node("d2", "DequantizeLinear", &["a", "s"], &["z"], &[])
        .node("n", "Neg", &["z"], &["zn"], &[])
        .output("y")
        .output("zn")
}

fn passing() {
    let g = converted(with_operators_between("s").model(13));
    assert_eq!(ops(&g), ["Relu", "FakeQuant", "MaxPool", "Reshape", "Neg"]);
    assert_eq!(g.stage, Stage::FakeQuant);
    assert_eq!(g.value(g.outputs[0]).name, "y");
    // With other parameters behind them than before them these operators stay on codes; the pair of q and d2 does not.
    let g = converted(with_operators_between("t").model(13));
    assert_eq!(
        ops(&g),
        ["Relu", "QuantizeLinear", "MaxPool", "Reshape", "DequantizeLinear", "FakeQuant", "Neg"]
    );
}

fn alone() {
    let lone = || {
        onnx::Graph::new()
            .input("codes", 3, &[D::Size(4)])
            .input("x", F32, &[D::Size(4)])
            .input("runtime", F32, &[])
            .init(scale("s", 0.1))
            .init(scale("t", 0.2))
    };
    let unpaired = lone()
        .node("d", "DequantizeLinear", &["codes", "s"], &["y"], &[])
        .node("q", "QuantizeLinear", &["x", "s"], &["z"], &[])
        .output("y")
        .output("z");
    let disagree = lone()
        .node("q", "QuantizeLinear", &["x", "s"], &["c"], &[])
        .node("d", "DequantizeLinear", &["c", "t"], &["y"], &[])
        .output("y");
    let computed = pair(lone(), "x", "y", "runtime", "").output("y");
    let blocks = lone()
        .init(onnx::f32s("blocks", &[2], &[0.1, 0.2]))
        .node(
            "q",
            "QuantizeLinear",
            &["x", "blocks"],
            &["c"],
            &[("block_size", A::Int(2)), ("axis", A::Int(0))],
        )
        .node(
            "d",
            "DequantizeLinear",
            &["c", "blocks"],
            &["y"],
            &[("block_size", A::Int(2)), ("axis", A::Int(0))],
        )
        .output("y");
    for (what, g) in
        [("unpaired", unpaired), ("disagree", disagree), ("computed", computed), ("blocks", blocks)]
    {
        let before = raw(g.model(21));
        let after = from_qdq(before.clone()).expect("converts");
        assert_eq!(after.stage, Stage::Float, "{what}");
        let sorted = |g: &Graph| ops(g).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&after), sorted(&before), "{what}");
    }
    // Codes that are an output beside a pair stay, too.
    let g = pair(lone(), "x", "y", "s", "").output("y").output("y.codes");
    assert_eq!(ops(&converted(g.model(13))), ["QuantizeLinear", "FakeQuant"]);
}

/// Panics where the two differ on random inputs.
fn same_outputs(what: &str, before: &Graph, after: &Graph) {
    let mut rng = Rng::new(9);
    let draw = |v: &samebit::graph::ValueId| -> Tensor {
        let ty = before.value(*v).ty.at(2).expect("small");
        let shape = ty.dims().expect("concrete");
        let n: usize = shape.iter().product();
        match ty.dtype {
            DType::F32 => Tensor::from_f32(shape, (0..n).map(|_| rng.float(-2.0, 2.0)).collect()),
            dtype => {
                let (low, high) = dtype.limits().expect("integers");
                let codes: Vec<i32> = (0..n).map(|_| rng.code(low, high)).collect();
                Tensor::from_codes(dtype, &shape, &codes).expect("in range")
            }
        }
    };
    let inputs: Vec<Tensor> = before.inputs.iter().map(draw).collect();
    let run = |g: &Graph| {
        let mut t = CpuExecutor::new(g.at_batch(2).expect("fits")).run(&inputs, &[]).expect("runs");
        // Ids differ; the order of the outputs does not.
        t.values =
            (0..).map(samebit::graph::ValueId).zip(g.outputs.iter().map(|v| t.values[v].clone())).collect();
        t
    };
    assert_eq!(compare(&run(before), &run(after), Tolerance::EXACT), [], "{what}");
}

fn same_outputs_of_small_graphs() {
    let concat = onnx::Graph::new()
        .input("x", F32, &[D::Size(2), D::Size(3)])
        .init(scale("s", 0.01))
        .init(onnx::tensor("i", I64, &[2], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        .node("q", "QuantizeLinear", &["x", "s"], &["c"], &[])
        .node("g", "Gather", &["c", "i"], &["e"], &[])
        .node("d", "DequantizeLinear", &["e", "s"], &["y"], &[])
        .output("y");
    for (what, g) in [
        ("small", small()),
        ("between", with_operators_between("s")),
        ("disagreeing", with_operators_between("t")),
        ("gathered", concat),
    ] {
        let before = raw(g.model(13));
        same_outputs(what, &before, &from_qdq(before.clone()).expect("converts"));
    }
}

/// What is quantized how: tensor, type, bits of the scales, zero points, axis.
type Parameters = BTreeSet<(String, &'static str, Vec<u32>, Vec<i32>, Option<usize>)>;

/// The parameters by which a graph's own operators dequantize, constants of i32 apart.
fn of_operators(g: &Graph) -> Parameters {
    let producers = g.producers();
    let constant = |v: samebit::graph::ValueId| g.value(v).constant.clone().expect("constant");
    let mut out = Parameters::new();
    for node in g.nodes() {
        let QuantRule::Dequantize(grain) = node.op.quant_rule() else { continue };
        let codes = node.inputs[0];
        let ty = &g.value(codes).ty;
        if ty.dtype == DType::I32 {
            continue;
        }
        let scales = constant(node.inputs[1]);
        let axis = (scales.rank() > 0 && scales.len() > 1).then(|| {
            let rank = i64::try_from(ty.rank()).expect("small");
            usize::try_from(if grain.axis < 0 { grain.axis + rank } else { grain.axis }).expect("an axis")
        });
        let tensor = match producers.get(&codes) {
            Some(q) => g.value(g.nodes()[*q].inputs[0]).name.clone(),
            None => g.value(codes).name.clone(),
        };
        let bits = scales.f32s().iter().map(|s| s.to_bits()).collect();
        out.insert((tensor, ty.dtype.name(), bits, constant(node.inputs[2]).codes().expect("codes"), axis));
    }
    out
}

/// Those of its quantizers.
fn of_quantizers(g: &Graph) -> Parameters {
    let mut out = Parameters::new();
    for node in g.nodes() {
        let Some(q) = node.quantizer() else { continue };
        let p = q.params.as_ref().expect("known");
        let tensor = g.value(node.inputs[0]).name.trim_end_matches("/numbers").to_owned();
        let bits = p.scales().iter().map(|s| s.to_bits()).collect();
        out.insert((tensor, p.dtype().name(), bits, p.zero_points().to_vec(), p.axis()));
    }
    out
}

fn no_parameter_changes() {
    for path in models() {
        let before = import(&path, &ImportOptions::default()).expect("imports");
        let after = from_qdq(before.clone()).expect("converts");
        let (a, b) = (of_operators(&before), of_quantizers(&after));
        assert!(
            a.len() > 20 && a == b,
            "{}: {:?}",
            path.display(),
            a.symmetric_difference(&b).collect::<Vec<_>>()
        );
        let left = ops(&after).iter().filter(|o| o.contains("Linear")).count();
        assert_eq!(left, 0, "{}", path.display());
    }
}

fn codes_come_back() {
    for path in models() {
        let before = import(&path, &ImportOptions::default()).expect("imports");
        let after = from_qdq(before.clone()).expect("converts");
        let mut tensors = 0;
        for node in after.nodes() {
            let (Some(q), x) = (node.quantizer(), after.value(node.inputs[0])) else { continue };
            let Some(numbers) = &x.constant else { continue };
            let name = x.name.trim_end_matches("/numbers");
            let codes = before.value(before.find_value(name).expect("keeps its name")).constant.clone();
            let codes = codes.expect("constant").codes().expect("codes");
            let p = q.params.as_ref().expect("known");
            let inner: usize = p.axis().map_or(1, |a| numbers.shape()[a + 1..].iter().product());
            for (i, (x, code)) in numbers.f32s().iter().zip(codes).enumerate() {
                assert_eq!(p.step(i / inner % p.scales().len()).quantize(*x), code, "{name}: element {i}");
            }
            tensors += 1;
        }
        assert!(tensors > 5, "{}: only {tensors} constants", path.display());
    }
}

fn same_outputs_of_models() {
    for path in models() {
        let before = import(&path, &ImportOptions::default()).expect("imports");
        same_outputs(&path.display().to_string(), &before, &from_qdq(before.clone()).expect("converts"));
    }
}

/// ONNX Runtime's own outputs, without its optimizer: the same order of operations. The share of elements that must be
/// the same bits; elsewhere a sum that was rounded otherwise put one code to its neighbour.
fn golden_outputs() {
    let share: BTreeMap<&str, f64> = [("ultraface_rfb320", 0.99)].into();
    let mut compared = 0;
    for path in models() {
        let stem = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let model = stem.split('.').next().expect("a name").to_owned();
        let graph = from_qdq(import(&path, &ImportOptions::default()).expect("imports")).expect("converts");
        let read = |file: String| -> Option<Tensor> {
            Array::open(&shared(&format!("data/golden/{file}.npy"))?).ok()?.read().ok()
        };
        let inputs: Option<Vec<Tensor>> =
            graph.inputs.iter().map(|v| read(format!("{model}.in.{}", graph.value(*v).name))).collect();
        let inputs = inputs.unwrap_or_else(|| panic!("{stem}: no golden inputs"));
        let frames = inputs[0].shape()[0];
        let trace = CpuExecutor::new(graph.at_batch(frames).expect("fits")).run(&inputs, &[]).expect("runs");
        for v in &graph.outputs {
            let want = read(format!("{stem}.noopt.out.{}", graph.value(*v).name)).expect("a golden output");
            let equal = trace.values[v].f32s().iter().zip(want.f32s()).filter(|(a, b)| a == b).count();
            let least = share.get(model.as_str()).copied().unwrap_or(1.0) * want.len() as f64;
            assert!(equal as f64 >= least, "{stem} {}: {equal} of {}", graph.value(*v).name, want.len());
            compared += 1;
        }
    }
    assert!(compared >= 10, "only {compared} outputs");
}
