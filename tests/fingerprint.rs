//! `fingerprint` through the binary: each profile as the black box, `TFLite`'s kernels, arithmetic that no profile has, and
//! what is refused.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, npz_arrays, write_npy};
use samebit::quant::Profile;
use samebit::tensor::{Data, Tensor};
use serde_json::{Value, json as value};
use std::path::{Path, PathBuf};
use support::binary::{bytes, json, refused, samebit, text};
use support::{shared, trial};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");
const EVAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");
fn main() {
    let absent = shared("data/tflite").is_none();
    let trials = vec![
        trial("each_profile_is_found_in_what_it_answers", false, each_profile_is_found_in_what_it_answers),
        trial("operators_are_judged_one_by_one", false, operators_are_judged_one_by_one),
        trial("one_wrong_code_excludes_all", false, one_wrong_code_excludes_all),
        trial("numbers_are_read_as_the_codes_they_stand_for", false, numbers_are_read_as_codes),
        trial("a_graph_on_codes_says_what_it_cannot_tell", false, a_graph_on_codes_says_what_it_cannot_tell),
        trial("level_4_and_deployment_files_are_taken", false, level_4_and_deployment_files_are_taken),
        trial("one_seed_gives_one_set_of_probes", false, one_seed_gives_one_set_of_probes),
        trial("what_cannot_be_compared_is_refused", false, what_cannot_be_compared_is_refused),
        trial("tflites_kernels_are_told_apart_on_resnet8", absent, tflites_kernels_are_told_apart_on_resnet8),
        trial("tflites_kernels_agree_on_vww", absent, tflites_kernels_agree_on_vww),
        trial("outputs_alone_tell_on_probes", absent, outputs_alone_tell_on_probes),
        trial("a_changed_profile_is_none_of_them", absent, a_changed_profile_is_none_of_them),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn list<'a>(v: &'a Value, key: &str) -> &'a Vec<Value> {
    v[key].as_array().unwrap_or_else(|| panic!("{key} in {v}"))
}

fn strings(v: &Value) -> Vec<&str> {
    v.as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

fn calibrated(dir: &Path, more: &[&str]) -> PathBuf {
    let config = dir.join("config.toml");
    std::fs::write(&config, "preset = \"all-i8\"\n").expect("writes");
    let g = dir.join("g");
    let args = [
        "calibrate",
        MODEL,
        "--data",
        CALIB,
        "--limit",
        "32",
        "--config",
        text(&config),
        "-o",
        text(&g),
        "--consistency",
        "1",
    ];
    json(0, &[&args[..], more].concat());
    g
}

/// Probes of a graph: the folder, and what the command says.
fn probed(dir: &Path, g: &Path, more: &[&str]) -> (PathBuf, Value) {
    let p = dir.join("probes");
    let v = json(0, &[&["fingerprint", "probes", text(g), "-o", text(&p)], more].concat());
    (p, v)
}

/// What a profile answers to the probes: its tensors that match, as codes.
fn answers(dir: &Path, q: &Path, probes: &Path, input: &str, more: &[&str]) -> PathBuf {
    let out = dir.join("answers");
    let _ = std::fs::remove_dir_all(&out);
    let input = format!("{input}={}", text(&probes.join(format!("{input}.npy"))));
    json(0, &[&["run", text(q), "--input", &input, "--dump", text(&out)], more].concat());
    out
}

fn read(code: i32, g: &Path, answers: &Path, probes: &Path, more: &[&str]) -> Value {
    let v = json(
        code,
        &[&["fingerprint", "read", text(g), text(answers), "--probes", text(probes)], more].concat(),
    );
    for op in list(&v, "ops").iter().chain(list(&v, "outputs")) {
        for e in list(op, "excluded") {
            assert_ne!(e["got"], e["expected"], "a witness must differ: {op}");
            assert!(
                e["mismatches"].as_u64() > Some(0)
                    && !strings(&op["profiles"]).contains(&text_of(&e["profile"]))
            );
        }
    }
    v
}

fn text_of(v: &Value) -> &str {
    v.as_str().expect("a text")
}

/// Profiles that the probes do not tell from one in what `at` allows.
fn alike<'a>(probes: &'a Value, profile: &'a str, at: &[&str]) -> Vec<&'a str> {
    let mut out = vec![profile];
    for pair in list(probes, "pairs").iter().filter(|p| at.contains(&text_of(&p["separated"]))) {
        let (a, b) = (strings(&pair["a"]), strings(&pair["b"]));
        if a.contains(&profile) {
            out.extend(b);
        } else if b.contains(&profile) {
            out.extend(a);
        }
    }
    out.extend(
        list(probes, "same_arithmetic").iter().map(strings).filter(|g| g.contains(&profile)).flatten(),
    );
    out
}

fn each_profile_is_found_in_what_it_answers() {
    let mut told = 0;
    for target in ["samebit", "power-of-two"] {
        let dir = tempfile::tempdir().expect("a folder");
        let g = calibrated(dir.path(), &["--target", target]);
        let (p, said) = probed(dir.path(), &g, &["--tries", "96"]);
        let candidates = strings(&said["profiles"]);
        assert_eq!(candidates.contains(&"power-of-two"), target == "power-of-two", "{said}");
        if target == "samebit" {
            let unfit = list(&said, "unfit").iter().find(|u| u["profile"] == "power-of-two");
            assert!(unfit.is_some_and(|u| text_of(&u["reason"]).contains("powers of two")), "{said}");
        }
        for profile in Profile::names().into_iter().filter(|p| candidates.contains(p)) {
            let q = dir.path().join("q");
            json(0, &["convert", text(&g), "--target", profile, "-o", text(&q)]);
            for (layers, at) in [("*", &["nowhere"][..]), ("no tensor", &["nowhere", "inside"])] {
                let layers: &[&str] = if layers == "*" { &["--layers", "*"] } else { &[] };
                let a = answers(dir.path(), &q, &p, "image", &[&["--codes"], layers].concat());
                let v = read(0, &g, &a, &p, &[]);
                let left = strings(&v["profiles"]);
                let allowed = alike(&said, profile, at);
                assert!(left.contains(&profile), "{target}, {profile}: {left:?}");
                let others: Vec<&&str> = left.iter().filter(|l| !allowed.contains(l)).collect();
                assert!(others.is_empty(), "{target}, {profile}: {others:?} are left, too: {v:#}");
                told += candidates.len() - left.len();
                let votes = list(&v, "votes").iter().find(|o| o["profile"] == profile).expect("its votes");
                assert!(
                    votes["possible"] == true
                        && votes["against"] == 0
                        && votes["elements"].as_u64() > Some(0)
                );
            }
        }
    }
    assert!(told > 20, "{told} exclusions");
}

/// Convolutions as one profile has them, everything else as another one: each operator is told although what lies before
/// it differs, and none of the profiles has both.
fn operators_are_judged_one_by_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = calibrated(dir.path(), &[]);
    let (p, _) = probed(dir.path(), &g, &["--tries", "96"]);
    let mixed = dir.path().join("mixed.toml");
    let toml = "name = \"mixed\"\nabout = \"convolutions of ONNX Runtime\"\nactivations = [\"i8\"]\n[weights]\ntypes = [\"i8\"]\n\
                [default]\nrequantize = \"fixed_doubling_away\"\nrounding = \"half_away\"\n\
                [op.Conv]\nrequantize = \"float\"\nrounding = \"half_even\"\n";
    std::fs::write(&mixed, toml).expect("writes");
    let q = dir.path().join("q");
    json(0, &["convert", text(&g), "--target", text(&mixed), "-o", text(&q)]);
    let a = answers(dir.path(), &q, &p, "image", &["--codes", "--layers", "*"]);
    let v = read(1, &g, &a, &p, &[]);
    assert_eq!(v["profiles"], value!([]), "{v:#}");
    let (mut convolutions, mut others) = (0, 0);
    for op in list(&v, "ops") {
        let left = strings(&op["profiles"]);
        let telling = op["telling"].as_u64() > Some(0);
        match op["operator"].as_str() {
            Some("Conv") => {
                assert!(left.contains(&"onnxruntime"), "{op:#}");
                convolutions += usize::from(telling && !left.contains(&"tflite-reference"));
            }
            _ => {
                assert!(left.contains(&"tflite-reference"), "{op:#}");
                others += usize::from(telling && !left.contains(&"onnxruntime"));
            }
        }
        assert!(list(op, "nodes").len() <= 1, "all tensors are shown: {op:#}");
    }
    assert!(convolutions > 0 && others > 0, "{convolutions} and {others} operators tell: {v:#}");
    // As a candidate it is the one that is left.
    let v = read(0, &g, &a, &p, &["--profile", text(&mixed)]);
    assert_eq!(v["profiles"], value!(["mixed"]));
}

fn read_npy(path: &Path) -> Tensor {
    Array::open(path).and_then(|a| a.read()).unwrap_or_else(|e| panic!("{e}"))
}

fn one_wrong_code_excludes_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = calibrated(dir.path(), &[]);
    let (p, _) = probed(dir.path(), &g, &["--tries", "16"]);
    let q = dir.path().join("q");
    json(0, &["convert", text(&g), "--target", "tflite-optimised", "-o", text(&q)]);
    let a = answers(dir.path(), &q, &p, "image", &["--codes", "--layers", "*"]);
    let v = read(0, &g, &a, &p, &[]);
    let op = list(&v, "ops").iter().find(|o| o["operator"] == "Conv").expect("a convolution");
    let name = text_of(&op["answer"]);
    let path = a.join(format!("{name}.npy"));
    let right = read_npy(&path);
    let Data::I8(codes) = right.data() else { panic!("{right:?}") };
    let (mut wrong, at) = (codes.to_vec(), right.len() / 2);
    wrong[at] ^= 1;
    write_npy(&path, &Tensor::from_i8(right.shape(), wrong.clone())).expect("writes");
    let v = read(1, &g, &a, &p, &[]);
    assert_eq!(v["profiles"], value!([]));
    let found = list(&v, "ops").iter().find(|o| o["answer"] == name).expect("the layer");
    assert_eq!(found["profiles"], value!([]));
    for e in
        list(found, "excluded").iter().filter(|e| strings(&op["profiles"]).contains(&text_of(&e["profile"])))
    {
        // The one that was right until now is told by the planted code alone.
        assert!(e["mismatches"] == 1 && e["got"] == wrong[at] && e["expected"] == codes[at], "{e}");
        let index: Vec<usize> = list(e, "element")
            .iter()
            .map(|i| usize::try_from(i.as_u64().expect("a number")).expect("fits"))
            .collect();
        let flat = index.iter().zip(right.shape()).fold(0, |flat, (i, d)| flat * d + i);
        assert_eq!(flat, at);
    }
}

fn numbers_are_read_as_codes() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = calibrated(dir.path(), &[]);
    let (p, _) = probed(dir.path(), &g, &["--tries", "32"]);
    let q = dir.path().join("q");
    json(0, &["convert", text(&g), "--target", "onnxruntime", "-o", text(&q)]);
    let mut verdicts = Vec::new();
    for more in [&["--codes", "--layers", "*"][..], &["--layers", "*"]] {
        let a = answers(dir.path(), &q, &p, "image", more);
        let v = read(0, &g, &a, &p, &[]);
        assert!(strings(&v["profiles"]).contains(&"onnxruntime"), "{v:#}");
        verdicts.push((v["profiles"].clone(), list(&v, "ops").len()));
    }
    assert_eq!(verdicts[0], verdicts[1]);
    // What is not on the grid of the codes is not compared, and says so.
    let a = answers(dir.path(), &q, &p, "image", &["--layers", "*"]);
    let name = "logits.npy";
    let t = read_npy(&a.join(name));
    let off: Vec<f32> = t.f32s().iter().map(|x| x * 1.01 + 0.003).collect();
    write_npy(&a.join(name), &Tensor::from_f32(t.shape(), off)).expect("writes");
    refused(&["fingerprint", "read", text(&g), text(&a), "--probes", text(&p)], &["logits", "grid of scale"]);
}

fn a_graph_on_codes_says_what_it_cannot_tell() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = calibrated(dir.path(), &[]);
    let q = dir.path().join("q");
    json(0, &["convert", text(&g), "-o", text(&q)]);
    let (p, said) = probed(dir.path(), &q, &["--tries", "48"]);
    assert!(text_of(&said["note"]).contains("tables"), "{said}");
    let a =
        answers(dir.path(), &q, &p, "image", &["--codes", "--layers", "*", "--profile", "tflite-reference"]);
    let v = read(0, &q, &a, &p, &[]);
    assert!(strings(&v["profiles"]).contains(&"tflite-reference"), "{v:#}");
    assert!(!strings(&v["profiles"]).contains(&"samebit"), "{v:#}");
    // Probes of one model say nothing of another.
    refused(
        &["fingerprint", "read", text(&g), text(&a), "--probes", text(&p)],
        &["probes of", "make probes of this model"],
    );
}

/// Level 4 fixes a target for the simulation, not for what a black box may do.
fn level_4_and_deployment_files_are_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let (g, q, c) = (dir.path().join("g"), dir.path().join("q"), dir.path().join("c"));
    json(0, &["calibrate", MODEL, "--data", CALIB, "--limit", "32", "--consistency", "4", "-o", text(&g)]);
    let (p, said) = probed(dir.path(), &g, &["--tries", "32"]);
    assert!(strings(&said["profiles"]).len() > 4, "{said}");
    json(0, &["convert", text(&g), "-o", text(&q)]);
    let a = answers(dir.path(), &q, &p, "image", &["--codes", "--layers", "*"]);
    let input = format!("image={}", text(&p.join("image.npy")));
    json(0, &["compile", text(&q), "-o", text(&c)]);
    for model in [&g, &c] {
        let v = json(0, &["fingerprint", "read", text(model), text(&a), "--input", &input]);
        let left = strings(&v["profiles"]);
        assert!(left.contains(&"samebit") && !left.contains(&"tflite-reference"), "{left:?}");
    }
}

fn one_seed_gives_one_set_of_probes() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = calibrated(dir.path(), &[]);
    let made = |name: &str, seed: &str, more: &[&str]| {
        let p = dir.path().join(name);
        let args = ["fingerprint", "probes", text(&g), "-o", text(&p), "--tries", "24", "--seed", seed];
        let v = json(0, &[&args[..], more].concat());
        (v, bytes(&p.join("image.npy")), bytes(&p.join("image%2Fcodes.npy")), bytes(&p.join("probes.json")))
    };
    let first = made("a", "7", &[]);
    // A folder of probes is replaced.
    assert_eq!(first, made("a", "7", &[]));
    let other = made("b", "8", &[]);
    assert_ne!(first.1, other.1);
    // Data comes first, and is moved to the grid of the codes.
    let (v, values, ..) = made("c", "7", &["--data", EVAL]);
    assert_ne!(first.1, values);
    assert!(list(&v, "frames").iter().any(|f| !text_of(f).contains(' ')), "{v}");
    let scale = v["inputs"][0]["codes"]["scale"][0].as_f64().expect("a scale");
    let x = read_npy(&dir.path().join("c/image.npy"));
    let codes = read_npy(&dir.path().join("c/image%2Fcodes.npy"));
    assert!((0..x.len()).all(|i| (x.number(i) - codes.number(i) * scale).abs() < 1e-6));
    let said: Value = serde_json::from_slice(&first.3).expect("JSON");
    assert_eq!(said, first.0);
    assert!(
        list(&said, "pairs").iter().any(|p| p["separated"] == "outputs" && p["witnesses"].as_u64() > Some(0)),
        "{said}"
    );
}

fn what_cannot_be_compared_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = calibrated(dir.path(), &[]);
    let (p, _) = probed(dir.path(), &g, &["--tries", "16"]);
    let q = dir.path().join("q");
    json(0, &["convert", text(&g), "-o", text(&q)]);
    let a = answers(dir.path(), &q, &p, "image", &["--codes"]);
    let with = |answers: &Path, parts: &[&str]| {
        refused(&["fingerprint", "read", text(&g), text(answers), "--probes", text(&p)], parts);
    };
    with(&dir.path().join("nothing"), &["not there"]);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("makes");
    with(&empty, &["no .npy"]);
    let garbage = dir.path().join("garbage.npz");
    std::fs::write(&garbage, b"PK but no archive").expect("writes");
    with(&garbage, &["not an npz"]);
    // Nothing has a name of the model.
    let others = dir.path().join("others");
    std::fs::create_dir(&others).expect("makes");
    write_npy(&others.join("a.npy"), &Tensor::from_i8([2, 2], vec![1, 2, 3, 4])).expect("writes");
    with(&others, &["nothing can be compared", "a: no tensor", "--map"]);
    // A name of the model, and another shape; another number of frames; another model.
    write_npy(&others.join("logits.npy"), &Tensor::from_i8([2, 7], vec![0; 14])).expect("writes");
    with(&others, &["logits has shape [2, 7]", "i8[N,10]"]);
    write_npy(&others.join("logits.npy"), &Tensor::from_i8([9, 10], vec![0; 90])).expect("writes");
    with(&others, &["frames", "9"]);
    let args = ["fingerprint", "read", text(&g), text(&a), "--probes", text(&p), "--map"];
    refused(&[&args[..], &["logits"]].concat(), &["--map logits", "THEIRS=OURS"]);
    refused(&[&args[..], &["nobody=logits"]].concat(), &["nobody", "there are"]);
    refused(&[&args[..], &["logits=nobody"]].concat(), &["nobody", "no tensor"]);
    refused(&["fingerprint", "probes", MODEL, "-o", text(&empty)], &["stage float", "calibrate"]);
    refused(&["fingerprint", "probes", text(&g), "-o", text(&empty), "--tries", "0"], &["--tries"]);
    let twice = dir.path().join("twice.toml");
    std::fs::write(&twice, "name = \"samebit\"\nabout = \"a\"\nactivations = [\"i8\"]\n").expect("writes");
    refused(
        &["fingerprint", "probes", text(&g), "-o", text(&empty), "--profile", text(&twice)],
        &["two profiles", "samebit"],
    );
    // A name of theirs that --map gives.
    let mapped = dir.path().join("mapped");
    std::fs::create_dir(&mapped).expect("makes");
    let output = list(
        &json(0, &["run", text(&q), "--input", &format!("image={}", text(&p.join("image.npy"))), "--codes"]),
        "outputs",
    )[0]["name"]
        .clone();
    std::fs::copy(a.join(format!("{}.npy", text_of(&output))), mapped.join("out0.npy")).expect("copies");
    let map = format!("out0={}", text_of(&output));
    let v = read(0, &g, &mapped, &p, &["--map", &map]);
    assert!(strings(&v["profiles"]).contains(&"samebit"), "{v}");
}

fn tflite(model: &str, kernels: &str) -> (PathBuf, PathBuf) {
    let folder = shared("data/tflite").expect("seen before");
    (folder.join(format!("{model}.int8.qdq.onnx")), folder.join(format!("{model}.codes.{kernels}.npz")))
}

/// An element of an array of an npz.
fn element(npz: &Path, name: &str, index: &Value) -> f64 {
    let t = Array::open_npz(npz, name).and_then(|a| a.read()).unwrap_or_else(|e| panic!("{e}"));
    let index: Vec<u64> = index.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert_eq!(index.len(), t.rank());
    let flat =
        index.iter().zip(t.shape()).fold(0, |flat, (i, d)| flat * d + usize::try_from(*i).expect("fits"));
    t.number(flat)
}

fn tflites_kernels_are_told_apart_on_resnet8() {
    for kernels in ["reference", "optimised"] {
        let (model, npz) = tflite("resnet8_cifar10", kernels);
        let v = json(0, &["fingerprint", "read", text(&model), text(&npz)]);
        let right = format!("tflite-{kernels}");
        assert_eq!(v["profiles"], value!([right]), "{v:#}");
        assert_eq!(v["frames"], 4);
        // All tensors but the weights of the last layer, which are in the archive, too.
        let names = npz_arrays(&npz).expect("lists");
        assert_eq!(list(&v, "ops").len() + 2, names.len(), "{v:#}");
        for vote in list(&v, "votes") {
            let profile = text_of(&vote["profile"]);
            assert_eq!(vote["possible"], profile == right);
            println!(
                "{kernels}: {} of {} elements speak against {profile}",
                vote["against"], vote["elements"]
            );
            if profile == right {
                assert!(vote["against"] == 0 && vote["elements"].as_u64() > Some(450_000), "{vote}");
                continue;
            }
            let ops = list(&v, "ops").iter();
            let witness =
                ops.filter_map(|o| Some((o, list(o, "excluded").iter().find(|e| e["profile"] == profile)?)));
            let all: Vec<_> = witness.collect();
            assert!(!all.is_empty(), "{profile} has no witness");
            for (op, e) in all {
                let there = element(&npz, text_of(&op["answer"]), &e["element"]);
                assert_eq!(e["got"].as_f64(), Some(there), "{op:#}");
                assert_ne!(e["expected"].as_f64(), Some(there), "{op:#}");
            }
        }
        let softmax = list(&v, "ops").iter().find(|o| o["operator"] == "Softmax").expect("a softmax");
        assert!(softmax["slack"] == "one code" && softmax["reason"].is_string(), "{softmax:#}");
        let difference =
            list(softmax, "differences").iter().find(|d| d["profile"] == right).expect("is stated");
        println!("{kernels}: softmax: {difference}");
        assert!(difference["max_abs"].as_f64() <= Some(1.0));
    }
}

fn tflites_kernels_agree_on_vww() {
    for kernels in ["reference", "optimised"] {
        let (model, npz) = tflite("mobilenetv1_025_vww", kernels);
        let v = json(0, &["fingerprint", "read", text(&model), text(&npz)]);
        assert_eq!(v["profiles"], value!(["tflite-reference", "tflite-optimised"]), "{v:#}");
    }
}

/// Profiles as black boxes that show their probabilities alone.
fn outputs_alone_tell_on_probes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, _) = tflite("resnet8_cifar10", "reference");
    let (p, said) = probed(dir.path(), &model, &["--tries", "256", "--witnesses", "1"]);
    let mut alone = 0;
    for profile in ["tflite-reference", "tflite-single"] {
        let q = dir.path().join("q");
        json(0, &["convert", text(&model), "--target", profile, "-o", text(&q)]);
        let a = answers(dir.path(), &q, &p, "input_1_int8", &["--codes"]);
        let v = read(0, &model, &a, &p, &[]);
        let left = strings(&v["profiles"]);
        assert!(
            left.contains(&profile)
                && left.iter().all(|l| alike(&said, profile, &["nowhere", "inside"]).contains(l)),
            "{v:#}"
        );
        assert!(list(&v, "ops").iter().all(|o| list(o, "nodes").len() > 10), "the whole model is one: {v:#}");
        alone += usize::from(left.len() == 1);
    }
    assert!(alone > 0, "{said:#}");
}

fn a_changed_profile_is_none_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, npz) = tflite("resnet8_cifar10", "reference");
    // Halves to even where the reference kernels have them away from zero.
    let changed = dir.path().join("changed.toml");
    let toml = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/tflite-reference.toml"));
    let toml = toml.replace("\"tflite-reference\"", "\"changed\"")
        + "[op.AveragePool]\nrequantize = \"fixed\"\nrounding = \"half_up\"\n";
    std::fs::write(&changed, toml).expect("writes");
    let x = dir.path().join("input_1_int8.npy");
    let frames =
        Array::open_npz(&npz, "000|input_1_int8").and_then(|a| a.read()).unwrap_or_else(|e| panic!("{e}"));
    write_npy(&x, &frames).expect("writes");
    let q = dir.path().join("q");
    json(0, &["convert", text(&model), "--target", text(&changed), "-o", text(&q)]);
    let a = answers(dir.path(), &q, dir.path(), "input_1_int8", &["--codes", "--layers", "*"]);
    let input = format!("input_1_int8={}", text(&x));
    let args = ["fingerprint", "read", text(&model), text(&a), "--input", &input];
    let v = json(1, &args);
    assert_eq!(v["profiles"], value!([]), "{v:#}");
    let pool = list(&v, "ops").iter().find(|o| o["operator"] == "AveragePool").expect("a pool");
    assert!(list(pool, "excluded").iter().any(|e| e["profile"] == "tflite-reference"), "{pool:#}");
    let others = list(&v, "ops").iter().filter(|o| o["operator"] != "AveragePool");
    assert!(others.into_iter().all(|o| strings(&o["profiles"]).contains(&"tflite-reference")), "{v:#}");
    let o = samebit(&args);
    assert!(String::from_utf8_lossy(&o.stdout).contains("no profile is possible"));
    let v = json(0, &[&args[..], &["--profile", text(&changed)]].concat());
    assert_eq!(v["profiles"], value!(["changed"]));
}
