//! Models that cannot be imported: every problem is named at once, and nothing that only follows from one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "refusals/doubt.rs"]
mod doubt;
mod support;

use samebit::onnx::{ImportError, ImportOptions, Problem, import_bytes, parse_shape};
use support::onnx::{
    A, BOOL, D, F32, Graph as Model, I32, I64, Message, STRING, external, f32s, i64s, opset_id, tensor,
};

const N: D = D::Name("N");

fn refuse(m: &Model, opset: i64, shapes: &[&str]) -> ImportError {
    let shapes = shapes.iter().map(|s| parse_shape(s).unwrap()).collect();
    let options = ImportOptions { shapes, ..ImportOptions::default() };
    import_bytes(m.model(opset), &options).expect_err("must be refused")
}

/// The problems of a model, sorted.
fn problems(m: &Model, opset: i64) -> Vec<String> {
    let text = match refuse(m, opset, &[]) {
        ImportError::Problems(p) => p.iter().map(Problem::to_string).collect::<Vec<_>>(),
        other => panic!("{other}"),
    };
    let mut text = text;
    text.sort();
    text
}

/// The problems are these and no others; each is told by its beginning.
#[track_caller]
fn exactly(m: &Model, opset: i64, want: &[&str]) {
    let got = problems(m, opset);
    let mut want = want.to_vec();
    want.sort_unstable();
    let same = got.len() == want.len() && got.iter().zip(&want).all(|(g, w)| g.starts_with(w));
    assert!(same, "want\n  {}\ngot\n  {}", want.join("\n  "), got.join("\n  "));
}

fn x() -> Model {
    Model::new().input("x", F32, &[N, D::Size(4), D::Size(8), D::Size(8)])
}

#[test]
fn faults_in_a_chain_are_named_each_behind_the_other() {
    let w = |name: &str| f32s(name, &[4, 4, 3, 3], &[0.5; 144]);
    let m = x()
        .init(w("w"))
        .init(i64s("two", &[2], &[2, 2]))
        .init(i64s("k", &[1], &[-3]))
        .init(i64s("rest", &[2], &[-1, -1]))
        .init(i64s("start", &[1], &[0]))
        .node("a", "Frobnicate", &["x"], &["a"], &[("q", A::Int(1))])
        .node("b", "LeakyRelu", &["a"], &["b"], &[("alpha", A::Int(3))])
        .node("c", "Relu", &["b"], &["c"], &[("slope", A::Float(1.0))])
        .node("d", "Conv", &["c", "w"], &["d"], &[("group", A::Int(0)), ("strides", A::Ints(vec![1, 0]))])
        .node(
            "e",
            "MaxPool",
            &["d"],
            &["e"],
            &[("auto_pad", A::Str("SOME")), ("kernel_shape", A::Ints(vec![2, 2]))],
        )
        .node("f", "Softmax", &["e"], &["f"], &[("axis", A::Float(1.0))])
        .node("g", "Concat", &["f", "f"], &["g"], &[("axis", A::Str("1"))])
        .node("h", "TopK", &["g", "k"], &["h", "hi"], &[("largest", A::Int(2))])
        .node("i", "Split", &["h"], &["i", "i2"], &[("axis", A::Ints(vec![1])), ("nonsense", A::Int(1))])
        .node("j", "Transpose", &["i"], &["j"], &[("perm", A::Ints(vec![0, -1]))])
        .node("k", "Shape", &["j"], &["k2"], &[("start", A::Str("0"))])
        .node("l", "Gather", &["j", "k2"], &["l"], &[("axis", A::Floats(vec![0.0]))])
        .node("m", "Slice", &["l", "start", "k"], &["m"], &[("q", A::Int(0))])
        .node("n", "Resize", &["m", "", "two"], &["n"], &[("mode", A::Str("best")), ("antialias", A::Int(1))])
        .node("o", "Reshape", &["n", "rest"], &["o"], &[("allowzero", A::Int(4))])
        .node("p", "acme:Thing", &["o"], &["y"], &[])
        .output("y");
    exactly(
        &m,
        18,
        &[
            "a (Frobnicate): operator Frobnicate (operator set 18) is not supported",
            "b (LeakyRelu): attribute alpha = 3; supported: a number",
            "c (Relu): attribute slope = 1.0 is not one that Relu has",
            "d (Conv): attribute group = 0; supported: 1 or more",
            "d (Conv): attribute strides = [1, 0]; supported: 2 integers in 1..",
            "e (MaxPool): attribute auto_pad = \"SOME\"; supported: NOTSET, SAME_UPPER, SAME_LOWER, VALID",
            "f (Softmax): attribute axis = 1.0; supported: an integer",
            "g (Concat): attribute axis = \"1\"; supported: an integer",
            "h (TopK): attribute largest = 2; supported: 0 or 1",
            "i (Split): attribute axis = [1]; supported: an integer",
            "i (Split): attribute nonsense = 1 is not one that Split has",
            "j (Transpose): attribute perm = [0, -1]; supported: non-negative integers",
            "k (Shape): attribute start = \"0\"; supported: an integer",
            "l (Gather): attribute axis = [0.0]; supported: an integer",
            "m (Slice): attribute q = 0 is not one that Slice has",
            "n (Resize): attribute antialias = 1; supported: 0",
            "n (Resize): attribute mode = \"best\"; supported: nearest",
            "o (Reshape): attribute allowzero = 4; supported: 0 or 1",
            "p (acme:Thing): operator acme:Thing (operator set 18) is not supported",
        ],
    );
}

#[test]
fn constants_behind_a_fault_are_judged_where_they_are_known() {
    let m = x()
        .init(i64s("k", &[1], &[-3]))
        .init(i64s("big", &[1], &[1 << 40]))
        .init(f32s("half", &[1], &[0.5]))
        .node("a", "Nope", &["x"], &["a"], &[])
        .node("b", "TopK", &["a", "k"], &["b", "bi"], &[])
        .node("c", "Tile", &["b", "half"], &["c"], &[])
        .node("d", "Add", &["c", "big"], &["d"], &[])
        .node("e", "Reshape", &["d", "bi"], &["y"], &[])
        .output("y");
    exactly(
        &m,
        13,
        &[
            "a (Nope): operator Nope",
            "b (TopK): attribute k = -3; supported: non-negative sizes",
            "c (Tile): input 1 must be integers, is f32",
            "d (Add): tensor \"big\" holds 1099511627776 at index 0",
        ],
    );
}

#[test]
fn windows_with_indices_need_spatial_axes() {
    let kernel = [("kernel_shape", A::Ints(vec![2, 2]))];
    let m = Model::new().input("x", F32, &[]).node("pool", "MaxPool", &["x"], &["y", "at"], &kernel);
    let m = m.output("y").output("at");
    exactly(&m, 21, &["pool (MaxPool): input 0 must have rank 4 (two sizes in kernel_shape), has 0"]);
}

#[test]
fn every_wrong_attribute_of_one_node_is_named() {
    let m = x()
        .init(f32s("w", &[4, 4, 3, 3], &[0.5; 144]))
        .node(
            "conv",
            "Conv",
            &["x", "w"],
            &["a"],
            &[
                ("auto_pad", A::Str("FULL")),
                ("dilations", A::Ints(vec![0, 1])),
                ("group", A::Float(1.0)),
                ("kernel_shape", A::Str("3x3")),
                ("pads", A::Ints(vec![1, 1])),
                ("strides", A::Ints(vec![1, 1, 1])),
                ("stride", A::Int(2)),
            ],
        )
        .node(
            "pool",
            "AveragePool",
            &["x"],
            &["b"],
            &[
                ("ceil_mode", A::Int(7)),
                ("count_include_pad", A::Int(-1)),
                ("kernel_shape", A::Float(2.0)),
                ("strides", A::Str("2")),
            ],
        )
        .node(
            "gemm",
            "Gemm",
            &["f", "f"],
            &["c"],
            &[("alpha", A::Int(1)), ("transA", A::Float(0.0)), ("beta", A::Str(""))],
        )
        .node("f", "Flatten", &["x"], &["f"], &[])
        .node(
            "norm",
            "LRN",
            &["x"],
            &["d"],
            &[("alpha", A::Int(1)), ("size", A::Int(0)), ("bias", A::Int(2))],
        )
        .node("d2s", "DepthToSpace", &["x"], &["e"], &[("blocksize", A::Int(-2)), ("mode", A::Str("X"))]);
    let m = ["a", "b", "c", "d", "e"].into_iter().fold(m, Model::output);
    exactly(
        &m,
        19,
        &[
            "conv (Conv): attribute auto_pad = \"FULL\"",
            "conv (Conv): attribute dilations = [0, 1]; supported: 2 integers",
            "conv (Conv): attribute group = 1.0; supported: an integer",
            "conv (Conv): attribute kernel_shape = \"3x3\"; supported: integers",
            "conv (Conv): attribute pads = [1, 1]; supported: 4 integers",
            "conv (Conv): attribute stride = 2 is not one that Conv has",
            "conv (Conv): attribute strides = [1, 1, 1]; supported: 2 integers",
            "d2s (DepthToSpace): attribute blocksize = -2; supported: 1 to 65535",
            "d2s (DepthToSpace): attribute mode = \"X\"; supported: DCR, CRD",
            "gemm (Gemm): attribute alpha = 1; supported: a number",
            "gemm (Gemm): attribute beta = \"\"; supported: a number",
            "gemm (Gemm): attribute transA = 0.0; supported: an integer",
            "norm (LRN): attribute alpha = 1; supported: a number",
            "norm (LRN): attribute bias = 2; supported: a number",
            "norm (LRN): attribute size = 0; supported: 1 to 2^20",
            "pool (AveragePool): attribute ceil_mode = 7; supported: 0 or 1",
            "pool (AveragePool): attribute count_include_pad = -1; supported: 0 or 1",
            "pool (AveragePool): attribute kernel_shape = 2.0; supported: integers",
            "pool (AveragePool): attribute strides = \"2\"; supported: integers",
        ],
    );
}

/// Without the wrong attribute the rest would not fit either; that is no second problem.
#[test]
fn what_follows_from_a_wrong_attribute_is_not_named() {
    let m = x()
        .init(f32s("w", &[4, 2, 3, 3], &[0.5; 72]))
        .node("conv", "Conv", &["x", "w"], &["a"], &[("group", A::Str("2"))])
        .node(
            "split",
            "Split",
            &["x"],
            &["b", "b2"],
            &[("axis", A::Str("1")), ("split", A::Ints(vec![2, 2]))],
        )
        .node("cat", "Concat", &["x", "x"], &["c"], &[("axis", A::Int(9)), ("axes", A::Int(1))])
        .node("gemm", "Gemm", &["f", "g"], &["d"], &[("trans_b", A::Int(1))])
        .init(f32s("f", &[2, 3], &[0.5; 6]))
        .init(f32s("g", &[4, 3], &[0.5; 12]));
    let m = ["a", "b", "c", "d"].into_iter().fold(m, Model::output);
    exactly(
        &m,
        11,
        &[
            "cat (Concat): attribute axes = 1 is not one that Concat has",
            "cat (Concat): axis 9 is outside a tensor of rank 4",
            "conv (Conv): attribute group = \"2\"; supported: an integer",
            "gemm (Gemm): attribute trans_b = 1 is not one that Gemm has",
            "split (Split): attribute axis = \"1\"; supported: an integer",
        ],
    );
}

#[test]
fn faults_of_every_kind_come_in_one_message() {
    let sparse = Message::new().message(1, &f32s("sp", &[1], &[1.0]));
    let m = Model::new()
        .input("x", F32, &[N, D::Size(4)])
        .input("s", STRING, &[N, D::Name("width"), D::Size(-3)])
        .input("z", F32, &[N, D::Size(-3)])
        .input_of(support::onnx::value_info("open", F32, None))
        .init(tensor("texts", STRING, &[1], &[]))
        .init(external("away", &[2], &[("location", "../w.bin")]))
        .init(tensor("truth", BOOL, &[1], &[7]))
        .sparse(&sparse)
        .node("a", "Add", &["x", "away"], &["a"], &[("axis", A::Int(1))])
        .node("b", "Add", &["a", "texts"], &["b"], &[])
        .node("c", "Where", &["truth", "b", "s"], &["c"], &[])
        .node("d", "Add", &["c", "open"], &["d"], &[])
        .node("e", "LeakyRelu", &["d"], &["e"], &[("alpha", A::Str("0.1"))])
        .node("f", "Add", &["e", "gone"], &["f"], &[])
        .node("g", "Sum", &["f", "z", "sp"], &["y"], &[])
        .node("h", "Dropout", &["x"], &["h", "mask"], &[])
        .node("i", "Relu", &["x"], &["i", "j"], &[])
        .output("y")
        .output("mask")
        .output("j");
    exactly(
        &m,
        13,
        &[
            "a (Add): attribute axis = 1 is not one that Add has",
            "e (LeakyRelu): attribute alpha = \"0.1\"; supported: a number",
            "f (Add): tensor \"gone\" is used but nothing produces it",
            "h (Dropout): attribute outputs = 2; supported: 1",
            "i (Relu): has 2 outputs; supported: 1",
            "input \"open\": its shape is not stated",
            "input \"s\": dimension 2 is -3; supported: sizes from 0 on",
            "input \"s\": tensor \"s\" has element type string",
            "input \"z\": dimension 1 is -3; supported: sizes from 0 on",
            "model: tensor \"away\": external data \"../w.bin\"",
            "model: tensor \"sp\" is sparse; supported: dense tensors",
            "model: tensor \"texts\" has element type string",
            "model: tensor \"truth\" holds 7 at index 0",
        ],
    );
}

#[test]
fn constant_indices_outside_their_axis_are_refused() {
    let data = || Model::new().input("x", F32, &[N, D::Size(5), D::Size(3)]);
    let updates = |m: Model| m.input("u", F32, &[N, D::Size(1), D::Size(3)]);
    let index = |dims: &[i64], v: &[i64]| data().init(i64s("i", dims, v));
    let of = |m: Model, op: &str, inputs: &[&str], attrs: &[(&str, A)]| {
        m.node("n", op, inputs, &["y"], attrs).output("y")
    };
    let axis = |a: i64| [("axis", A::Int(a))];
    let pairs = || Model::new().input("x", F32, &[D::Size(2), D::Size(3)]).input("u", F32, &[D::Size(2)]);
    let cases = [
        (
            of(index(&[2], &[4, 5]), "Gather", &["x", "i"], &axis(1)),
            "Gather): index 5 is outside an axis of 5",
        ),
        (
            of(index(&[], &[-4]), "Gather", &["x", "i"], &axis(-1)),
            "Gather): index -4 is outside an axis of 3",
        ),
        (
            of(index(&[], &[1 << 40]), "Gather", &["x", "i"], &axis(2)),
            "index 1099511627776 is outside an axis of 3",
        ),
        (
            of(index(&[1, 1, 1], &[-6]), "GatherElements", &["x", "i"], &axis(1)),
            "GatherElements): index -6 is outside an axis of 5",
        ),
        (
            of(updates(index(&[1, 1, 3], &[0, 4, 5])), "ScatterElements", &["x", "i", "u"], &axis(1)),
            "ScatterElements): index 5 is outside an axis of 5",
        ),
        (
            of(pairs().init(i64s("i", &[2, 2], &[1, 2, -1, 3])), "GatherND", &["x", "i"], &[]),
            "GatherND): index 3 is outside an axis of 3",
        ),
        (
            of(
                pairs().init(i64s("i", &[2, 1], &[2, -3])),
                "GatherND",
                &["x", "i"],
                &[("batch_dims", A::Int(1))],
            ),
            "",
        ),
        (
            of(
                pairs().init(i64s("i", &[2, 1], &[2, -4])),
                "GatherND",
                &["x", "i"],
                &[("batch_dims", A::Int(1))],
            ),
            "GatherND): index -4 is outside an axis of 3",
        ),
        (
            of(pairs().init(i64s("i", &[2, 2], &[2, 0, 0, 0])), "ScatterND", &["x", "i", "u"], &[]),
            "ScatterND): index 2 is outside an axis of 2",
        ),
        (of(index(&[3], &[-5, 4, 0]), "Gather", &["x", "i"], &axis(1)), ""),
    ];
    for (m, want) in cases {
        match import_bytes(m.model(16), &ImportOptions::default()) {
            Ok(_) => assert_eq!(want, "", "accepted"),
            Err(e) => assert!(!want.is_empty() && e.to_string().contains(want), "want {want:?}: {e}"),
        }
    }
}

#[test]
fn a_given_shape_may_fix_what_is_open_and_nothing_else() {
    let m = x().node("r", "Relu", &["x"], &["y"], &[]).output("y");
    for wrong in ["x=Nx4x8", "x=Nx4x8x9", "x=Nx4xNx8", "x="] {
        let e = refuse(&m, 13, &[wrong]).to_string();
        let given = wrong.trim_start_matches("x=").replace('x', ",");
        let parts = format!("input \"x\": --shape gives [{given}], the model declares [\"N\",4,8,8]");
        assert!(e.contains(&parts), "{wrong}: {e}");
    }
    let shapes = [parse_shape("x=2x4x8x8").unwrap()].into();
    import_bytes(m.model(13), &ImportOptions { shapes, ..ImportOptions::default() }).unwrap();
    // At a cut the shape is declared, or follows from what lies before.
    let cut = |shape: &str| ImportOptions {
        inputs: vec!["a".to_owned()],
        shapes: [parse_shape(shape).unwrap()].into(),
        ..ImportOptions::default()
    };
    let inner = x().node("p", "Relu", &["x"], &["a"], &[]).node("q", "Relu", &["a"], &["y"], &[]).output("y");
    let declared = inner.clone().info("a", F32, &[N, D::Size(4), D::Size(8), D::Size(8)]);
    for m in [inner, declared] {
        let e = import_bytes(m.model(13), &cut("a=Nx4x7x8")).unwrap_err().to_string();
        assert!(e.contains("--shape gives [N,4,7,8], the model declares"), "{e}");
        import_bytes(m.model(13), &cut("a=3x4x8x8")).unwrap();
    }
}

#[test]
fn only_minus_one_stands_for_an_open_dimension() {
    let of = |d| {
        let m = Model::new().input("x", F32, &[D::Size(d), D::Size(2)]);
        import_bytes(m.node("", "Relu", &["x"], &["y"], &[]).output("y").model(13), &ImportOptions::default())
    };
    let g = of(-1).unwrap();
    assert_eq!(g.value(g.inputs[0]).ty.to_string(), "f32[N,2]");
    let e = of(-2).unwrap_err().to_string();
    assert!(e.contains("input \"x\": dimension 0 is -2; supported: sizes from 0 on, and -1"), "{e}");
}

#[test]
fn a_second_version_of_the_default_operator_set_is_refused() {
    let m = Model::new().input("x", F32, &[N]).node("", "Relu", &["x"], &["y"], &[]).output("y");
    let with = |domain: &str, v: i64| {
        let bytes = Message(m.model(13)).message(8, &opset_id(domain, v)).0;
        import_bytes(bytes, &ImportOptions::default())
    };
    with("", 13).unwrap();
    with("acme", 2).unwrap();
    for domain in ["", "ai.onnx"] {
        let e = with(domain, 17).unwrap_err().to_string();
        assert!(e.contains("as operator set 13 and as 17"), "{e}");
    }
}

#[test]
fn element_types_that_do_not_go_together_are_both_named() {
    let m = Model::new().input("x", F32, &[N]).input("i", I64, &[N]).input("j", I32, &[N]);
    let m = m.node("p", "Add", &["x", "i"], &["a"], &[]).node("q", "Pow", &["j", "x"], &["b"], &[]);
    exactly(
        &m.output("a").output("b"),
        13,
        &[
            "p (Add): input 0 is f32 and input 1 is i32; supported: f32 or i32, both the same",
            "q (Pow): input 0 is i32 and input 1 is f32; supported: f32 with f32 or i32, or i32 with i32",
        ],
    );
}

#[test]
fn reflecting_more_than_the_axis_has_is_refused() {
    let m = |pads: &[i64]| {
        let m = Model::new().input("x", F32, &[N, D::Size(4)]).init(i64s("p", &[4], pads));
        m.node("pad", "Pad", &["x", "p"], &["y"], &[("mode", A::Str("reflect"))]).output("y").model(13)
    };
    let import = |pads: &[i64]| import_bytes(m(pads), &ImportOptions::default());
    for fine in [[0, 3, 0, 3], [0, -2, 0, 1], [0, 1, 0, -2], [0, -2, 0, -2]] {
        import(&fine).unwrap();
    }
    for wrong in [[0, 4, 0, 0], [0, 0, 0, 4], [0, -2, 0, 2], [0, 3, 0, -1], [0, 1, 0, -3]] {
        let e = import(&wrong).unwrap_err().to_string();
        let pads = format!("pad (Pad): attribute pads = {} and {}; supported: up to", wrong[1], wrong[3]);
        assert!(e.contains(&pads), "{wrong:?}: {e}");
    }
    let e = import(&[0, i64::MIN, 0, i64::MAX]).unwrap_err().to_string();
    assert!(e.contains("attribute pads"), "{e}");
}

#[test]
fn attributes_that_if_and_constant_do_not_have_are_named() {
    let branch = || Model::new().node("r", "Relu", &["x"], &["b"], &[]).output("b");
    let both = |other: A| [("then_branch", A::Graph(branch())), ("else_branch", other)];
    let weird: Vec<(&str, A)> = both(A::Graph(branch())).into_iter().chain([("weird", A::Int(3))]).collect();
    let m = x()
        .init(tensor("yes", BOOL, &[], &[1]))
        .node("weird", "If", &["yes"], &["a"], &weird)
        .node("dead", "If", &["yes"], &["c"], &both(A::Int(3)))
        .node("k1", "Constant", &[], &["k1"], &[("value_float", A::Float(1.0)), ("foo", A::Int(1))])
        .node("k2", "Constant", &[], &["k2"], &[("value_float", A::Float(1.0)), ("value_int", A::Int(1))])
        .node("k3", "Constant", &[], &["k3"], &[])
        .node("k4", "Constant", &[], &["k4"], &[("value_string", A::Str("a"))])
        .node("k5", "Constant", &[], &["k5"], &[("value_int", A::Float(1.0))])
        .node("behind", "Relu", &["k1", "a"], &["d"], &[]);
    let m = ["c", "d", "k2", "k3", "k4", "k5"].into_iter().fold(m, Model::output);
    exactly(
        &m,
        13,
        &[
            "behind (Relu): takes 1 inputs, got 2",
            "dead (If): attribute else_branch is int, not a graph",
            "k1 (Constant): attribute foo = 1 is not one that Constant",
            "k2 (Constant): attribute value_int is given beside value_float",
            "k3 (Constant): attribute value is missing",
            "k4 (Constant): attribute value_string = \"a\" is not one that Constant",
            "k5 (Constant): attribute value_int is 1.0, which is not what its name says",
            "weird (If): attribute weird = 3 is not one that If (then_branch, else_branch) has",
        ],
    );
}

#[test]
fn every_option_that_does_not_fit_is_named() {
    let m = x().node("r", "Relu", &["x"], &["a"], &[]).node("s", "Relu", &["a"], &["y"], &[]).output("y");
    let names = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let shapes = ["gone=1", "y=1"].map(|s| parse_shape(s).unwrap()).into();
    let options = ImportOptions { inputs: names(&["b1", "b2"]), outputs: names(&["a", "c1", "a"]), shapes };
    let e = import_bytes(m.model(99), &options).unwrap_err().to_string();
    let want = [
        "7 things do not fit:",
        "operator set 99 of the default domain",
        "--inputs: the model has no tensor \"b1\"",
        "--inputs: the model has no tensor \"b2\"",
        "--outputs: the model has no tensor \"c1\"",
        "--outputs: \"a\" is given twice",
        "--shape: the model has no tensor \"gone\"",
        "--shape: \"y\" is not an input",
    ];
    assert!(want.iter().all(|w| e.contains(w)), "{e}");
}

#[test]
fn a_shape_is_given_once_and_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.onnx");
    let m =
        Model::new().input("x", F32, &[N, D::Name("w")]).node("r", "Relu", &["x"], &["y"], &[]).output("y");
    std::fs::write(&model, m.model(13)).unwrap();
    let import = |shapes: &[&str]| {
        let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_samebit"));
        run.arg("import").arg(&model).arg("-o").arg(dir.path().join("m.graph"));
        let out = run.args(shapes.iter().flat_map(|s| ["--shape", s])).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, _, e) = import(&["x=1x2", "x=2x2", "q", "x=1x2"]);
    assert_eq!(code, Some(2));
    assert!(e.contains("\"x\" is given twice") && e.contains("\"q\" is not NAME=SHAPE"), "{e}");
    // A size of 0 is one in ONNX, whether the model or the user says it.
    let (code, out, e) = import(&["x=Nx0"]);
    assert!(code == Some(0) && out.contains("input x: f32[N,0]"), "{out}{e}");
}

/// What says scales and zero points of operators on codes must be constants of one scale, or of weights one a channel.
#[test]
fn parameters_of_operators_on_codes_are_judged() {
    const U8: i64 = 2;
    const I8: i64 = 3;
    let codes = |m: Model| {
        m.input("x", U8, &[N, D::Size(4), D::Size(8), D::Size(8)])
            .input("r", F32, &[])
            .init(tensor("w", I8, &[2, 4, 1, 1], &[1; 8]))
            .init(tensor("z", U8, &[], &[7]))
            .init(tensor("zw", I8, &[], &[0]))
            .init(f32s("s", &[], &[0.5]))
            .init(f32s("three", &[3], &[0.5; 3]))
            .init(f32s("four", &[4], &[0.5; 4]))
            .init(f32s("none", &[], &[0.0]))
    };
    let conv = ["x", "s", "z", "w", "s", "zw", "s", "z"];
    let with = |at: usize, name: &'static str| {
        let mut inputs = conv;
        inputs[at] = name;
        inputs
    };
    let one = |inputs: &[&str]| codes(Model::new()).node("q", "QLinearConv", inputs, &["y"], &[]).output("y");
    for (at, name, what) in [
        (1, "r", "q (QLinearConv): input 1 (scale) must be a constant"),
        (4, "r", "q (QLinearConv): input 4 (scale) must be a constant"),
        (2, "r", "q (QLinearConv): input 2 (zero_point) must be a constant"),
        (2, "zw", "q (QLinearConv): input 0 is u8 and input 2 is i8"),
        (1, "four", "q (QLinearConv): attribute scale = 4 scales and 1 zero points"),
        (4, "three", "q (QLinearConv): attribute scale = 3 scales and 1 zero points"),
        (6, "four", "q (QLinearConv): attribute scale = 4 scales and 1 zero points"),
        (1, "none", "q (QLinearConv): attribute scale = [0.0]"),
        (0, "r", "q (QLinearConv): input 0 is f32 and input 2 is u8"),
    ] {
        exactly(&one(&with(at, name)), 13, &[what]);
    }
    let gemm = ["x", "s", "z", "w", "s", "zw", "", "s", "z"];
    let m = codes(Model::new())
        .node("g", "com.microsoft:QGemm", &gemm, &["y"], &[("alpha", A::Float(0.5))])
        .output("y");
    exactly(
        &m,
        13,
        &[
            "g (com.microsoft:QGemm): attribute alpha = 0.5; supported: 1",
            "g (com.microsoft:QGemm): input 0 must have rank 2, has 4",
        ],
    );
    let m = codes(Model::new())
        .node("p", "com.microsoft:QLinearSigmoid", &["w", "s", "", "s", "z"], &["p"], &[("beta", A::Int(1))])
        .node(
            "s",
            "com.microsoft:QLinearSoftmax",
            &["p", "s", "z", "s", "z"],
            &["y"],
            &[("opset", A::Int(13))],
        )
        .output("y");
    exactly(&m, 13, &["p (com.microsoft:QLinearSigmoid): attribute beta"]);
}
