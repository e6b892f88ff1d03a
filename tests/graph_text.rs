//! Graphs as text and as files: what is written reads back equal, and what is wrong says where.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use samebit::graph::attrs::{AttrValue, Attrs, Input, Reader, Source};
use samebit::graph::file::{self, FileError};
use samebit::graph::text::{around, parse, print};
use samebit::graph::{Graph, NodeId, ValueId};
use samebit::ops::by_name;
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use std::collections::BTreeMap;

fn node(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[ValueId], name: &str) -> ValueId {
    let types = inputs.iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None })).collect();
    let mut r = Reader::new(Source::Graph, op, attrs, types, 1);
    let op = (by_name(op).unwrap().read)(&mut r).unwrap();
    let source = name.len().is_multiple_of(2).then(|| format!("{name} from"));
    g.add_node(format!("node {name}"), source, op, inputs, &[name.to_owned()]).unwrap()[0]
}

/// What one step adds to a random graph.
#[derive(Clone, Debug)]
enum Step {
    Relu,
    Leaky(u32),
    Flat,
    Concat(u32),
    Constant(Vec<u32>),
    Fill(i64),
}

fn build(name: &str, steps: &[Step], symbolic: bool) -> Graph {
    let mut g = Graph::new(name);
    let n = if symbolic { Dim::Batch(1) } else { Dim::Fixed(2) };
    let x = g.add_input(format!("{name}/x"), TensorType::new(DType::F32, [n, Dim::Fixed(3)]));
    let mut last = x;
    for (i, step) in steps.iter().enumerate() {
        let name = format!("{i}\"\\\n%v1 {}", "é".repeat(i % 3));
        match step {
            Step::Relu => last = node(&mut g, "Relu", Attrs::new(), &[last], &name),
            Step::Leaky(bits) => {
                let attrs = Attrs::new().float("alpha", f32::from_bits(*bits));
                last = node(&mut g, "LeakyRelu", attrs, &[last], &name);
            }
            Step::Flat => {
                let total = g.value(last).ty.elements().unwrap();
                last = node(&mut g, "Reshape", Attrs::new().dims("shape", &[total]), &[last], &name);
            }
            Step::Concat(axis) => {
                let axis = i64::from(*axis) % i64::try_from(g.value(last).ty.rank()).unwrap();
                last = node(&mut g, "Concat", Attrs::new().int("axis", axis), &[last, last], &name);
            }
            Step::Constant(bits) => {
                let v: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
                let c = g.add_constant(format!("c{i}"), Tensor::from_f32([v.len()], v));
                let kept = node(&mut g, "Relu", Attrs::new(), &[c], &name);
                g.outputs.push(kept);
            }
            Step::Fill(v) => {
                let attrs = Attrs::new().dims("shape", &[n]).str("dtype", "i32").int("value", *v);
                let filled = node(&mut g, "Fill", attrs, &[], &name);
                g.outputs.push(filled);
            }
        }
    }
    g.outputs.push(last);
    g.verify().unwrap();
    g
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Relu),
        any::<u32>().prop_map(Step::Leaky),
        Just(Step::Flat),
        (0u32..2).prop_map(Step::Concat),
        prop::collection::vec(any::<u32>(), 0..40).prop_map(Step::Constant),
        any::<i32>().prop_map(|v| Step::Fill(v.into())),
    ]
}

fn through_text(g: &Graph) -> Graph {
    parse(&print(g), by_name, &g.constants_by_hash()).unwrap_or_else(|e| panic!("{e}\n{}", print(g)))
}

fn through_file(g: &Graph) -> Graph {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.samebit");
    file::save(g, &path).unwrap();
    file::load(&path, by_name).unwrap()
}

/// Bits of every float attribute, which equality of graphs takes for equal when both are NaN.
fn float_bits(g: &Graph) -> Vec<u32> {
    let attrs = g.nodes().iter().flat_map(|n| n.op.attrs().0);
    attrs.filter_map(|(_, v)| if let AttrValue::Float(f) = v { Some(f.to_bits()) } else { None }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_survive_text_and_file(
        steps in prop::collection::vec(step(), 0..8), symbolic: bool, name in "[a-z\"\\\\ %#]{0,6}"
    ) {
        let g = build(&name, &steps, symbolic);
        for again in [through_text(&g), through_file(&g)] {
            prop_assert_eq!(&g, &again);
            prop_assert_eq!(float_bits(&g), float_bits(&again));
        }
    }

    #[test]
    fn changed_text_is_refused_or_read_but_never_panics(at in 0usize..2000, c: char) {
        let text = print(&sample());
        let mut chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        chars[at] = c;
        let _ = parse(&chars.into_iter().collect::<String>(), by_name, &BTreeMap::new());
    }

    #[test]
    fn changed_files_are_refused_or_read_but_never_panic(at in 0usize..5000, with: u8) {
        let mut bytes = saved(&sample());
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = file::from_bytes(&bytes, by_name);
    }
}

fn sample() -> Graph {
    let floats = [0.1f32, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0].map(f32::to_bits);
    let steps = [Step::Leaky(0x7fc0_0001), Step::Constant(floats.to_vec()), Step::Concat(1), Step::Fill(-3)];
    build("sample", &steps, true)
}

fn saved(g: &Graph) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g");
    file::save(g, &path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn one_graph_is_one_file_bit_for_bit() {
    let first = saved(&sample());
    for _ in 0..16 {
        assert_eq!(saved(&sample()), first);
    }
}

#[test]
fn a_changed_copy_is_not_equal() {
    let g = sample();
    let other = build("sample", &[Step::Leaky(0x3f80_0000), Step::Relu], true);
    assert_ne!(through_text(&g), other);
    assert_ne!(through_file(&g), other);
}

#[test]
fn every_element_type_is_kept() {
    let mut g = Graph::new("types");
    let constants = [
        Tensor::from_i32([2], vec![i32::MIN, i32::MAX]),
        Tensor::from_bool([3], vec![0, 1, 1]),
        Tensor::from_i8([2, 1], vec![-128, 127]),
        Tensor::from_u8([17], (0..17).collect()),
        Tensor::from_f32([0, 4], vec![]),
        Tensor::scalar(-1.5),
    ];
    for (i, t) in constants.into_iter().enumerate() {
        let name = if i == 0 { "__metadata__".to_owned() } else { format!("c{i}") };
        let id = g.add_constant(name, t);
        g.outputs.push(id);
    }
    assert_eq!(through_text(&g), g);
    assert_eq!(through_file(&g), g);
}

#[test]
fn the_text_form_is_what_the_documentation_shows() {
    let want = "graph \"sample\" float
input v0 \"sample/x\" f32[N,3]
const v2 \"c1\" f32[5] [0.1, -0.0, nan, inf, 5.877472e-39]
%0 \"node 0\\\"\\\\\\n%v1 \" from \"0\\\"\\\\\\n%v1  from\" LeakyRelu(v0) {alpha = nan:7fc00001} -> v1 \"0\\\"\\\\\\n%v1 \" f32[N,3]
";
    let text = print(&sample());
    assert!(text.starts_with(want), "{text}");
}

#[test]
fn one_node_is_printed_with_its_neighbours() {
    let g = build("at", &[Step::Relu, Step::Relu, Step::Constant(vec![0x3f80_0000])], true);
    let text = around(&g, NodeId(1)).unwrap();
    for part in ["%1 ", "input  v1 ", "from %0 ", "f32[N,3]", "to graph output"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(around(&g, NodeId(2)).unwrap().contains("constant [1.0]"));
    assert_eq!(around(&g, NodeId(9)), None);
}

#[test]
fn text_errors_say_where_and_what_was_expected() {
    let head = "graph \"g\" float\ninput v0 \"x\" f32[N]\n";
    let cases = [
        ("", 1, 1, "`graph`"),
        ("graph g float", 1, 7, "the graph's name in quotes"),
        ("graph \"g\" cooked", 1, 11, "a stage (float, fake-quant, export, quantized, compiled)"),
        (
            "graph \"g\" float\ninput v0 \"x\" f33[N]",
            2,
            14,
            "an element type (f32, i32, bool, i8, u8, i16, u16, i4, u4)",
        ),
        ("graph \"g\" float\ninput v0 \"x\" f32[-1]", 2, 18, "a dimension such as 3, N or 2N"),
        ("graph \"g\" float\ninput v0 \"x\" f32[1099511627776]", 2, 18, "at most 6 axes and 2^31 elements"),
        ("graph \"g\" float\ninput v1 \"x\" f32[N]", 2, 20, "a value v0"),
        ("graph \"g\" float\nconst v0 \"x\" f32[2] [1.0]", 2, 21, "2 elements"),
        ("graph \"g\" float\nconst v0 \"x\" f32[2] hash 00", 2, 26, "the hash of a given constant"),
        ("graph \"g\" float\nwhat", 2, 1, "`input`, `const`, `output` or a node such as %3"),
        ("graph \"g", 1, 7, "a string that ends"),
        ("graph \"g\" float\n;", 2, 1, "a word, a string or a mark"),
        ("HEAD%0 \"n\" Nope(v0) -> v1 \"y\" f32[N]", 3, 8, "an operator"),
        ("HEAD%0 \"n\" Relu(v7) -> v1 \"y\" f32[N]", 3, 13, "a value of a line above"),
        ("HEAD%0 \"n\" Relu(v0 -> v1 \"y\" f32[N]", 3, 16, "`,` or `)`"),
        ("HEAD%0 \"n\" Relu(v0) {x = 1} -> v1 \"y\" f32[N]", 3, 1, "attributes of Relu"),
        ("HEAD%0 \"n\" Relu(v0) -> v0 \"y\" f32[N]", 3, 20, "a value that is not there yet"),
        ("HEAD%0 \"n\" Relu(v0) -> v1 \"y\" f32[7]\noutput v1", 4, 10, "a graph that keeps the rules"),
        ("HEADoutput v0 v0", 3, 11, "the end of the line"),
        ("HEADoutput v8", 3, 10, "a graph that keeps the rules"),
    ];
    let mut wrong = Vec::new();
    for (text, line, column, expected) in cases {
        let text = text.replace("HEAD", head);
        match parse(&text, by_name, &BTreeMap::new()) {
            Ok(_) => wrong.push(format!("accepted: {text}")),
            Err(e) if (e.line, e.column, e.expected.as_str()) == (line, column, expected) => {}
            Err(e) => {
                wrong.push(format!("{text}\n  gave {e}\n  want line {line}, column {column}: {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A safetensors file with this header and as many zero bytes of data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.bytes());
    out.extend(vec![0; data]);
    out
}

#[test]
fn corrupt_graph_files_say_what_is_wrong() {
    let json = |g: &str| {
        let g = serde_json::Value::from(g).to_string();
        safetensors(&format!("{{\"__metadata__\":{{\"samebit\":\"1\",\"graph\":{g}}}}}"), 0)
    };
    let empty = |values: &str, nodes: &str| {
        let text = format!(
            "{{\"name\":\"g\",\"stage\":\"float\",\"inputs\":[],\"outputs\":[],\"nodes\":[{nodes}],\"values\":[{values}]}}"
        );
        json(&text)
    };
    let relu = "{\"id\":0,\"name\":\"n\",\"op\":\"OP\",\"attrs\":{ATTRS},\"inputs\":[9],\"outputs\":[]}";
    let cases = [
        (Vec::new(), "header too small"),
        (vec![0xff; 64], "header too large"),
        (1000u64.to_le_bytes().to_vec(), "invalid header length"),
        (safetensors("{}", 0), "no entry \"samebit\""),
        (
            safetensors("{\"__metadata__\":{\"samebit\":\"7\",\"graph\":\"\"}}", 0),
            "version \"7\"; supported: \"1\"",
        ),
        (safetensors("{\"__metadata__\":{\"samebit\":\"1\"}}", 0), "no entry \"graph\""),
        (json("{"), "EOF while parsing"),
        (json(&"[".repeat(100_000)), "graph JSON"),
        (
            safetensors(
                "{\"t\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},\"__metadata__\":{\"samebit\":\"1\",\"graph\":\"{}\"}}",
                8,
            ),
            "supported: f32, i32, bool, i8, u8",
        ),
        (
            safetensors("{\"t\":{\"dtype\":\"F32\",\"shape\":[1099511627776],\"data_offsets\":[0,8]}}", 8),
            "invalid shape",
        ),
        (empty("{\"name\":\"v\",\"dtype\":\"f32\",\"shape\":[-1]}", ""), "-1 is not a dimension"),
        (empty("{\"name\":\"v\",\"dtype\":\"f32\",\"shape\":[\"0N\"]}", ""), "0N is not a multiple of N"),
        (empty("{\"name\":\"v\",\"dtype\":\"f9\",\"shape\":[]}", ""), "element type \"f9\" is unknown"),
        (empty("{\"name\":\"v\",\"dtype\":\"f32\",\"shape\":[1099511627776]}", ""), "more than 2^31"),
        (empty("{\"name\":\"v\",\"dtype\":\"f32\",\"shape\":[],\"constant\":\"t\"}", ""), "no tensor \"t\""),
        (empty("{\"name\":\"v\",\"dtype\":\"f32\",\"shape\":[]}", ""), "produced 0 times"),
        (empty("", &relu.replace("OP", "Nope").replace("ATTRS", "")), "operator \"Nope\" is unknown"),
        (empty("", &relu.replace("OP", "Relu").replace("ATTRS", "")), "value 9, which does not exist"),
        (
            empty("", &relu.replace("OP", "LeakyRelu").replace("ATTRS", "\"alpha\":{\"float\":1e300}")),
            "is not a 32-bit float",
        ),
    ];
    let mut wrong = Vec::new();
    for (bytes, want) in cases {
        match file::from_bytes(&bytes, by_name) {
            Ok(_) => wrong.push(format!("accepted, want {want}")),
            Err(e) if e.to_string().contains(want) => {}
            Err(e) => wrong.push(format!("want {want}: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_prefix_of_a_file_is_refused() {
    let bytes = saved(&sample());
    for len in 0..bytes.len() {
        assert!(file::from_bytes(&bytes[..len], by_name).is_err(), "{len} of {} bytes", bytes.len());
    }
    assert!(matches!(file::load(std::path::Path::new("/nonexistent/x"), by_name), Err(FileError::Io(_))));
}
