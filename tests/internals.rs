//! The tensors inside composite operators: declared beside them, observed, and of no effect on what a graph computes.

mod support;

use libtest_mimic::Arguments;
use samebit::analysis::calibrate::fill;
use samebit::analysis::moving::Moving;
use samebit::exec::CpuExecutor;
use samebit::graph::text::{parse, print};
use samebit::graph::{Graph, NodeId, ValueId};
use samebit::observers::Summary;
use samebit::ops::by_name;
use samebit::passes::config::{Code, QuantConfig, Rule};
use samebit::passes::internals::exposed;
use samebit::passes::prepare::{Prepared, calibration_graph, prepare};
use samebit::quant::{Origin, Role};
use samebit::tensor::{DType, Tensor};
use std::collections::BTreeMap;
use support::binary::{json, text};
use support::{shared, trial};

fn main() {
    let absent = shared("data/models").is_none();
    let trials = vec![
        trial("composites_have_quantizers_inside", false, declared),
        trial("a_quotient_by_a_constant_and_float_islands_have_nothing_inside", false, nothing_inside),
        trial("a_rule_speaks_for_attention_too", false, rules),
        trial("what_is_inside_changes_no_output", false, no_effect),
        trial("what_is_inside_is_what_its_formula_says", false, formulas),
        trial("a_graph_keeps_what_is_inside_its_nodes_only", false, kept),
        trial("a_mask_takes_no_codes_from_the_scores", false, masks),
        trial("calibrate_observes_what_is_inside_a_transformer", absent, transformer),
        trial("imported_quantizers_stay_and_the_insides_are_observed", absent, imported),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Attention, layer normalisation and a quotient of two runtime tensors; then a product, so that all compute with codes.
fn attention(divisor: &str) -> Graph {
    let text = format!(
        "graph \"g\" float
input v0 \"x\" f32[N,3,4]
const v1 \"w\" f32[4,4] [1.0, 0.5, -0.25, 0.1, 0.2, 1.0, 0.0, 0.3, 0.0, -0.5, 1.0, 0.0, 0.3, 0.1, 0.2, 1.0]
const v2 \"gamma\" f32[4] [1.0, 2.0, 0.5, 1.5]
const v3 \"beta\" f32[4] [0.5, -0.25, 0.0, 1.0]
const v4 \"eight\" f32[] [8.0]
const v5 \"mask\" f32[1,1,3] [0.0, 0.0, -4.0]
%0 \"norm\" LayerNormalization(v0, v2, v3) {{axis = -1, epsilon = 1e-5, statistics = 0}} -> v6 \"n\" f32[N,3,4]
%1 \"turn\" Transpose(v6) {{perm = [0, 2, 1]}} -> v7 \"t\" f32[N,4,3]
%2 \"scores\" MatMul(v6, v7) -> v8 \"s\" f32[N,3,3]
%3 \"scaled\" Div(v8, v4) -> v9 \"d\" f32[N,3,3]
%4 \"masked\" Add(v9, v5) -> v10 \"m\" f32[N,3,3]
%5 \"softmax\" Softmax(v10) {{axis = -1, to_end = 0}} -> v11 \"p\" f32[N,3,3]
%6 \"mixed\" MatMul(v11, v6) -> v12 \"a\" f32[N,3,4]
%7 \"exp\" Exp(v0) -> v13 \"e\" f32[N,3,4]
%8 \"quotient\" Div(v12, {divisor}) -> v14 \"q\" f32[N,3,4]
%9 \"last\" MatMul(v14, v1) -> v15 \"y\" f32[N,3,4]
output v15
"
    );
    parse(&text, by_name, &BTreeMap::default()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn prepared(config: &QuantConfig, divisor: &str) -> Prepared {
    let g = calibration_graph(attention(divisor)).expect("a float graph");
    prepare(&g, config).expect("prepares")
}

/// Quantizers of a role as `tensor dtype origin owner`, in order.
fn taps(g: &Graph) -> Vec<String> {
    let of = |n: &samebit::graph::Node| {
        let q = n.quantizer().filter(|q| q.spec.role == Role::Tap)?;
        let owner =
            q.spec.owner.map_or("-".to_owned(), |id| g.node(NodeId(id)).expect("is there").name.clone());
        Some(format!("{} {} {} {owner}", g.value(n.inputs[0]).name, q.spec.dtype, q.origin))
    };
    let mut all: Vec<String> = g.nodes().iter().filter_map(of).collect();
    all.sort();
    all
}

fn declared() {
    let p = prepared(&QuantConfig::default(), "v13");
    assert_eq!(
        taps(&p.graph),
        [
            "beta i16 none -",
            "d i16 none -",
            "gamma i16 none -",
            "m i16 none -",
            "norm/normalized i16 none norm",
            "norm/reciprocal i16 fixed norm",
            "p i16 fixed -",
            "quotient/reciprocal i16 fixed quotient",
            "s i16 none -",
            "softmax/exp u16 fixed softmax",
            "softmax/reciprocal i16 fixed softmax",
        ],
        "{}",
        print(&p.graph)
    );
    let kinds: Vec<(&str, usize)> =
        p.composites.iter().map(|c| (c.kind.as_str(), c.internals.len())).collect();
    assert_eq!(kinds, [("layernormalization", 2), ("attention", 4), ("softmax", 2), ("div", 1)]);
    // Those of runtime tensors are observed under the names that the float graph gives them.
    let (float, inside) = exposed(&calibration_graph(attention("v13")).expect("float")).expect("exposes");
    let names: Vec<&str> = inside.iter().map(|v| float.value(*v).name.as_str()).collect();
    assert_eq!(
        names,
        ["norm/normalized", "norm/reciprocal", "softmax/exp", "softmax/reciprocal", "quotient/reciprocal"]
    );
    for name in names {
        assert!(p.observed.values().any(|o| o == name), "{name} in {:?}", p.observed);
    }
}

fn nothing_inside() {
    let p = prepared(&QuantConfig::default(), "v4");
    assert!(!taps(&p.graph).iter().any(|t| t.contains("quotient")), "{:?}", taps(&p.graph));
    let island = |name: &str| Rule { name: Some(name.into()), float: true, ..Rule::default() };
    let config = QuantConfig::default().with(island("softmax")).with(island("norm"));
    let p = prepared(&config, "v13");
    assert_eq!(taps(&p.graph), ["quotient/reciprocal i16 fixed quotient"], "{}", print(&p.graph));
}

fn rules() {
    let rule = |name: &str, dtype| Rule {
        name: Some(name.into()),
        activation: Some(Code(dtype)),
        ..Rule::default()
    };
    let config = QuantConfig::default().with(rule("softmax", DType::I8)).with(rule("scores", DType::U8));
    let taps = taps(&prepared(&config, "v13").graph);
    assert!(
        taps.contains(&"p i8 fixed -".to_owned()) && taps.contains(&"s u8 none -".to_owned()),
        "{taps:?}"
    );
}

fn run(g: &Graph, x: &Tensor, wanted: &[ValueId]) -> Vec<Vec<f32>> {
    let g = g.at_batch(2).expect("concrete");
    let all: Vec<ValueId> = g.outputs.iter().chain(wanted).copied().collect();
    let trace = CpuExecutor::new(g).run(std::slice::from_ref(x), wanted).expect("runs");
    all.iter().map(|v| trace.values[v].f32s().to_vec()).collect()
}

fn input() -> Tensor {
    let mut rng = samebit::graph::sample::Rng::new(5);
    Tensor::from_f32([2, 3, 4], (0..24).map(|_| rng.float(-2.0, 2.0)).collect())
}

fn no_effect() {
    let g = calibration_graph(attention("v13")).expect("float");
    let (with, inside) = exposed(&g).expect("exposes");
    assert!(with.nodes().len() > g.nodes().len() + inside.len());
    assert_eq!(run(&g, &input(), &[]), run(&with, &input(), &[]));
    let p = prepare(&g, &QuantConfig::default()).expect("prepares").graph;
    assert!(p.has_internals());
    let without = p.clone().without_internals().expect("verifies");
    assert!(!without.has_internals() && without.nodes().len() < p.nodes().len());
    assert_eq!(run(&p, &input(), &[]), run(&without, &input(), &[]));
}

fn formulas() {
    let g = calibration_graph(attention("v13")).expect("float");
    let (with, inside) = exposed(&g).expect("exposes");
    let of = |name: &str| g.find_value(name).expect("is there");
    let wanted: Vec<ValueId> = inside.iter().copied().chain([of("m"), of("x"), of("e")]).collect();
    let all = run(&with, &input(), &wanted);
    let [_, normalized, deviation, exp, sum, reciprocal, m, x, e] = all.try_into().expect("nine");
    let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
    let mantissa = |v: f64| v / libm::exp2(libm::floor(libm::log2(v.abs())));
    for (row, (m, e)) in m.chunks(3).zip(exp.chunks(3)).enumerate() {
        let largest = f64::from(m.iter().copied().fold(f32::MIN, f32::max));
        let exact: Vec<f64> = m.iter().map(|m| libm::exp(f64::from(*m) - largest)).collect();
        e.iter().zip(&exact).for_each(|(e, w)| near(*e, *w));
        near(sum[row], mantissa(1.0 / exact.iter().sum::<f64>()));
    }
    for (row, (x, n)) in x.chunks(4).zip(normalized.chunks(4)).enumerate() {
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / 4.0;
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 4.0;
        let inverse = 1.0 / (variance + 1e-5).sqrt();
        n.iter().zip(x).for_each(|(n, x)| near(*n, (f64::from(*x) - mean) * inverse));
        near(deviation[row], mantissa(inverse));
    }
    reciprocal.iter().zip(&e).for_each(|(r, e)| near(*r, mantissa(1.0 / f64::from(*e))));
}

fn kept() {
    let p = prepared(&QuantConfig::default(), "v13").graph;
    let text = print(&p);
    let again = parse(&text, by_name, &BTreeMap::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(again, p);
    assert_eq!(print(&p.clone().tidied().expect("verifies")), text);
    // Without the node nothing stands for what is inside it.
    let mut cut = p;
    cut.outputs = vec![cut.find_value("n").expect("is there")];
    let left = taps(&cut.tidied().expect("verifies"));
    assert_eq!(
        left,
        [
            "beta i16 none -",
            "gamma i16 none -",
            "norm/normalized i16 none norm",
            "norm/reciprocal i16 fixed norm"
        ]
    );
}

/// Whatever a mask adds or puts in the place of scores, the probabilities stay those of the float model.
fn masks() {
    let add = |v: &str| {
        format!(
            "const v2 \"mask\" f32[1,3,3] [0.0, {v}, {v}, 0.0, 0.0, {v}, 0.0, 0.0, 0.0]
const v3 \"unused\" f32[] [0.0]
%3 \"masked\" Add(v5, v2) -> v6 \"m\" f32[N,3,3]"
        )
    };
    let put = |v: &str| {
        format!(
            "const v2 \"keep\" bool[1,3,3] [1, 0, 0, 1, 1, 0, 1, 1, 1]
const v3 \"far\" f32[] [{v}]
%3 \"masked\" Where(v2, v5, v3) -> v6 \"m\" f32[N,3,3]"
        )
    };
    let all =
        [add("-1e4"), add("-1e9"), add("-3.4028235e38"), put("-1e9"), put("-65504.0"), put("-3.4028235e38")];
    for mask in all {
        let (constants, node) = mask.split_once("%3").expect("both");
        let text = format!(
            "graph \"g\" float
input v0 \"x\" f32[N,3,4]
const v1 \"w\" f32[4,4] [1.0, 0.5, -0.25, 0.1, 0.2, 1.0, 0.0, 0.3, 0.0, -0.5, 1.0, 0.0, 0.3, 0.1, 0.2, 1.0]
{constants}%1 \"turn\" Transpose(v0) {{perm = [0, 2, 1]}} -> v4 \"t\" f32[N,4,3]
%2 \"scores\" MatMul(v0, v4) -> v5 \"s\" f32[N,3,3]
%3{node}
%5 \"softmax\" Softmax(v6) {{axis = -1, to_end = 0}} -> v7 \"p\" f32[N,3,3]
%6 \"mixed\" MatMul(v7, v0) -> v8 \"a\" f32[N,3,4]
%9 \"last\" MatMul(v8, v1) -> v9 \"y\" f32[N,3,4]
output v9
"
        );
        let g = parse(&text, by_name, &BTreeMap::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let p = prepare(&calibration_graph(g.clone()).expect("float"), &QuantConfig::default())
            .expect("prepares");
        let (float, _) = exposed(&g).expect("exposes");
        let values: Vec<ValueId> =
            float.nodes().iter().flat_map(|n| n.outputs.clone()).chain(float.inputs.clone()).collect();
        let mut summaries = BTreeMap::new();
        let concrete = float.at_batch(2).expect("concrete");
        let trace = CpuExecutor::new(concrete).run(&[input()], &values).expect("runs");
        for v in values {
            let mut summary = Summary::new();
            summary.observe(trace.values[&v].f32s(), &[trace.values[&v].len()]);
            summaries.insert(float.value(v).name.clone(), summary);
        }
        let graph = fill(&p, &summaries, &Moving::default()).expect("fills").graph;
        let probabilities = |g: &Graph, name: &str| {
            let v = g.find_value(name).expect("is there");
            run(g, &input(), &[v])[1].clone()
        };
        for (a, b) in probabilities(&g, "p").iter().zip(probabilities(&graph, "p/quantized")) {
            assert!((a - b).abs() < 0.02, "{a} {b} of {mask}\n{}", print(&graph));
        }
    }
}

/// What `calibrate` says of its composites and of the quantizers inside, by kind and origin.
fn calibrated(model: &str) -> (BTreeMap<String, usize>, BTreeMap<(String, String), usize>) {
    let dir = tempfile::tempdir().expect("a folder");
    let graph = dir.path().join("m.graph");
    let data = format!("{}/examples/datasets/vit_cifar10.calib.toml", env!("CARGO_MANIFEST_DIR"));
    let model = shared(model).expect("is there");
    let json = json(0, &["calibrate", text(&model), "--data", &data, "--limit", "8", "-o", text(&graph)]);
    let mut kinds = BTreeMap::new();
    for c in json["composites"].as_array().expect("a list") {
        *kinds.entry(c["kind"].as_str().expect("a text").to_owned()).or_insert(0) += 1;
    }
    let mut origins = BTreeMap::new();
    for q in json["quantizers"].as_array().expect("a list") {
        let text = |key: &str| q[key].as_str().expect("a text").to_owned();
        *origins.entry((text("role"), text("origin"))).or_insert(0) += 1;
        let seen = q["min"].is_number() && q["max"].is_number();
        let tap = q["role"] == "tap";
        assert!((seen || !tap) && !q["scale"].as_array().expect("a list").is_empty(), "{q}");
    }
    (kinds, origins)
}

fn transformer() {
    let (kinds, origins) = calibrated("data/models/vit_cifar10.onnx");
    let wanted = [("attention", 3), ("gelu", 3), ("layernormalization", 7), ("softmax", 3)];
    assert_eq!(kinds, wanted.map(|(k, n)| (k.to_owned(), n)).into());
    let of = |role: &str, origin: Origin| origins.get(&(role.to_owned(), origin.name().to_owned())).copied();
    // Inside: 7 times normalized, gamma and beta, 3 times two scores; and a mantissa each, exp and probabilities.
    assert_eq!((of("tap", Origin::Observed), of("tap", Origin::Fixed)), (Some(27), Some(16)), "{origins:?}");
}

fn imported() {
    let (kinds, origins) = calibrated("data/quantized_by_onnxruntime/vit_cifar10.qdq_s8.onnx");
    assert_eq!(kinds.get("layernormalization"), Some(&7), "{kinds:?}");
    for ((role, origin), _) in origins {
        assert_eq!(role == "tap", origin != "imported", "{role} {origin}");
    }
}
