//! Passes on small graphs, as text before and after.

use samebit::analysis::check::{Finding, Known, Severity, check};
use samebit::graph::text::{parse, print};
use samebit::graph::{Graph, Stage};
use samebit::ops::{by_name, fake_quant};
use samebit::passes::config::{Code, Preset, QuantConfig, RoleName, Rule};
use samebit::passes::fuse::{Reason, groups};
use samebit::passes::prepare::{calibration_graph, prepare, prepare_model};
use samebit::quant::{Origin, QParams, Quantizer, Role, Spec};
use samebit::tensor::DType;

fn graph(text: &str) -> Graph {
    parse(text, by_name, &Default::default()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Nodes as `name: Operator`, in order.
fn nodes(g: &Graph) -> Vec<String> {
    g.nodes().iter().map(|n| format!("{}: {}", n.name, n.op.def().name)).collect()
}

/// Quantizers as `tensor dtype role`, sorted.
fn quantizers(g: &Graph) -> Vec<String> {
    let of = |n: &samebit::graph::Node| {
        let q = n.quantizer()?;
        Some(format!("{} {} {}", g.value(n.inputs[0]).name, q.spec.dtype, q.spec.role))
    };
    let mut all: Vec<String> = g.nodes().iter().filter_map(of).collect();
    all.sort();
    all
}

/// x -> conv -> bn -> + residual -> relu -> conv2 -> y, with 1x1 kernels of 2 channels.
fn residual(relu_first: bool) -> Graph {
    let tail = if relu_first {
        "%2 \"relu\" Relu(v7) -> v8 \"r\" f32[N,2,3,3]
%3 \"add\" Add(v8, v0) -> v9 \"s\" f32[N,2,3,3]"
    } else {
        "%2 \"add\" Add(v7, v0) -> v8 \"s\" f32[N,2,3,3]
%3 \"relu\" Relu(v8) -> v9 \"r\" f32[N,2,3,3]"
    };
    graph(&format!(
        "graph \"residual\" float
input v0 \"x\" f32[N,2,3,3]
const v1 \"w\" f32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
const v2 \"gamma\" f32[2] [2.0, 1.0]
const v3 \"beta\" f32[2] [0.5, -0.5]
const v4 \"mean\" f32[2] [1.0, 2.0]
const v5 \"var\" f32[2] [3.0, 0.0]
%0 \"conv\" Conv(v0, v1) {{kernel_shape = [1, 1], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], group = 1}} -> v6 \"c\" f32[N,2,3,3]
%1 \"bn\" BatchNormalization(v6, v2, v3, v4, v5) {{epsilon = 1.0}} -> v7 \"b\" f32[N,2,3,3]
{tail}
%4 \"conv2\" Conv(v9, v1) {{kernel_shape = [1, 1], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], group = 1}} -> v10 \"y\" f32[N,2,3,3]
output v10
"
    ))
}

fn rule(name: &str, dtype: DType) -> Rule {
    Rule { name: Some(name.into()), activation: Some(Code(dtype)), ..Rule::default() }
}

#[test]
fn batch_normalisation_is_folded_into_the_weights() {
    let g = calibration_graph(residual(false)).expect("folds");
    assert_eq!(nodes(&g), ["conv: Conv", "add: Add", "relu: Relu", "conv2: Conv"]);
    let conv = &g.nodes()[0];
    let constant = |i: usize| g.value(conv.inputs[i]).constant.as_ref().expect("constant").f32s().to_vec();
    // gamma / sqrt(var + eps) is 1 for both channels; w and the shifts follow.
    assert_eq!(constant(1), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(constant(2), [-0.5, -2.5]);
    assert_eq!(g.value(conv.outputs[0]).name, "b", "the name of what it computes now");
    let text = print(&g);
    let again = print(&calibration_graph(g).expect("nothing left to fold"));
    assert_eq!(text, again);
}

#[test]
fn a_group_has_one_quantizer_behind_it() {
    let g = calibration_graph(residual(false)).expect("folds");
    let found = groups(&g);
    let members: Vec<usize> = found.groups.iter().map(|g| g.nodes.len()).collect();
    assert_eq!((members, found.unfused.len()), (vec![3], 0));
    let p = prepare(&g, &QuantConfig::default()).expect("prepares");
    assert_eq!(p.graph.stage, Stage::FakeQuant);
    assert_eq!(
        quantizers(&p.graph),
        ["r i8 activation", "w i8 weight", "w.folded i8 weight", "x i8 input"],
        "{}",
        print(&p.graph)
    );
    // The output of the last product has high precision, unless the preset says otherwise.
    let all = prepare(&g, &QuantConfig::preset(Preset::AllI8)).expect("prepares");
    assert!(quantizers(&all.graph).contains(&"y/raw i8 output".to_owned()), "{:?}", quantizers(&all.graph));
    assert_eq!(all.graph.value(all.graph.outputs[0]).name, "y");
}

#[test]
fn an_addition_behind_a_clamp_is_no_part_of_the_group() {
    let g = calibration_graph(residual(true)).expect("folds");
    let p = prepare(&g, &QuantConfig::default()).expect("prepares");
    assert_eq!(
        quantizers(&p.graph),
        ["r i8 activation", "s i8 activation", "w i8 weight", "w.folded i8 weight", "x i8 input"]
    );
}

#[test]
fn a_rule_about_what_was_fused_away_is_told_where_it_went() {
    let of = |rule: Rule| {
        let e =
            prepare_model(&residual(false), &QuantConfig::default().with(rule)).expect_err("nothing matches");
        e.to_string()
    };
    let op =
        |op: &str| of(Rule { op: Some(op.into()), activation: Some(Code(DType::I16)), ..Rule::default() });
    let e = op("BatchNormalization");
    assert!(
        e.contains("matches nothing") && !e.contains("near") && e.contains("taken in by conv (Conv)"),
        "{e}"
    );
    assert!(of(rule("bn", DType::I16)).contains("taken in by conv (Conv)"), "{}", of(rule("bn", DType::I16)));
    // What a name may have been meant for, in the model as it was written.
    assert!(op("BatchNormalisation").contains("near: BatchNormalization"), "{}", op("BatchNormalisation"));
    assert!(!op("Softmax").contains("taken in"), "{}", op("Softmax"));
    // The last node of a group is there, and has no say.
    let relu = Rule { op: Some("Relu".into()), activation: Some(Code(DType::I16)), ..Rule::default() };
    let (_, p) = prepare_model(&residual(false), &QuantConfig::default().with(relu)).expect("prepares");
    assert_eq!((p.forced.len(), p.forced[0].node.as_str()), (1, "relu (Relu)"));
    assert!(p.forced[0].reason.contains("name conv (Conv)"), "{}", p.forced[0].reason);
}

#[test]
fn a_normalisation_behind_a_clamp_is_a_finding() {
    let model = |taker: &str| {
        graph(&format!(
            "graph \"late\" float
input v0 \"x\" f32[N,2,3,3]
const v1 \"w\" f32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
const v2 \"one\" f32[2] [1.0, 1.0]
%0 \"conv\" Conv(v0, v1) {{kernel_shape = [1, 1], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], group = 1}} -> v3 \"c\" f32[N,2,3,3]
%1 \"relu\" Relu(v3) -> v4 \"r\" f32[N,2,3,3]
%2 \"bn\" BatchNormalization(v4, v2, v2, v2, v2) {{epsilon = 1.0}} -> v5 \"b\" f32[N,2,3,3]
%3 \"add\" Add(v5, {taker}) -> v6 \"s\" f32[N,2,3,3]
%4 \"conv2\" Conv(v6, v1) {{kernel_shape = [1, 1], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], group = 1}} -> v7 \"y\" f32[N,2,3,3]
output v7
"
        ))
    };
    // Whether something else takes the clamp's output, too, or not.
    for taker in ["v0", "v4"] {
        let (_, p) = prepare_model(&model(taker), &QuantConfig::default()).expect("prepares");
        let late: Vec<_> = p.unfused.iter().filter(|u| u.reason == Reason::Order).collect();
        assert_eq!(late.len(), 1, "{taker}: {:?}", p.unfused);
        let nodes: Vec<u32> = late[0].nodes.iter().map(|id| id.0).collect();
        assert_eq!(nodes, [0, 1, 2]);
        let report = check(&p.graph, Known { unfused: &p.unfused, ..Known::default() });
        let found: Vec<&Finding> =
            report.findings.iter().filter(|f| f.rule == "float-normalisation").collect();
        assert_eq!(
            (found.len(), found[0].severity, found[0].node.as_str()),
            (1, Severity::Warning, "bn (BatchNormalization)")
        );
        for part in ["runs in float", "conv (Conv) + relu (Relu)", "order", "Mul and Add"] {
            assert!(found[0].message.contains(part), "{part}: {}", found[0].message);
        }
    }
}

#[test]
fn what_keeps_nodes_from_being_fused_is_said() {
    let text = |conv_users: &str, outputs: &str| {
        graph(&format!(
            "graph \"g\" float
input v0 \"x\" f32[N,1,2,2]
const v1 \"w\" f32[1,1,1,1] [1.0]
%0 \"conv\" Conv(v0, v1) {{kernel_shape = [1, 1], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], group = 1}} -> v2 \"c\" f32[N,1,2,2]
%1 \"relu\" Relu(v2) -> v3 \"r\" f32[N,1,2,2]
{conv_users}{outputs}"
        ))
    };
    let reasons = |g: &Graph| -> Vec<Reason> { groups(g).unfused.iter().map(|u| u.reason).collect() };
    assert_eq!(reasons(&text("", "output v3\n")), []);
    assert_eq!(reasons(&text("", "output v3\noutput v2\n")), [Reason::GraphOutput]);
    let other = "%2 \"tanh\" Tanh(v2) -> v4 \"t\" f32[N,1,2,2]\n";
    assert_eq!(reasons(&text(other, "output v3\noutput v4\n")), [Reason::Shared]);
}

#[test]
fn the_first_rule_that_touches_a_node_counts() {
    let g = calibration_graph(residual(false)).expect("folds");
    let config = QuantConfig::default().with(rule("conv", DType::I16)).with(rule("conv*", DType::I4));
    let p = prepare(&g, &config).expect("prepares");
    assert!(quantizers(&p.graph).contains(&"r i16 activation".to_owned()), "{:?}", quantizers(&p.graph));
    // conv2's output is quantized because its rule asks for it.
    assert!(quantizers(&p.graph).contains(&"y/raw i4 output".to_owned()), "{:?}", quantizers(&p.graph));
    let inner = QuantConfig::default().with(rule("add", DType::I16));
    let p = prepare(&g, &inner).expect("prepares");
    assert_eq!((p.forced.len(), p.forced[0].asked), (1, DType::I16));
    assert!(p.forced[0].node.contains("add") && p.forced[0].reason.contains("group"), "{:?}", p.forced);
    let float = Rule { name: Some("conv2".into()), float: true, ..Rule::default() };
    let p = prepare(&g, &QuantConfig::default().with(float)).expect("prepares");
    assert_eq!(quantizers(&p.graph), ["w.folded i8 weight", "x i8 input"], "nothing takes r as codes");
    let float = Rule { name: Some("conv".into()), float: true, ..Rule::default() };
    let p = prepare(&g, &QuantConfig::default().with(float)).expect("prepares");
    assert_eq!(
        quantizers(&p.graph),
        ["r i8 activation", "w i8 weight"],
        "the addition goes with its product"
    );
    let output = Rule { role: Some(RoleName::Output), activation: Some(Code(DType::I16)), ..Rule::default() };
    let p = prepare(&g, &QuantConfig::default().with(output)).expect("prepares");
    assert!(quantizers(&p.graph).contains(&"y/raw i16 output".to_owned()));
}

#[test]
fn gelu_and_layer_normalisation_are_put_together() {
    let g = graph(
        "graph \"g\" float
input v0 \"x\" f32[N,4]
const v1 \"two\" f32[] [2.0]
const v2 \"eps\" f32[] [0.001]
const v3 \"gamma\" f32[4] [1.0, 2.0, 3.0, 4.0]
const v4 \"beta\" f32[4] [0.0, 1.0, 0.0, 1.0]
const v5 \"root\" f32[] [1.4142135]
const v6 \"one\" f32[] [1.0]
const v7 \"half\" f32[] [0.5]
%0 \"m\" ReduceMean(v0) {axes = [-1], keepdims = 1} -> v8 \"m\" f32[N,1]
%1 \"d\" Sub(v0, v8) -> v9 \"d\" f32[N,4]
%2 \"p\" Pow(v9, v1) -> v10 \"p\" f32[N,4]
%3 \"v\" ReduceMean(v10) {axes = [-1], keepdims = 1} -> v11 \"v\" f32[N,1]
%4 \"e\" Add(v11, v2) -> v12 \"e\" f32[N,1]
%5 \"s\" Sqrt(v12) -> v13 \"s\" f32[N,1]
%6 \"q\" Div(v9, v13) -> v14 \"q\" f32[N,4]
%7 \"g\" Mul(v14, v3) -> v15 \"g\" f32[N,4]
%8 \"norm\" Add(v15, v4) -> v16 \"n\" f32[N,4]
%9 \"a\" Div(v16, v5) -> v17 \"a\" f32[N,4]
%10 \"b\" Erf(v17) -> v18 \"b\" f32[N,4]
%11 \"c\" Add(v18, v6) -> v19 \"c\" f32[N,4]
%12 \"f\" Mul(v16, v19) -> v20 \"f\" f32[N,4]
%13 \"gelu\" Mul(v20, v7) -> v21 \"y\" f32[N,4]
output v21
",
    );
    let found = calibration_graph(g.clone()).expect("recognises");
    assert_eq!(nodes(&found), ["norm: LayerNormalization", "gelu: Gelu"]);
    let x = samebit::tensor::Tensor::from_f32([2, 4], vec![1.0, -2.0, 3.0, 0.5, 0.1, 0.2, 0.3, -0.4]);
    let run = |g: &Graph| {
        let g = g.at_batch(2).expect("concrete");
        let out = g.outputs[0];
        let trace = samebit::exec::CpuExecutor::new(g).run(std::slice::from_ref(&x), &[]).expect("runs");
        trace.values[&out].f32s().to_vec()
    };
    for (a, b) in run(&g).iter().zip(run(&found)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

fn fixed(dtype: DType, scale: f32) -> std::sync::Arc<dyn samebit::graph::Op> {
    let params = QParams::per_tensor(dtype, scale, 0).expect("legal");
    fake_quant(Quantizer::with_params(Spec::new(dtype, Role::Activation, "fixed"), params, Origin::Fixed))
}

#[test]
fn planted_faults_are_found_by_check() {
    let mut g = Graph::new("faults");
    g.stage = Stage::FakeQuant;
    let ty = samebit::tensor::TensorType::new(DType::F32, [1, 2, 2, 2]);
    let (x, y) = (g.add_input("x", ty.clone()), g.add_input("y", ty));
    let add = |g: &mut Graph, name: &str, op, inputs: &[samebit::graph::ValueId]| {
        g.add_node(name, None, op, inputs, &[format!("{name}.out")]).expect("fits")[0]
    };
    let small = add(&mut g, "small", fixed(DType::I8, 0.001), &[x]);
    let large = add(&mut g, "large", fixed(DType::I8, 10.0), &[y]);
    let concat = {
        use samebit::graph::attrs::{Attrs, Input, Reader, Source};
        let input = Some(Input { ty: g.value(small).ty.clone(), known: None });
        let attrs = Attrs::new().int("axis", 1);
        let mut reader = Reader::new(Source::Graph, "Concat", attrs, vec![input.clone(), input], 1);
        (by_name("Concat").expect("there").read)(&mut reader).expect("reads")
    };
    let both = add(&mut g, "concat", concat, &[small, large]);
    let once = add(&mut g, "once", fixed(DType::I8, 10.0), &[both]);
    let twice = add(&mut g, "twice", fixed(DType::I8, 5.0), &[once]);
    let w = g.add_constant("w", samebit::tensor::Tensor::from_f32([1, 4, 1, 1], vec![1.0; 4]));
    let conv = residual(false).nodes()[0].op.clone();
    let z = add(&mut g, "conv", conv, &[both, w]);
    g.outputs = vec![twice, z];
    g.verify().expect("legal");
    let findings = check(&g, Known::default()).findings;
    let has = |rule: &str, severity: Severity, node: &str| {
        findings
            .iter()
            .any(|f: &Finding| f.rule == rule && f.severity == severity && f.node.starts_with(node))
    };
    assert!(has("mixed-ranges", Severity::Error, "concat"), "{findings:#?}");
    assert!(has("quantized-twice", Severity::Warning, "twice"), "{findings:#?}");
    assert!(has("float-input", Severity::Error, "conv"), "{findings:#?}");
    assert!(has("low-precision-output", Severity::Warning, "twice.out"), "{findings:#?}");
    let good = prepare(&calibration_graph(residual(false)).expect("folds"), &QuantConfig::default());
    let report = check(&good.expect("prepares").graph, Known::default());
    assert_eq!(report.findings, [], "a sound graph has no findings");
    let keys: Vec<&str> = report.sections.iter().map(|s| s.key).collect();
    assert_eq!(keys, ["unfused", "shared", "input_dtypes", "output_dtypes", "outputs", "weights", "unusual"]);
}
