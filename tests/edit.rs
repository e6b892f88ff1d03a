//! `edit` through the binary: quantizers are removed or changed by ids or names, ids stay, and what cannot be is refused.

mod support;

use libtest_mimic::Arguments;
use samebit::graph::{Graph, Node};
use samebit::onnx::ImportOptions;
use samebit::quant::{Quantizer, State};
use samebit::tensor::DType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::binary::{json, refused, text};
use support::trial;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");
const EVAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

fn main() {
    let trials = vec![
        trial("removed_quantizers_are_gone_and_ids_stay", false, removed_quantizers_are_gone_and_ids_stay),
        trial("json_says_the_same", false, json_says_the_same),
        trial("types_change_and_ranges_stay", false, types_change_and_ranges_stay),
        trial("ranges_scales_and_states_change", false, ranges_scales_and_states_change),
        trial("all_quantizers_removed_is_the_float_model", false, all_removed_is_the_float_model),
        trial("edits_that_cannot_be_are_refused", false, edits_that_cannot_be_are_refused),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

struct Case {
    dir: tempfile::TempDir,
    graph: PathBuf,
}

impl Case {
    fn new(config: &str) -> Case {
        let dir = tempfile::tempdir().expect("a folder");
        let graph = dir.path().join("g");
        let toml = dir.path().join("config.toml");
        std::fs::write(&toml, config).expect("writes");
        let args = ["calibrate", MODEL, "--data", CALIB, "--limit", "8", "--config", text(&toml), "-o"];
        json(0, &[&args[..], &[text(&graph)]].concat());
        Case { dir, graph }
    }

    fn edits(&self, toml: &str) -> PathBuf {
        let path = self.dir.path().join("edits.toml");
        std::fs::write(&path, toml).expect("writes");
        path
    }

    fn edited(&self, toml: &str) -> (Graph, Value, PathBuf) {
        let out = self.dir.path().join("out");
        let v = json(0, &["edit", text(&self.graph), "--config", text(&self.edits(toml)), "-o", text(&out)]);
        (load(&out), v, out)
    }
}

fn load(path: &Path) -> Graph {
    samebit::model::load(path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn quantizers(graph: &Graph) -> Vec<(&Node, &Quantizer)> {
    graph.nodes().iter().filter_map(|n| Some((n, n.quantizer()?))).collect()
}

fn removed_quantizers_are_gone_and_ids_stay() {
    let case = Case::new("preset = \"all-i8\"");
    let before = load(&case.graph);
    let ids: Vec<u32> = quantizers(&before).iter().map(|(n, _)| n.id.0).collect();
    assert!(ids.len() > 8, "{ids:?}");
    let (from, to) = (ids[2], ids[4]);
    let toml = format!("[[edit]]\nids = [\"{from}..{to}\", {}]\nremove = true\n", ids[6]);
    let (after, v, out) = case.edited(&toml);
    let gone: Vec<u64> =
        v["removed"].as_array().expect("a list").iter().filter_map(|r| r["id"].as_u64()).collect();
    let wanted = |id: u32| (from..=to).contains(&id) || id == ids[6];
    assert_eq!(gone, ids.iter().filter(|id| wanted(**id)).map(|id| u64::from(*id)).collect::<Vec<_>>());
    assert_eq!(v["changed"], serde_json::json!([]));
    for node in before.nodes() {
        let found = after.node(node.id);
        assert_eq!(found.is_none(), wanted(node.id.0), "{}", node.label());
        assert!(found.is_none_or(|n| n.name == node.name));
    }
    let names = |g: &Graph| g.outputs.iter().map(|v| g.value(*v).name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    json(0, &["eval", text(&out), "--data", EVAL, "--limit", "8"]);
}

fn json_says_the_same() {
    let case = Case::new("");
    let graph = load(&case.graph);
    let all = quantizers(&graph);
    let mut ids: Vec<u32> = all.iter().map(|(n, _)| n.id.0).collect();
    ids.sort_unstable();
    let (a, b, c) = (ids[0], ids[1], ids[3]);
    let last = all.iter().rfind(|(n, q)| q.spec.axis.is_none() && n.id.0 > ids[3]).expect("one").0;
    let toml = format!(
        "[[edit]]\nids = \"{a}..{b}\"\nremove = true\n[[edit]]\nids = {c}\nremove = true\n\
         [[edit]]\nids = {0}\nrange = [-1, 2]\n[[edit]]\nname = \"*\"\nstate = \"float\"\n",
        last.id.0
    );
    let json = format!(
        "{{\"remove_fake_quant\": [[{a}, {b}], {c}], \"set\": [{{\"id\": {}, \"range\": [-1, 2]}}], \"state\": \"float\"}}",
        last.id.0
    );
    let (of_toml, v, _) = case.edited(&toml);
    let (of_json, w, _) = case.edited(&json);
    assert_eq!((of_toml, v), (of_json, w));
}

fn types_change_and_ranges_stay() {
    // Ranges that cut nothing off, which more bits would not mend.
    let case = Case::new("observer = \"minmax\"");
    let before = load(&case.graph);
    let (after, v, out) = case.edited("[[edit]]\nname = \"*\"\ndtype = \"i16\"\n");
    let changed = v["changed"].as_array().expect("a list");
    assert_eq!(changed.len(), quantizers(&before).len());
    for ((n, a), (m, b)) in quantizers(&before).into_iter().zip(quantizers(&after)) {
        assert_eq!((n.id, &n.name), (m.id, &m.name));
        let (p, q) = (a.params.as_ref().expect("calibrated"), b.params.as_ref().expect("changed"));
        assert_eq!((q.dtype(), q.narrow(), q.axis()), (DType::I16, p.narrow(), p.axis()));
        for (i, s) in p.scales().iter().enumerate() {
            let (x, y) = (p.step(i), q.step(i));
            let high = |step: &samebit::quant::Step| step.dequantize(step.codes().1);
            assert!((high(&x) - high(&y)).abs() <= 1e-5 * high(&x).abs(), "{}: {s}", n.name);
            assert_eq!(y.dequantize(y.zero_point()).to_bits(), 0.0f32.to_bits());
        }
    }
    // With more bits the simulation comes nearer to the float model.
    let v = json(0, &["eval", MODEL, text(&case.graph), text(&out), "--data", CALIB, "--limit", "8"]);
    let sqnr = |i: usize| {
        let all = v["models"][i]["agreement"].as_object().expect("outputs");
        all.values().next().expect("one")["sqnr_db"].as_f64().expect("a number")
    };
    assert!(sqnr(2) > sqnr(1) + 10.0, "{} {}", sqnr(1), sqnr(2));
}

fn ranges_scales_and_states_change() {
    let case = Case::new("");
    let before = load(&case.graph);
    let activations: Vec<&Node> =
        quantizers(&before).into_iter().filter(|(_, q)| q.spec.axis.is_none()).map(|(n, _)| n).collect();
    let [a, b, c] = [activations[0], activations[1], activations[2]]
        .map(|n| (n.id, before.value(n.inputs[0]).name.clone()));
    let toml = format!(
        "[[edit]]\nname = '{}'\nrange = [-1, 3]\n[[edit]]\nids = {}\nscale = 0.125\n[[edit]]\nids = \"{}\"\nstate = \"float\"\n",
        a.1.replace(['[', ']'], "?"),
        b.0.0,
        c.0
    );
    let (after, v, out) = case.edited(&toml);
    assert_eq!(v["changed"].as_array().map(Vec::len), Some(3), "{v}");
    let of = |id| after.node(id).and_then(Node::quantizer).expect("there");
    let params = of(a.0).params.as_ref().expect("a range");
    assert_eq!(params.scales()[0].to_bits(), ((3.0f64 / 127.5) as f32).to_bits());
    assert_eq!(of(b.0).params.as_ref().expect("a scale").scales(), [0.125]);
    assert_eq!((of(c.0).state, of(a.0).origin.name()), (State::Float, "fixed"));
    for (n, q) in quantizers(&before) {
        if ![a.0, b.0, c.0].contains(&n.id) {
            assert_eq!(of(n.id), q);
        }
    }
    refused(&["eval", text(&out), "--data", EVAL], &["do not quantize", &c.1]);
}

fn all_removed_is_the_float_model() {
    let case = Case::new("consistency = 1");
    let (after, v, out) = case.edited("[[edit]]\nname = \"*\"\nremove = true\n");
    assert!(quantizers(&after).is_empty());
    assert!(v["removed"].as_array().is_some_and(|r| r.len() > 8));
    let v = json(0, &["eval", MODEL, text(&out), "--data", EVAL]);
    assert_eq!(v["models"][0]["metrics"], v["models"][1]["metrics"]);
    let agreement = v["models"][1]["agreement"].as_object().expect("outputs");
    assert!(agreement.values().all(|a| a["max_abs"].as_f64() < Some(1e-5)), "{v}");
}

fn edits_that_cannot_be_are_refused() {
    let case = Case::new("");
    let graph = load(&case.graph);
    let weight = quantizers(&graph).into_iter().find(|(_, q)| q.spec.axis.is_some()).expect("one").0.id.0;
    let single = quantizers(&graph).into_iter().find(|(_, q)| q.spec.axis.is_none()).expect("one").0.id.0;
    let other = graph.nodes().iter().find(|n| n.quantizer().is_none()).expect("one");
    let out = case.dir.path().join("out");
    let of = |toml: &str, parts: &[&str]| {
        let edits = case.edits(toml);
        refused(&["edit", text(&case.graph), "--config", text(&edits), "-o", text(&out)], parts);
        assert!(!out.exists(), "{toml}");
    };
    of("", &["no [[edit]]"]);
    of("[[edit]]\nids = 1\n", &["edit 1", "remove = true, or one or more"]);
    of("[[edit]]\nremove = true\n", &["edit 1", "one of ids and name"]);
    of("[[edit]]\nids = 3\nname = \"x\"\nremove = true\n", &["one of ids and name"]);
    of("[[edit]]\nids = \"9..3\"\nremove = true\n", &["9..3", "first and the last"]);
    of("[[edit]]\nids = 99999\nremove = true\n", &["no quantizer has an id", "samebit print"]);
    of(&format!("[[edit]]\nids = {}\nremove = true\n", other.id.0), &["no quantizer", &other.name]);
    of("[[edit]]\nname = \"nothing like it\"\nremove = true\n", &["matches no quantizer"]);
    of("[[edit]]\nname = \"*\"\ndtype = \"f32\"\n", &["f32", "no type of codes"]);
    of("[[edit]]\nname = \"*\"\nstate = \"asleep\"\n", &["asleep", "validation"]);
    of("[[edit]]\nname = \"*\"\nrange = [2, 1]\n", &["range"]);
    of("[[edit]]\nname = \"*\"\nrange = [1, 2]\nscale = 1\n", &["exclude"]);
    of("[[edit]]\nname = \"*\"\nspeed = 2\n", &["speed"]);
    of(&format!("[[edit]]\nids = {weight}\nscale = 0.5\n"), &["each channel"]);
    of(&format!("[[edit]]\nids = {}\nscale = -1\n", single), &["scale", "outside"]);
    let edits = case.edits("[[edit]]\nname = \"*\"\nremove = true\n");
    refused(&["edit", MODEL, "--config", text(&edits), "-o", text(&out)], &["stage float"]);
}
