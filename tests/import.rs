//! Import of ONNX models.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use samebit::exec::CpuExecutor;
use samebit::graph::Graph;
use samebit::onnx::{ImportOptions, import_bytes, load_model, parse_shape};
use samebit::tensor::{Dim, Tensor};
use support::onnx::{
    A, BOOL, D, F16, F32, Graph as Model, I32, I64, Message, STRING, f32s, i64s, tensor, value_info,
};

const N: D = D::Name("N");

fn with(m: &Model, options: &ImportOptions) -> Graph {
    import_bytes(m.model(13), options).unwrap_or_else(|e| panic!("{e}"))
}

fn ok(m: &Model) -> Graph {
    with(m, &ImportOptions::default())
}

fn error(m: &Model, options: &ImportOptions) -> String {
    import_bytes(m.model(13), options).expect_err("must be refused").to_string()
}

fn bad(m: &Model) -> String {
    error(m, &ImportOptions::default())
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

fn outputs(g: &Graph) -> Vec<String> {
    let one = |o| {
        let v = g.value(o);
        format!("{} {}", v.name, v.ty)
    };
    g.outputs.iter().map(|o| one(*o)).collect()
}

fn inputs(g: &Graph) -> Vec<String> {
    g.inputs.iter().map(|i| format!("{} {}", g.value(*i).name, g.value(*i).ty)).collect()
}

fn ops(g: &Graph) -> Vec<&str> {
    g.nodes().iter().map(|n| n.op.def().name).collect()
}

fn constant(g: &Graph, name: &str) -> Tensor {
    let id = g.find_value(name).unwrap_or_else(|| panic!("no value {name}"));
    g.value(id).constant.clone().unwrap_or_else(|| panic!("{name} is not constant"))
}

fn options(inputs: &[&str], outputs: &[&str], shapes: &[&str]) -> ImportOptions {
    let owned = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
    let shapes = shapes.iter().map(|s| parse_shape(s).unwrap()).collect();
    ImportOptions { inputs: owned(inputs), outputs: owned(outputs), shapes }
}

#[test]
fn names_types_and_sources_are_kept() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(3)])
        .node("act", "Relu", &["x"], &["a"], &[])
        .node("", "LeakyRelu", &["a"], &["b"], &[("alpha", A::Float(0.5))])
        .node("act", "Relu", &["b"], &["y"], &[])
        .output("y");
    let g = ok(&m);
    assert_eq!((inputs(&g), outputs(&g)), (vec!["x f32[N,3]".into()], vec!["y f32[N,3]".into()]));
    let names: Vec<&str> = g.nodes().iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["act", "b", "act#2"]);
    let sources: Vec<&str> = g.nodes().iter().filter_map(|n| n.source.as_deref()).collect();
    assert_eq!(sources, ["act (Relu)", " (LeakyRelu)", "act (Relu)"]);
}

#[test]
fn nodes_in_any_order_are_sorted_and_dead_ones_dropped_unread() {
    let m = Model::new()
        .input("x", F32, &[N])
        .input("unused", STRING, &[N])
        .node("last", "Relu", &["a"], &["y"], &[])
        .node("first", "Sigmoid", &["x"], &["a"], &[])
        .node("dead", "Nonsense", &["nowhere"], &["z"], &[("q", A::Int(1))])
        .output("y");
    let g = ok(&m);
    assert_eq!((ops(&g), inputs(&g)), (vec!["Sigmoid", "Relu"], vec!["x f32[N]".to_owned()]));
}

/// What view(x.shape[0], -1) exports to.
#[test]
fn a_flattening_with_the_batch_size_becomes_one_reshape() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(3), D::Size(4)])
        .init(i64s("zero", &[], &[0]))
        .init(i64s("axes", &[1], &[0]))
        .init(i64s("rest", &[1], &[-1]))
        .node("", "Shape", &["x"], &["s"], &[])
        .node("", "Gather", &["s", "zero"], &["n"], &[("axis", A::Int(0))])
        .node("", "Unsqueeze", &["n", "axes"], &["n1"], &[])
        .node("", "Concat", &["n1", "rest"], &["to"], &[("axis", A::Int(0))])
        .node("r", "Reshape", &["x", "to"], &["y"], &[])
        .output("y");
    let g = ok(&m);
    assert_eq!((ops(&g), outputs(&g)), (vec!["Reshape"], vec!["y f32[N,12]".to_owned()]));
    assert_eq!(g.values().len(), 2, "no constants are left");
}

/// What torch exports for expand(n, -1, -1): Equal with -1 and Where choose between sizes and ones.
#[test]
fn an_expansion_to_the_batch_keeps_n() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(2)])
        .init(f32s("cls", &[1, 1, 2], &[1.0, 2.0]))
        .init(i64s("zero", &[], &[0]))
        .init(i64s("axes", &[1], &[0]))
        .init(i64s("rest", &[2], &[-1, -1]))
        .init(i64s("minus", &[1], &[-1]))
        .node("", "Shape", &["x"], &["s"], &[])
        .node("", "Gather", &["s", "zero"], &["n"], &[])
        .node("", "Unsqueeze", &["n", "axes"], &["n1"], &[])
        .node("", "Concat", &["n1", "rest"], &["wanted"], &[("axis", A::Int(0))])
        .node("", "Shape", &["wanted"], &["len"], &[])
        .node("", "ConstantOfShape", &["len"], &["ones"], &[("value", A::Tensor(i64s("", &[1], &[1])))])
        .node("", "Mul", &["ones", "minus"], &["minuses"], &[])
        .node("", "Equal", &["wanted", "minuses"], &["same"], &[])
        .node("", "Where", &["same", "ones", "wanted"], &["to"], &[])
        .node("", "Expand", &["cls", "to"], &["y"], &[])
        .output("y");
    assert_eq!(outputs(&ok(&m)), ["y f32[N,1,2]"]);
}

#[test]
fn a_constant_of_symbolic_shape_becomes_a_fill() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(2)])
        .node("", "Shape", &["x"], &["s"], &[])
        .node("", "ConstantOfShape", &["s"], &["y"], &[("value", A::Tensor(f32s("", &[1], &[2.5])))])
        .output("y");
    let g = ok(&m);
    assert_eq!((ops(&g), outputs(&g)), (vec!["Fill"], vec!["y f32[N,2]".to_owned()]));
    let run = CpuExecutor::new(g.at_batch(3).unwrap()).run(&[Tensor::from_f32([3, 2], vec![0.0; 6])], &[]);
    assert_eq!(run.unwrap().values[&g.outputs[0]], Tensor::from_f32([3, 2], vec![2.5; 6]));
}

/// Operator, inputs, attributes; shape and elements of what comes out.
type FoldCase<'a> = (&'a str, &'a [&'a str], Vec<(&'a str, A)>, &'a [usize], &'a [i32]);

#[test]
fn integers_are_folded_as_onnx_computes_them() {
    let int = |name: &str, v: &[i64]| i64s(name, &[i64::try_from(v.len()).unwrap()], v);
    let a = || int("a", &[7, -7, 6, 0]);
    let b = || int("b", &[2, 2, -4, 5]);
    let case = |op: &str, inputs: &[&str], attrs: &[(&str, A)]| {
        let m = Model::new().init(a()).init(b()).init(i64s("big", &[2], &[1 << 40, 3]));
        let m = m.init(int("i", &[-1, 0])).init(int("one", &[1])).init(i64s("s", &[], &[2]));
        let m = m
            .init(int("lo", &[-1]))
            .init(int("hi", &[i64::MIN]))
            .init(int("ax", &[0]))
            .init(int("st", &[-2]));
        let m = m.init(i64s("m", &[2, 2], &[1, 2, 3, 4])).init(int("neg", &[-1])).init(int("shape", &[2, 4]));
        let g = ok(&m.node("", op, inputs, &["y"], attrs).output("y"));
        assert_eq!(g.nodes().len(), 0, "{op} is left over");
        let t = constant(&g, "y");
        let values: Vec<i32> = match (t.as_i32(), t.as_bool()) {
            (Some(v), _) => v.to_vec(),
            (_, Some(v)) => v.iter().map(|x| i32::from(*x)).collect(),
            _ => panic!("{op} gave {}", t.ty()),
        };
        (t.shape().to_vec(), values)
    };
    let cases: Vec<FoldCase> = vec![
        ("Add", &["a", "b"], vec![], &[4], &[9, -5, 2, 5]),
        ("Sub", &["a", "b"], vec![], &[4], &[5, -9, 10, -5]),
        ("Mul", &["a", "s"], vec![], &[4], &[14, -14, 12, 0]),
        ("Div", &["a", "b"], vec![], &[4], &[3, -3, -1, 0]),
        ("Mod", &["a", "b"], vec![], &[4], &[1, 1, -2, 0]),
        ("Mod", &["a", "b"], vec![("fmod", A::Int(1))], &[4], &[1, -1, 2, 0]),
        ("Min", &["a", "b", "s"], vec![], &[4], &[2, -7, -4, 0]),
        ("Max", &["a", "b", "s"], vec![], &[4], &[7, 2, 6, 5]),
        ("Neg", &["a"], vec![], &[4], &[-7, 7, -6, 0]),
        ("Equal", &["a", "b"], vec![], &[4], &[0, 0, 0, 0]),
        ("Less", &["a", "b"], vec![], &[4], &[0, 1, 0, 1]),
        ("GreaterOrEqual", &["a", "s"], vec![], &[4], &[1, 0, 1, 0]),
        ("Gather", &["a", "i"], vec![], &[2], &[0, 7]),
        ("Gather", &["m", "i"], vec![("axis", A::Int(1))], &[2, 2], &[2, 1, 4, 3]),
        ("Concat", &["m", "m"], vec![("axis", A::Int(-1))], &[2, 4], &[1, 2, 1, 2, 3, 4, 3, 4]),
        ("Slice", &["a", "lo", "hi", "ax", "st"], vec![], &[2], &[0, -7]),
        ("Slice", &["a", "one", "lo"], vec![], &[2], &[-7, 6]),
        ("Transpose", &["m"], vec![], &[2, 2], &[1, 3, 2, 4]),
        ("Reshape", &["m", "neg"], vec![], &[4], &[1, 2, 3, 4]),
        ("Expand", &["one", "shape"], vec![], &[2, 4], &[1; 8]),
        ("ReduceProd", &["m"], vec![("keepdims", A::Int(0))], &[], &[24]),
        ("ReduceSum", &["m", "ax"], vec![], &[1, 2], &[4, 6]),
        ("ReduceMax", &["a"], vec![], &[1], &[7]),
        ("Size", &["m"], vec![], &[], &[4]),
        ("Squeeze", &["one"], vec![], &[], &[1]),
        ("Unsqueeze", &["a", "ax"], vec![], &[1, 4], &[7, -7, 6, 0]),
        ("Cast", &["a"], vec![("to", A::Int(9))], &[4], &[1, 1, 1, 0]),
        ("Shape", &["m"], vec![], &[2], &[2, 2]),
        // 2^40 fits no 32 bits, but it is gone before a tensor is made.
        ("Less", &["big", "s"], vec![], &[2], &[0, 0]),
        ("Div", &["big", "big"], vec![], &[2], &[1, 1]),
    ];
    for (op, inputs, attrs, shape, values) in cases {
        assert_eq!(case(op, inputs, &attrs), (shape.to_vec(), values.to_vec()), "{op} {inputs:?} {attrs:?}");
    }
}

#[test]
fn ranges_and_splits_are_folded() {
    let m = Model::new().init(i64s("a", &[], &[10])).init(i64s("b", &[], &[3])).init(i64s("c", &[], &[-3]));
    let m = m.init(i64s("v", &[5], &[1, 2, 3, 4, 5])).init(i64s("sizes", &[2], &[1, 4]));
    let m = m
        .node("", "Range", &["a", "b", "c"], &["y"], &[])
        .node("", "Split", &["v", "sizes"], &["p", "q"], &[])
        .output("y")
        .output("q")
        .output("p");
    let g = ok(&m);
    assert_eq!(constant(&g, "y"), Tensor::from_i32([3], vec![10, 7, 4]));
    assert_eq!(constant(&g, "q"), Tensor::from_i32([4], vec![2, 3, 4, 5]));
    assert_eq!(outputs(&g), ["y i32[3]", "q i32[4]", "p i32[1]"]);
}

#[test]
fn every_form_of_a_constant_node_is_read() {
    let m = Model::new()
        .node("", "Constant", &[], &["t"], &[("value", A::Tensor(f32s("", &[2], &[1.0, 2.0])))])
        .node("", "Constant", &[], &["f"], &[("value_float", A::Float(0.5))])
        .node("", "Constant", &[], &["fs"], &[("value_floats", A::Floats(vec![0.5, 1.5]))])
        .node("", "Constant", &[], &["i"], &[("value_int", A::Int(-3))])
        .node("", "Constant", &[], &["is"], &[("value_ints", A::Ints(vec![4, 5]))])
        .output("t")
        .output("f")
        .output("fs")
        .output("i")
        .output("is");
    let g = ok(&m);
    assert_eq!(outputs(&g), ["t f32[2]", "f f32[]", "fs f32[2]", "i i32[]", "is i32[2]"]);
    assert_eq!(constant(&g, "is"), Tensor::from_i32([2], vec![4, 5]));
    let text = Model::new().node("c", "Constant", &[], &["y"], &[("value_string", A::Str("x"))]).output("y");
    has(&bad(&text), &["c (Constant)", "value_string", "value_ints"]);
}

#[test]
fn nodes_on_constants_are_evaluated() {
    let m = Model::new()
        .init(f32s("c", &[3], &[-1.0, 0.0, 2.0]))
        .node("", "Relu", &["c"], &["r"], &[])
        .node("", "LeakyRelu", &["r"], &["y"], &[])
        .output("y");
    let g = ok(&m);
    assert_eq!((g.nodes().len(), constant(&g, "y")), (0, Tensor::from_f32([3], vec![0.0, 0.0, 2.0])));
}

#[test]
fn half_double_and_typed_storage_are_read() {
    let half = tensor("h", F16, &[2], &[0x00, 0x3c, 0x00, 0xc0]);
    let bf = tensor("b", 16, &[1], &[0x80, 0x3f]);
    let double = tensor("d", 11, &[1], &0.1f64.to_le_bytes());
    let typed = Message::new().int(1, 2).int(2, F32).text(8, "t").float(4, 1.5).float(4, -2.5);
    let bytes = Message::new().int(1, 2).int(2, 3).text(8, "i8").int(5, -5).int(5, 7);
    let truth = tensor("o", BOOL, &[2], &[1, 0]);
    let m = [half, bf, double, typed, bytes, truth].into_iter().fold(Model::new(), Model::init);
    let m = ["h", "b", "d", "t", "i8", "o"].into_iter().fold(m, Model::output);
    let g = ok(&m);
    assert_eq!(constant(&g, "h"), Tensor::from_f32([2], vec![1.0, -2.0]));
    assert_eq!(constant(&g, "b"), Tensor::from_f32([1], vec![1.0]));
    assert_eq!(constant(&g, "d"), Tensor::from_f32([1], vec![0.1]));
    assert_eq!(constant(&g, "t"), Tensor::from_f32([2], vec![1.5, -2.5]));
    assert_eq!(constant(&g, "i8"), Tensor::from_i8([2], vec![-5, 7]));
    assert_eq!(constant(&g, "o"), Tensor::from_bool([2], vec![1, 0]));
}

#[test]
fn initializers_listed_as_inputs_are_constants() {
    let m = Model::new()
        .input("x", F32, &[N])
        .input("c", F32, &[D::Size(1)])
        .init(f32s("c", &[1], &[1.0]))
        .node("", "Concat", &["x", "x"], &["y"], &[("axis", A::Int(0))])
        .output("y")
        .output("c");
    let g = import_bytes(m.model(9), &ImportOptions::default()).unwrap();
    assert_eq!(
        (inputs(&g), outputs(&g)),
        (vec!["x f32[N]".to_owned()], vec!["y f32[2N]".into(), "c f32[1]".into()])
    );
}

#[test]
fn a_graph_output_may_be_an_input() {
    let g = ok(&Model::new().input("x", I64, &[D::Open]).output("x"));
    assert_eq!((inputs(&g), outputs(&g)), (vec!["x i32[N]".to_owned()], vec!["x i32[N]".to_owned()]));
}

#[test]
fn symbolic_dimensions_other_than_the_batch_ask_for_a_shape() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(3), D::Name("height"), D::Open])
        .node("", "Relu", &["x"], &["y"], &[])
        .output("y");
    has(&bad(&m), &["input \"x\"", "dimension 2 (\"height\")", "--shape x=Nx3x224x224"]);
    assert_eq!(outputs(&with(&m, &options(&[], &[], &["x=2x3x8x9"]))), ["y f32[2,3,8,9]"]);
    assert_eq!(outputs(&with(&m, &options(&[], &[], &["x=Nx3x8x9"]))), ["y f32[N,3,8,9]"]);
    has(&error(&m, &options(&[], &[], &["xx=1"])), &["--shape", "no tensor \"xx\"", "near: \"x\""]);
    has(&error(&m, &options(&[], &[], &["y=1"])), &["--shape", "\"y\" is not an input"]);
    let open =
        Model::new().input_of(value_info("x", F32, None)).node("", "Relu", &["x"], &["y"], &[]).output("y");
    has(&bad(&open), &["input \"x\"", "its shape is not stated", "--shape x="]);
}

#[test]
fn shapes_are_parsed_or_explained() {
    let dims = |t: &str| parse_shape(t).unwrap().1;
    assert_eq!(dims("a=b=1x2Nx3"), [Dim::Fixed(1), Dim::Batch(2), Dim::Fixed(3)]);
    assert_eq!(dims("a="), []);
    for wrong in ["a", "=1", "a=1x", "a=-1", "a=0N", "a=1,2"] {
        assert!(parse_shape(wrong).unwrap_err().contains("1x3x224x224"), "{wrong}");
    }
}

#[test]
fn a_cut_leaves_out_what_lies_outside() {
    let m = Model::new()
        .input("raw", STRING, &[N])
        .node("decode", "ImageDecoder", &["raw"], &["img"], &[])
        .info("img", F32, &[D::Name("batch"), D::Size(3)])
        .node("a", "Relu", &["img"], &["mid"], &[])
        .node("b", "Sigmoid", &["mid"], &["prob"], &[])
        .node("nms", "NonMaxSuppression", &["prob"], &["boxes"], &[])
        .output("boxes");
    let g = with(&m, &options(&["img"], &["prob"], &[]));
    assert_eq!(
        (inputs(&g), outputs(&g)),
        (vec!["img f32[N,3]".to_owned()], vec!["prob f32[N,3]".to_owned()])
    );
    assert_eq!(ops(&g), ["Relu", "Sigmoid"]);
    // The type of `mid` is inferred from `img`'s only where that is reached; here the decoder is in the way.
    let e = error(&m, &options(&["mid"], &["prob"], &[]));
    has(&e, &["input \"mid\"", "--shape mid="]);
    assert_eq!(inputs(&with(&m, &options(&["mid"], &["prob"], &["mid=Nx3"]))), ["mid f32[N,3]"]);
    has(&error(&m, &options(&["imgg"], &["prob"], &[])), &["--inputs", "\"imgg\"", "near: \"img\""]);
    has(&error(&m, &options(&["img"], &["probe"], &[])), &["--outputs", "\"probe\"", "near: \"prob\""]);
    has(&error(&m, &options(&["img", "prob"], &["mid"], &[])), &["\"prob\" is not needed"]);
    has(&error(&m, &options(&["img", "img"], &["mid"], &[])), &["given twice"]);
}

#[test]
fn the_type_at_a_cut_is_inferred_from_what_lies_before() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(2)])
        .input("z", F32, &[N, D::Size(2)])
        .node("", "Concat", &["x", "x"], &["a"], &[("axis", A::Int(0))])
        .node("", "Relu", &["a"], &["b"], &[])
        .node("", "Concat", &["b", "z"], &["y"], &[("axis", A::Int(0))])
        .output("y");
    let g = with(&m, &options(&["z", "b"], &[], &[]));
    assert_eq!(
        (inputs(&g), outputs(&g)),
        (vec!["z f32[N,2]".into(), "b f32[2N,2]".into()], vec!["y f32[3N,2]".to_owned()])
    );
    has(&error(&m, &options(&["b"], &[], &[])), &["--inputs", "\"z\"", "not listed"]);
}

fn branch(op: &str, out: &'static str) -> A {
    let g = Model::new().node("inner", op, &["x"], &["t"], &[]).node("inner2", "Relu", &["t"], &[out], &[]);
    A::Graph(g.output(out))
}

#[test]
fn a_branch_with_a_known_condition_is_inlined() {
    for (condition, want) in [(1, "Sigmoid"), (0, "LeakyRelu")] {
        let arms =
            || [("then_branch", branch("Sigmoid", "t_out")), ("else_branch", branch("LeakyRelu", "e_out"))];
        let m = Model::new()
            .input("x", F32, &[N])
            .init(tensor("c", BOOL, &[], &[condition]))
            .node("if1", "If", &["c"], &["a"], &arms())
            .node("if2", "If", &["c"], &["b"], &arms())
            .node("", "Concat", &["a", "b"], &["y"], &[("axis", A::Int(0))])
            .output("y");
        let g = ok(&m);
        assert_eq!(ops(&g), [want, "Relu", want, "Relu", "Concat"]);
        assert_eq!(outputs(&g), ["y f32[2N]"]);
    }
    let open = Model::new().input("x", F32, &[N]).input("c", BOOL, &[]).node(
        "if",
        "If",
        &["c"],
        &["y"],
        &[("then_branch", branch("Relu", "p")), ("else_branch", branch("Relu", "q"))],
    );
    has(&bad(&open.output("y")), &["if (If)", "condition is known at import"]);
    let looped = Model::new().input("x", F32, &[N]).node(
        "l",
        "Loop",
        &["", "", "x"],
        &["y"],
        &[("body", branch("Relu", "p"))],
    );
    has(&bad(&looped.output("y")), &["l (Loop)", "has a subgraph"]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(2)])
        .init(tensor("strings", 8, &[1], &[]))
        .node("one", "Rleu", &["x"], &["a"], &[])
        .node("two", "acme:Thing", &["a"], &["b"], &[])
        .node("three", "Relu", &["b"], &["c"], &[])
        .node("four", "LeakyRelu", &["x"], &["d"], &[("alpha", A::Int(3))])
        .node("five", "Relu", &["x"], &["e"], &[("slope", A::Float(1.0))])
        .node("six", "Concat", &["x", "strings"], &["f"], &[("axis", A::Int(7))])
        .node("seven", "Concat", &["x", "x"], &["g"], &[("axis", A::Int(7))])
        .node("eight", "Relu", &["x"], &["h", "i"], &[])
        .node("nine", "Relu", &["nowhere"], &["j"], &[]);
    let m = ["c", "d", "e", "f", "g", "i", "j"].into_iter().fold(m, Model::output);
    let text = bad(&m);
    has(
        &text,
        &[
            "the model has 9 problems:",
            "one (Rleu): operator Rleu (operator set 13) is not supported; near: \"Elu\", \"Relu\"",
            "two (acme:Thing): operator acme:Thing",
            "four (LeakyRelu): attribute alpha = 3; supported: a number",
            "five (Relu): attribute slope = 1.0 is not one that Relu has",
            "tensor \"strings\" has element type string; supported: float, float16",
            "six (Concat): axis 7 is outside a tensor of rank 2",
            "seven (Concat): axis 7 is outside a tensor of rank 2",
            "eight (Relu): has 2 outputs; supported: 1",
            "nine (Relu): tensor \"nowhere\" is used but nothing produces it",
        ],
    );
    assert!(!text.contains("three"), "what only follows from another problem is not one:\n{text}");
}

#[test]
fn integers_beyond_32_bits_are_a_problem_where_a_node_computes_with_them() {
    let m = Model::new()
        .input("x", I64, &[N])
        .init(i64s("big", &[2], &[1, 1 << 33]))
        .node("cat", "Concat", &["x", "big"], &["y"], &[("axis", A::Int(0))])
        .output("y");
    has(&bad(&m), &["cat (Concat)", "tensor \"big\" holds 8589934592 at index 1"]);
}

#[test]
fn a_tensor_that_depends_on_the_batch_cannot_be_data() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(2)])
        .node("", "Shape", &["x"], &["s"], &[])
        .node("cat", "Concat", &["s", "i"], &["y"], &[("axis", A::Int(0))])
        .input("i", I64, &[D::Size(2)])
        .output("y");
    has(&bad(&m), &["cat (Concat)", "input 0 (\"s\") depends on the batch"]);
    has(
        &bad(&Model::new().input("x", F32, &[N]).node("", "Shape", &["x"], &["y"], &[]).output("y")),
        &["output \"y\""],
    );
}

#[test]
fn operator_sets_outside_the_range_are_refused_with_their_number() {
    let m = Model::new().input("x", F32, &[N]).node("", "Relu", &["x"], &["y"], &[]).output("y");
    for opset in [9, 21] {
        import_bytes(m.model(opset), &ImportOptions::default()).unwrap();
    }
    for opset in [-1, 8, 22] {
        let e = import_bytes(m.model(opset), &ImportOptions::default()).unwrap_err().to_string();
        has(&e, &[&format!("operator set {opset}"), "9 to 21"]);
    }
    let without = Message::new().int(1, 8).message(7, &m.message()).0;
    has(&import_bytes(without, &ImportOptions::default()).unwrap_err().to_string(), &["operator set none"]);
    let function = Message::new().text(1, "Relu");
    let functions = Message(m.model(13)).message(25, &function).0;
    let e = import_bytes(functions, &ImportOptions::default()).unwrap_err().to_string();
    has(&e, &["y (Relu)", "function of the model"]);
}

#[test]
fn model_files_of_both_forms_are_told_apart_by_content() {
    let dir = tempfile::tempdir().unwrap();
    let m = Model::new()
        .input("x", I32, &[N])
        .node("", "Concat", &["x", "x"], &["y"], &[("axis", A::Int(0))])
        .output("y");
    let (onnx, file) = (dir.path().join("a.bin"), dir.path().join("b.onnx"));
    std::fs::write(&onnx, m.model(13)).unwrap();
    let g = load_model(&onnx, &ImportOptions::default()).unwrap();
    samebit::graph::file::save(&g, &file).unwrap();
    assert_eq!(load_model(&file, &ImportOptions::default()).unwrap(), g);
    let e = load_model(&file, &options(&[], &["y"], &[])).unwrap_err().to_string();
    has(&e, &["--outputs", "\"y\"", "graph file"]);
    let e = load_model(&dir.path().join("none"), &ImportOptions::default()).unwrap_err().to_string();
    has(&e, &["none"]);
}

#[test]
fn an_optional_output_that_nobody_uses_is_as_good_as_not_named() {
    let m = Model::new()
        .input("x", F32, &[N, D::Size(4)])
        .node("drop", "Dropout", &["x"], &["y", "mask"], &[])
        .output("y");
    assert_eq!(outputs(&ok(&m)), ["y f32[N,4]"]);
    has(&bad(&m.output("mask")), &["Dropout", "mask"]);
}
