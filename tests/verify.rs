//! `verify` through the binary: that every change of an integer model is found, on frames or in what it says.

mod support;

use samebit::data::{Array, write_npy};
use samebit::graph::{AttrValue, Attrs, Graph, Node, Value as GraphValue, ValueId, file};
use samebit::ops::{bound_of, build};
use samebit::tensor::{Data, Tensor, TensorType};
use serde_json::Value;
use std::path::Path;
use support::artefacts::{CALIB, EVAL, MODEL, artefacts, digits, list, load};
use support::binary::{bytes, json, refused, samebit, text};
use support::onnx::{A, D, F32, Graph as Model, f32s, i64s};

#[test]
fn comparing_nothing_is_not_equality() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, q) = digits(dir.path());
    let args = ["verify", text(&q), text(&q), "--random", "2"];
    json(0, &args);
    let v = json(1, &[&args[..], &["--layers", "no such tensor*"]].concat());
    assert!(v["consistent"] == false && v["compared_elements"] == 0 && v["compared_layers"] == 0, "{v}");
    let mut graph = load(&q);
    for (i, v) in (0..).map(ValueId).zip(graph.values().to_vec()) {
        if !graph.inputs.contains(&i) {
            graph.rename_value(i, format!("other {}", v.name));
        }
    }
    let other = dir.path().join("other");
    file::save(&graph, &other).expect("saves");
    let v = json(1, &["verify", text(&q), text(&other), "--random", "2"]);
    assert!(v["consistent"] == false && v["compared_elements"] == 0, "{v}");
}

/// The node as another one: attributes changed by `f`.
fn with_attrs(graph: &mut Graph, at: usize, f: impl Fn(&mut Attrs)) {
    let node = graph.nodes()[at].clone();
    let mut attrs = node.op.attrs();
    f(&mut attrs);
    let types: Vec<TensorType> = node.inputs.iter().map(|v| graph.value(*v).ty.clone()).collect();
    let op = build(node.op.def().name, attrs, &types).unwrap_or_else(|e| panic!("{}: {e}", node.name));
    graph.set_op(at, op);
}

fn set(attrs: &mut Attrs, name: &str, value: AttrValue) {
    match attrs.0.iter_mut().find(|(n, _)| n == name) {
        Some((_, v)) => *v = value,
        None => {
            let all = attrs.0.iter().cloned().chain([(name.to_owned(), value)]);
            *attrs = Attrs::from(all.collect::<Vec<_>>());
        }
    }
}

/// The node with a constant input made another one, its first element changed.
fn with_constant(graph: &mut Graph, at: usize, input: usize, f: impl Fn(i32) -> i32) {
    let mut inputs = graph.nodes()[at].inputs.clone();
    let t = graph.value(inputs[input]).constant.clone().expect("a constant");
    let mut codes = t.codes().expect("codes");
    let middle = codes.len() / 2;
    codes[middle] = f(codes[middle]);
    let t = Tensor::from_codes(t.dtype(), t.shape(), &codes).expect("codes");
    inputs[input] = graph.new_constant("changed", t);
    graph.set_inputs(at, inputs);
}

fn scaled(attrs: &mut Attrs, name: &str, by: f32) {
    let value = attrs.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let Some(AttrValue::Floats(mut s)) = value else { panic!("{name} in {attrs:?}") };
    s.iter_mut().for_each(|s| *s *= by);
    set(attrs, name, AttrValue::Floats(s));
}

/// Gives a product the bound that its sums have now.
fn bounded(graph: &mut Graph, at: usize) {
    let node = &graph.nodes()[at];
    let (op, params) = node.op.integer_of().expect("on codes");
    let inputs: Vec<&GraphValue> = node.inputs.iter().map(|v| graph.value(*v)).collect();
    let bound = bound_of(op.as_ref(), params, &inputs).expect("few enough");
    with_attrs(graph, at, |a| set(a, "bound", AttrValue::Int(bound.cast_signed())));
}

type Change = (&'static str, &'static str, fn(&mut Graph, usize));

#[test]
fn every_change_of_an_artefact_is_found() {
    let changes: [Change; 10] = [
        ("a weight", "Conv", |g, i| with_constant(g, i, 1, |c| if c > 0 { c - 60 } else { c + 60 })),
        ("a bias", "Conv", |g, i| with_constant(g, i, 2, |c| c + 3000)),
        ("the scale of the weights", "Conv", |g, i| with_attrs(g, i, |a| scaled(a, "in1.scale", 1.01))),
        ("the scale of the output", "Conv", |g, i| with_attrs(g, i, |a| scaled(a, "out.scale", 1.01))),
        ("the zero point of the input", "Conv", |g, i| {
            with_attrs(g, i, |a| set(a, "in0.zero_point", Attrs::new().ints("zero", [5]).0.remove(0).1));
        }),
        ("the mode", "Conv", |g, i| {
            with_attrs(g, i, |a| set(a, "requantize", AttrValue::Str("fixed_doubling_up".into())));
        }),
        ("the lower bound", "Conv", |g, i| with_attrs(g, i, |a| set(a, "low", AttrValue::Int(-100)))),
        ("the upper bound", "Conv", |g, i| with_attrs(g, i, |a| set(a, "high", AttrValue::Int(20)))),
        ("the rounding", "Conv", |g, i| {
            with_attrs(g, i, |a| set(a, "rounding", AttrValue::Str("half_even".into())));
        }),
        ("the scale of a tensor that is added", "addend", |g, i| {
            with_attrs(g, i, |a| scaled(a, "addend.scale", 1.01));
        }),
    ];
    let dir = tempfile::tempdir().expect("a folder");
    // Halves are frequent where scales are powers of two, and almost never real elsewhere.
    let powers = dir.path().join("powers");
    std::fs::create_dir(&powers).expect("makes");
    let to = ["--consistency", "4", "--target", "power-of-two"];
    let (shifting, shifted, _) = artefacts(&powers, Path::new(MODEL), CALIB, &to);
    let (g, q) = digits(dir.path());
    let changed = dir.path().join("changed");
    for (what, of, change) in changes {
        let (g, right) = if what == "the rounding" { (&shifting, load(&shifted)) } else { (&g, load(&q)) };
        let is = |n: &Node| {
            n.op.integer_of().is_some_and(|(op, params)| match of {
                "addend" => params.addend.is_some(),
                name => op.def().name == name,
            })
        };
        let candidates: Vec<usize> = (0..right.nodes().len()).filter(|i| is(&right.nodes()[*i])).collect();
        assert!(!candidates.is_empty(), "{what}: no {of} in {:?}", right.op_counts());
        let at = candidates[candidates.len() / 2];
        let mut graph = right.clone();
        change(&mut graph, at);
        bounded(&mut graph, at);
        let graph = graph.tidied().unwrap_or_else(|e| panic!("{what}: {e}"));
        file::save(&graph, &changed).expect("saves");
        let name = right.value(right.nodes()[at].outputs[0]).name.clone();
        let args = ["verify", text(g), text(&changed), "--data", EVAL, "--limit", "64", "--json", "-"];
        let o = samebit(&args);
        let said = String::from_utf8_lossy(&o.stderr);
        assert_eq!(o.status.code(), Some(1), "{what}: {said}");
        let v: Value = serde_json::from_slice(&o.stdout).expect("JSON");
        assert_eq!(v["consistent"], false, "{what}");
        let layers = v["layers"].as_array().expect("a list");
        let first = layers.iter().find(|l| l["mismatches"] != 0);
        let first = first.unwrap_or_else(|| panic!("{what}: nothing differs"));
        assert_eq!(first["name"], name, "{what}");
        assert!(first["first"]["sample"].is_string() && first["first"]["a"] != first["first"]["b"], "{what}");
    }
}

#[test]
fn float_outputs_of_dumps_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let w: Vec<f32> = (0..32u16).map(|i| f32::from(i * 37 % 32) / 16.0 - 1.0).collect();
    let model = Model::new()
        .input("x", F32, &[D::Name("N"), D::Size(8)])
        .init(f32s("w", &[8, 4], &w))
        .node("product", "MatMul", &["x", "w"], &["a"], &[])
        .node("share", "Softmax", &["a"], &["y"], &[])
        .output("y")
        .model(17);
    std::fs::write(at("m.onnx"), model).expect("writes");
    let x = (0..48u16).map(|i| f32::from(i * 29 % 48) / 24.0 - 1.0).collect();
    write_npy(&at("x.npy"), &Tensor::from_f32([6, 8], x)).expect("writes");
    let (_, q, _) = artefacts(dir.path(), &at("m.onnx"), text(&at("x.npy")), &[]);
    let (x, dump) = (at("x.npy"), at("dump"));
    json(0, &["run", text(&q), "--input", text(&x), "--layers", "*", "--codes", "--dump", text(&dump)]);
    let compare = ["verify", text(&q), text(&dump), "--input", text(&x)];
    let v = json(0, &compare);
    assert_eq!((&v["outputs"][0]["name"], &v["outputs"][0]["mismatches"]), (&"y".into(), &0.into()), "{v}");
    let path = dump.join("y.npy");
    let y = Array::open(&path).and_then(|a| a.read()).expect("reads");
    for wrong in [1.5, f32::NAN, f32::INFINITY] {
        let all = y.f32s().iter().map(|v| v * wrong).collect();
        write_npy(&path, &Tensor::from_f32(y.shape(), all)).expect("writes");
        let v = json(1, &compare);
        assert!(v["outputs"][0]["mismatches"].as_u64() > Some(0), "{wrong}: {v}");
    }
}

/// A float island: codes behind it are taken from the first, but its own may not be far off.
#[test]
fn what_floats_compute_between_codes_is_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let weights = |n: u16| -> Vec<f32> { (0..n).map(|i| f32::from(i * 37 % 64) / 32.0 - 1.0).collect() };
    let model = Model::new()
        .input("x", F32, &[D::Name("N"), D::Size(8)])
        .init(f32s("w1", &[8, 8], &weights(64)))
        .init(f32s("w2", &[8, 8], &weights(64)))
        .init(f32s("slope", &[1], &[0.25]))
        .node("first", "MatMul", &["x", "w1"], &["a"], &[])
        .node("island", "PRelu", &["a", "slope"], &["b"], &[])
        .node("second", "MatMul", &["b", "w2"], &["y"], &[])
        .output("y")
        .model(17);
    std::fs::write(at("m.onnx"), model).expect("writes");
    write_npy(&at("x.npy"), &Tensor::from_f32([6, 8], weights(48))).expect("writes");
    artefacts(dir.path(), &at("m.onnx"), text(&at("x.npy")), &["--consistency", "1"]);
    let v = json(0, &["convert", text(&at("g")), "--preserve", "island", "-o", text(&at("q"))]);
    assert_eq!(list(&v, "float_islands").len(), 1, "{v}");
    let compare =
        ["verify", text(&at("q")), text(&at("changed")), "--data", text(&at("x.npy"))].map(str::to_owned);
    let compare: Vec<&str> = compare.iter().map(String::as_str).collect();
    let graph = load(&at("q"));
    for (slope, code) in [(0.25, 0), (0.3, 1), (-0.25, 1), (f32::NAN, 1)] {
        let mut changed = graph.clone();
        let slope = changed.new_constant("slope", Tensor::from_f32([1], vec![slope]));
        let island = changed.nodes().iter().position(|n| n.name == "island").expect("is there");
        let x = changed.nodes()[island].inputs[0];
        changed.set_inputs(island, vec![x, slope]);
        file::save(&changed.tidied().expect("holds"), &at("changed")).expect("saves");
        let v = json(code, &compare);
        assert_eq!(list(&v, "injected").len(), 1, "{v}");
        let own = list(&v, "outputs").iter().find(|o| o["name"] == v["injected"][0]).expect("is compared");
        assert_eq!(own["mismatches"].as_u64() > Some(0), code == 1, "{v}");
    }
}

#[test]
fn dumps_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, q) = digits(dir.path());
    let x = dir.path().join("x.npy");
    let numbers = (0..3 * 64).map(|i| (i * 37 % 256) as f32 / 16.0).collect();
    write_npy(&x, &Tensor::from_f32([3, 1, 8, 8], numbers)).expect("writes");
    let (input, dump) = (format!("image={}", text(&x)), dir.path().join("dump"));
    let run =
        json(0, &["run", text(&q), "--input", &input, "--layers", "*", "--codes", "--dump", text(&dump)]);
    let compare = ["verify", text(&q), text(&dump), "--input", &input];
    let v = json(0, &compare);
    assert!(v["consistent"] == true && v["frames"] == 3, "{v}");
    let layers = v["compared_layers"].as_u64();
    assert!(layers.is_some_and(|n| n > 6), "{v}");
    // One element of one tensor of codes.
    let outputs = run["outputs"].as_array().expect("a list");
    let codes: Vec<&Value> = outputs.iter().filter(|o| o["dtype"] == "i8").collect();
    let (name, file) = (&codes[3]["name"], codes[3]["file"].as_str().expect("a file"));
    let path = if Path::new(file).is_absolute() { file.into() } else { dump.join(file) };
    let right = Array::open(&path).and_then(|a| a.read()).expect("reads");
    let Data::I8(elements) = right.data() else { panic!("codes of i8: {right:?}") };
    let mut wrong = elements.to_vec();
    wrong[right.len() - 5] ^= 1;
    write_npy(&path, &Tensor::from_i8(right.shape(), wrong)).expect("writes");
    let v = json(1, &compare);
    let different: Vec<&Value> =
        v["layers"].as_array().expect("a list").iter().filter(|l| l["mismatches"] != 0).collect();
    assert!(different.len() == 1 && different[0]["name"] == *name && different[0]["mismatches"] == 1, "{v}");
    assert_eq!(different[0]["first"]["sample"], "2", "{v}");
    // A tensor without its last frame.
    let n = right.len() / 3;
    let mut shape = right.shape().to_vec();
    shape[0] = 2;
    write_npy(&path, &Tensor::from_i8(shape, elements[..2 * n].to_vec())).expect("writes");
    let name = name.as_str().expect("a name");
    refused(&compare, &[name, "the index says"]);
    // So the index has it, too.
    let index = dump.join("index.json");
    let mut v: Value = serde_json::from_slice(&bytes(&index)).expect("JSON");
    v["tensors"][name]["shape"][0] = 2.into();
    std::fs::write(&index, v.to_string()).expect("writes");
    refused(&compare, &[name, "2 frames", "has 3"]);
    refused(&[&compare[..], &["--limit", "16"]].concat(), &["frames"]);
}

type Step<'a> = Box<dyn Fn(&mut Graph) + 'a>;

fn set_all(graph: &mut Graph, name: &str, value: &AttrValue) -> usize {
    let on_codes: Vec<usize> =
        (0..graph.nodes().len()).filter(|i| graph.nodes()[*i].op.integer_of().is_some()).collect();
    on_codes.iter().for_each(|i| with_attrs(graph, *i, |a| set(a, name, value.clone())));
    on_codes.len()
}

fn renamed_target(graph: &mut Graph) {
    let source = &mut graph.target.as_mut().expect("a target").profile.source;
    *source = source.replace("name = \"samebit\"", "name = \"mine\"");
}

/// Where halves are rounded to shows on hardly any frame, and so does the last bit of a scale.
#[test]
fn what_no_frame_hits_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, q) = digits(dir.path());
    let bin = dir.path().join("bin");
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    let (right, changed) = (load(&q), dir.path().join("changed"));
    let compare = |a: &Path, code: i32, more: &[&str]| {
        json(code, &[&["verify", text(a), text(&changed), "--data", EVAL, "--limit", "2"], more].concat())
    };
    let mut graph = right.clone();
    let count = set_all(&mut graph, "rounding", &AttrValue::Str("half_up".into()));
    file::save(&graph, &changed).expect("saves");
    for a in [&q, &bin, &g] {
        let v = compare(a, 1, &[]);
        let said = list(&v, "differences");
        assert!(v["consistent"] == false && said.len() == count && count > 6, "{v}");
        let is = |d: &Value| d["what"] == "rounding" && d["a"] == "\"half_even\"" && d["b"] == "\"half_up\"";
        assert!(said.iter().all(is), "{v}");
        assert!(list(&v, "layers").iter().all(|l| l["mismatches"] == 0), "frames find it: {v}");
    }
    // One of several, by what it makes; and arithmetic that is another one on purpose.
    let name = &right.value(right.nodes()[3].outputs[0]).name;
    assert_eq!(list(&compare(&q, 1, &["--layers", name]), "differences").len(), 1);
    compare(&q, 0, &["--profile", "samebit"]);
    let said = String::from_utf8(samebit(&["verify", text(&q), text(&changed), "--random", "1"]).stdout);
    assert!(said.is_ok_and(|s| s.contains("what they say differs") && s.contains("half_up")));

    let first = |what: &str| {
        let is =
            |n: &Node| n.op.integer_of().is_some_and(|(op, p)| op.def().name == what && p.inputs.len() > 2);
        right.nodes().iter().position(is).expect("is there")
    };
    let conv = first("Conv");
    let changes: [(&str, Step); 4] = [
        ("in1.scale[0]", Box::new(|g| with_attrs(g, conv, |a| scaled(a, "in1.scale", 1.000_000_2)))),
        ("input 1, ", Box::new(|g| with_constant(g, conv, 1, |c| if c > 0 { c - 1 } else { c + 1 }))),
        ("input 2, ", Box::new(|g| with_constant(g, conv, 2, |c| c - c.signum()))),
        ("profile", Box::new(renamed_target)),
    ];
    for (what, change) in changes {
        let mut graph = right.clone();
        change(&mut graph);
        file::save(&graph.tidied().expect("holds"), &changed).expect("saves");
        let v = compare(&q, 1, &[]);
        let said = list(&v, "differences");
        assert!(said.iter().any(|d| d["what"].as_str().is_some_and(|w| w.starts_with(what))), "{what}: {v}");
    }
    // The same numbers under another name.
    let mut graph = right;
    let w = graph.nodes()[conv].inputs[1];
    graph.rename_value(w, "other".into());
    file::save(&graph, &changed).expect("saves");
    assert!(list(&compare(&q, 0, &[]), "differences").is_empty());
}

/// Below level 4 the simulation has other codes, but their scales are those of the integer model.
#[test]
fn parameters_of_other_stages_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, q, _) = artefacts(dir.path(), Path::new(MODEL), CALIB, &["--consistency", "1"]);
    let changed = dir.path().join("changed");
    let mut graph = load(&q);
    let compare = |b: &Path| json(1, &["verify", text(&g), text(b), "--random", "4"]);
    assert!(list(&compare(&q), "differences").is_empty());
    let conv = graph.nodes().iter().position(|n| n.op.integer_of().is_some()).expect("is there");
    with_attrs(&mut graph, conv, |a| scaled(a, "in1.scale", 1.5));
    with_attrs(&mut graph, conv, |a| scaled(a, "out.scale", 1.5));
    file::save(&graph, &changed).expect("saves");
    let node = &graph.nodes()[conv];
    let of = [node.outputs[0], node.inputs[1]].map(|v| graph.value(v).name.clone());
    let v = compare(&changed);
    let said = list(&v, "differences");
    for name in of {
        let is =
            |d: &&Value| d["node"] == *name && d["what"].as_str().is_some_and(|w| w.starts_with("scale"));
        assert_eq!(said.iter().filter(is).count(), 1, "{name}: {v}");
    }
}

/// Executors choose the width of sums by their bound: a file may not say less than its weights do.
#[test]
fn what_a_file_says_of_its_sums_must_hold() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, q) = digits(dir.path());
    let (right, changed) = (load(&q), dir.path().join("changed"));
    let gemm = right.nodes().iter().position(|n| n.op.integer_of().is_some_and(|(_, p)| p.bound > 0));
    let gemm = gemm.expect("is there");
    let needed = right.nodes()[gemm].op.integer_of().expect("is one").1.bound;
    for (bound, fits) in [(needed, true), (needed + 1, true), (needed - 1, false), (0, false)] {
        let mut graph = right.clone();
        with_attrs(&mut graph, gemm, |a| set(a, "bound", AttrValue::Int(bound.cast_signed())));
        file::save(&graph, &changed).expect("saves");
        if fits {
            json(0, &["print", text(&changed)]);
        } else {
            let (says, may) = (format!("bound = {bound}"), format!("may come to {needed}"));
            refused(&["print", text(&changed)], &[&right.nodes()[gemm].name, &says, &may]);
        }
    }
    let mut graph = right;
    graph.outputs.clear();
    file::save(&graph, &changed).expect("saves");
    refused(&["compile", text(&changed), "-o", text(&dir.path().join("bin"))], &["changed", "no outputs"]);
}

/// A tensor whose first axis is not the batch, on its way.
fn rows_first(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let weights = |n: u16| -> Vec<f32> { (0..n).map(|i| f32::from(i * 37 % 64) / 32.0 - 1.0).collect() };
    let model = Model::new()
        .input("x", F32, &[D::Name("N"), D::Size(8)])
        .init(f32s("w1", &[8, 12], &weights(96)))
        .init(f32s("w2", &[12, 5], &weights(60)))
        .init(i64s("three", &[3], &[0, 3, 4]))
        .init(i64s("flat", &[2], &[0, 12]))
        .node("first", "MatMul", &["x", "w1"], &["a"], &[])
        .node("parts", "Reshape", &["a", "three"], &["b"], &[])
        .node("there", "Transpose", &["b"], &["rows"], &[("perm", A::Ints(vec![1, 0, 2]))])
        .node("relu", "Relu", &["rows"], &["c"], &[])
        .node("back", "Transpose", &["c"], &["d"], &[("perm", A::Ints(vec![1, 0, 2]))])
        .node("join", "Reshape", &["d", "flat"], &["e"], &[])
        .node("last", "MatMul", &["e", "w2"], &["y"], &[])
        .output("y")
        .model(17);
    std::fs::write(dir.join("m.onnx"), model).expect("writes");
    let x = dir.join("x.npy");
    write_npy(&x, &Tensor::from_f32([7, 8], weights(56))).expect("writes");
    let (_, q, _) = artefacts(dir, &dir.join("m.onnx"), text(&x), &[]);
    (q, x)
}

#[test]
fn a_dump_is_enough_to_be_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let (q, x) = rows_first(dir.path());
    let dump = dir.path().join("dump");
    let run = ["run", text(&q), "--input", text(&x), "--layers", "*", "--codes", "--dump", text(&dump)];
    let v = json(0, &run);
    assert_eq!(v["inputs"][0]["name"], "x", "{v}");
    let shaped = |v: &Value| list(v, "outputs").iter().any(|o| o["shape"] == serde_json::json!([3, 7, 4]));
    assert!(shaped(&v), "no tensor has its frames behind another axis: {v}");
    let compare = ["verify", text(&q), text(&dump)];
    let v = json(0, &compare);
    assert!(v["frames"] == 7 && v["compared_elements"].as_u64() > Some(7 * 12), "{v}");
    let last = json(0, &[&compare[..], &["--limit", "5"]].concat());
    assert!(last["frames"] == 5 && last["compared_elements"].as_u64() < v["compared_elements"].as_u64());
    // The element of frame 6 in the second of three rows.
    let path = dump.join("c.npy");
    let right = Array::open(&path).and_then(|a| a.read()).expect("reads");
    let mut codes = right.codes().expect("codes");
    codes[(7 + 6) * 4 + 2] ^= 1;
    let wrong = Tensor::from_codes(right.dtype(), right.shape(), &codes).expect("codes");
    write_npy(&path, &wrong).expect("writes");
    let v = json(1, &compare);
    let found = list(&v, "layers").iter().find(|l| l["name"] == "c").expect("is compared");
    assert_eq!((&found["mismatches"], &found["first"]["sample"]), (&1.into(), &"6".into()), "{v}");
    assert_eq!(found["first"]["index"], 4 + 2, "{v}");
    write_npy(&path, &right).expect("writes");

    // What the index says of codes is compared, but for what decimals lose.
    let index = dump.join("index.json");
    let said: Value = serde_json::from_slice(&bytes(&index)).expect("JSON");
    let scale = said["tensors"]["c"]["scale"][0].as_f64().expect("a number");
    for (key, value, code) in
        [("scale", scale * 1.000_001, 0), ("scale", scale * 1.01, 1), ("zero_point", 3.0, 1)]
    {
        let mut other = said.clone();
        other["tensors"]["c"][key][0] = if key == "scale" { value.into() } else { serde_json::json!(3) };
        std::fs::write(&index, other.to_string()).expect("writes");
        let v = json(code, &compare);
        let d = list(&v, "differences");
        assert_eq!(d.iter().filter(|d| d["node"] == "c" && d["what"] == key).count(), code as usize, "{v}");
    }
    std::fs::write(&index, said.to_string()).expect("writes");

    refused(&[&compare[..], &["--random", "7"]].concat(), &["--random", "--input"]);
    for wrong in ["nan", "-1", "inf"] {
        let (a, r) = (format!("--atol={wrong}"), format!("--rtol={wrong}"));
        refused(&[&compare[..], &[&a]].concat(), &["--atol", "0 or more"]);
        refused(&[&compare[..], &[&r]].concat(), &["--rtol", "0 or more"]);
    }
    // Without its inputs it is compared on what is given, and on nothing else.
    let mut without = said;
    without["tensors"].as_object_mut().expect("an object").remove("x");
    std::fs::write(&index, without.to_string()).expect("writes");
    std::fs::remove_file(dump.join("x.npy")).expect("removes");
    refused(&compare, &["dump", "has no x", "--data", "--input"]);
    json(0, &[&compare[..], &["--input", text(&x)]].concat());
}

#[test]
fn files_without_their_end_are_named_as_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, q) = digits(dir.path());
    let (bin, cut) = (dir.path().join("bin"), dir.path().join("cut.q"));
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    for file in [&q, &bin] {
        let whole = bytes(file);
        for (len, parts) in [
            (0, ["cut.q", "empty"]),
            (6, ["neither a graph file", "cut off"]),
            (100, ["not whole: its header alone takes", "has 100 bytes"]),
            (whole.len() - 1, ["not whole: its tensors", "copy it again"]),
        ] {
            std::fs::write(&cut, &whole[..len]).expect("writes");
            for args in [vec!["print", text(&cut)], vec!["verify", text(file), text(&cut), "--random", "1"]] {
                refused(&args, &parts);
            }
        }
    }
}
