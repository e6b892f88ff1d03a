//! What a user does, through the binary: results, JSON, exit codes, and messages for wrong input.

mod support;

use samebit::data::write_npy;
use samebit::tensor::Tensor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::onnx::{D, F32, Graph as OnnxGraph, I32};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

fn samebit(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_samebit"));
    command.args(args);
    if !args.contains(&"--device") && args.first() != Some(&"devices") {
        command.args(["--device", "cpu"]);
    }
    command.output().expect("the binary runs")
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// Runs, checks the exit code, and returns the JSON.
fn json(code: i32, args: &[&str]) -> Value {
    let o = samebit(&[args, &["--json", "-"]].concat());
    assert_eq!(o.status.code(), Some(code), "{args:?}: {}", stderr(&o));
    serde_json::from_slice(&o.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// Runs, expects exit code 2 and one message without a panic that says all of `parts`.
fn refused(args: &[&str], parts: &[&str]) {
    let o = samebit(args);
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(2), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    let errors = text.lines().filter(|l| l.starts_with("error: ") && !l.contains("XDG_RUNTIME_DIR"));
    assert_eq!(errors.count(), 1, "{args:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{args:?} must say {part:?}: {text}");
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("writes");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// A model that takes [N, 3, 8, 8] and the like is not bundled, so images go to the digit model as gray ones.
fn folder_of_images(dir: &Path, good: usize) -> PathBuf {
    let images = dir.join("images");
    std::fs::create_dir(&images).expect("makes");
    for i in 0..good {
        let img = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y) as u8 + i as u8]));
        img.save(images.join(format!("{i}.png"))).expect("saves");
    }
    write(
        dir,
        "data.toml",
        b"[dataset]\nname = \"images\"\n[[input]]\nname = \"image\"\nimages = \"images\"\ncolor = \"gray\"\nsteps = [ { scale = 0.0625 } ]\n",
    )
}

#[test]
fn quickstart_runs_and_agrees_with_itself() {
    let v = json(0, &["quickstart"]);
    assert_eq!(v["consistent"], true);
    let stages = v["stages"].as_array().expect("a list");
    assert_eq!(stages[0]["stage"], "float");
    for s in stages {
        assert!(s["metrics"]["top1"].as_f64().expect("a number") > 0.97, "{s}");
    }
    let names: Vec<&str> = stages.iter().filter_map(|s| s["stage"].as_str()).collect();
    assert_eq!(names, ["float", "float, graph file", "fake-quant", "quantized", "compiled"]);
    assert!(stages.iter().all(|s| s["frames"] == 797), "{v}");
    assert!(stages[2..].windows(2).all(|w| w[0]["metrics"] == w[1]["metrics"]), "{v}");
    let commands = v["commands"].as_array().expect("a list");
    for command in ["import", "calibrate", "convert", "compile", "verify", "eval"] {
        let start = format!("samebit {command} ");
        assert!(commands.iter().any(|c| c.as_str().is_some_and(|c| c.starts_with(&start))), "{command}: {v}");
    }
}

#[test]
fn quickstart_keeps_its_files_when_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("kept");
    json(0, &["quickstart", "--out", text(&out)]);
    let v = json(0, &["eval", text(&out.join("digits.onnx")), "--data", text(&out.join("calib.toml"))]);
    assert_eq!(v["models"][0]["frames"], 200);
    let kept = json(0, &["print", text(&out.join("digits.fake-quant.samebit"))]);
    assert_eq!(kept["stage"], "fake-quant");
    let kept = json(0, &["print", text(&out.join("digits.bin"))]);
    assert_eq!(kept["stage"], "compiled");
}

#[test]
fn devices_says_what_auto_takes() {
    let v = json(0, &["devices"]);
    assert!(v["devices"].is_array());
    let auto = v["auto"].as_str().expect("a text");
    assert!(auto == "cpu" || auto.starts_with("gpu:"), "{auto}");
}

#[test]
fn an_imported_graph_gives_the_bits_of_its_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let graph = dir.path().join("digits.samebit");
    let v = json(0, &["import", MODEL, "-o", text(&graph)]);
    assert_eq!(v["stage"], "float");
    assert_eq!(v["ops"]["Conv"], 6);
    assert_eq!(v["inputs"][0]["shape"], serde_json::json!(["N", 1, 8, 8]));
    let v = json(0, &["eval", MODEL, text(&graph), "--data", DATA, "--limit", "100"]);
    let a = &v["models"][1]["agreement"]["logits"];
    assert_eq!(
        (a["max_abs"].as_f64(), a["sqnr_db"].as_str(), a["argmax"].as_f64()),
        (Some(0.0), Some("inf"), Some(1.0))
    );
    assert_eq!(v["models"][0]["frames"], 100);
    assert!(v["models"][0]["metrics"]["top1"].as_f64().expect("a number") > 0.9);
}

#[test]
fn print_shows_the_graph_and_one_node() {
    let o = samebit(&["print", MODEL]);
    let all = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(o.status.success() && all.starts_with("graph ") && all.contains(" Conv("), "{all}");
    let o = samebit(&["print", MODEL, "--at", "%0"]);
    let one = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(o.status.success() && one.contains("%0") && one.contains("graph input"), "{one}");
    refused(&["print", MODEL, "--at", "nothing"], &["no node nothing"]);
}

#[test]
fn run_writes_outputs_and_layers() {
    let dir = tempfile::tempdir().expect("a folder");
    let numbers: Vec<String> = (0..64).map(|i| (i % 17).to_string()).collect();
    let input = write(dir.path(), "x.txt", numbers.join(" ").as_bytes());
    let out = dir.path().join("out");
    let args = [
        "run",
        MODEL,
        "--input",
        text(&input),
        "--dump",
        text(&out),
        "--format",
        "npy,bin,txt",
        "--layers",
        "*",
    ];
    let v = json(0, &args);
    let outputs = v["outputs"].as_array().expect("a list");
    assert_eq!(outputs[0]["name"], "logits");
    assert_eq!(outputs[0]["shape"], serde_json::json!([1, 10]));
    assert!(outputs.len() > 10);
    let txt = std::fs::read_to_string(out.join("logits.txt")).expect("written");
    let bin = std::fs::read(out.join("logits.bin")).expect("written");
    let from_txt: Vec<f32> = txt.lines().map(|l| l.parse().expect("a number")).collect();
    let from_bin: Vec<f32> =
        bin.chunks(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect();
    assert_eq!(from_txt, from_bin);
    assert!(out.join("logits.npy").exists() && out.join("index.json").exists());
}

#[test]
fn an_unreadable_frame_is_skipped_counted_and_makes_the_code_1() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = folder_of_images(dir.path(), 3);
    write(&dir.path().join("images"), "1b.jpg", b"this is no image");
    let args = ["eval", MODEL, "--data", text(&data)];
    let v = json(1, &args);
    assert_eq!(v["models"][0]["frames"], 3);
    assert_eq!(v["skipped"][0]["sample"], "1b.jpg");
    json(0, &[&args[..], &["--allow-skips"]].concat());
}

#[test]
fn wrong_input_ends_in_one_message_and_code_2() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let fake = write(d, "fake.jpg", b"this is no image");
    let junk = write(d, "junk.onnx", &[0xff; 300]);
    let short = write(d, "short.onnx", &std::fs::read(MODEL).expect("reads")[..40_000]);
    let numbers = write(d, "x.txt", b"1 2 three");
    refused(&["run", MODEL, "--input", text(&fake)], &["fake.jpg", "image"]);
    refused(&["run", MODEL, "--input", text(&numbers)], &["line 1", "three"]);
    refused(&["run", MODEL, "--input", "image=/nothing/there.npy"], &["/nothing/there.npy"]);
    refused(&["run", MODEL, "--input", "other=x.npy"], &["inputs are image"]);
    refused(&["import", text(&junk), "-o", text(&d.join("g"))], &["junk.onnx"]);
    refused(&["import", text(&short), "-o", text(&d.join("g"))], &["short.onnx"]);
    refused(&["import", "/nothing/there.onnx", "-o", text(&d.join("g"))], &["/nothing/there.onnx"]);
    refused(&["import", MODEL, "-o", "/nothing/there/g"], &["/nothing/there/g"]);
    refused(&["eval", MODEL, "--data", "/nothing/there.toml"], &["/nothing/there.toml"]);
    refused(&["eval", MODEL, "--data", DATA, "--output", "logit"], &["logit"]);
    refused(&["eval", MODEL, "--data", DATA, "--batch", "0"], &["--batch"]);
    refused(&["eval", MODEL, "--data", DATA, "--device", "gpu:nonesuch"], &["gpu:nonesuch"]);
    refused(&["eval", MODEL, "--data", DATA, "--device", "tpu"], &[]);
    refused(&["eval", MODEL, "--data", DATA, "--limit", "8", "--scorer", "false"], &["false", "failed"]);
    assert!(!d.join("g").exists());
    refused(&["eval", MODEL, "--data", DATA, "--output", "stem.weight"], &["stem.weight", "axis 0"]);
    refused(&["eval", MODEL, "--data", DATA, "--json", "/nothing/there/x.json"], &["/nothing/there"]);
    refused(&["eval", MODEL, "--data", DATA, "--threads", "5000"], &["--threads 5000"]);
    let copy = write(d, "copy.onnx", &std::fs::read(MODEL).expect("reads"));
    refused(&["import", text(&copy), "-o", text(&copy)], &["one of the inputs"]);
    assert_eq!(std::fs::read(&copy).expect("is there"), std::fs::read(MODEL).expect("reads"));
    let empty = d.join("empty");
    std::fs::create_dir(&empty).expect("makes");
    refused(&["eval", MODEL, "--data", text(&empty)], &["empty"]);
    let labels = write(d, "labels.toml", b"[dataset]\nlabels = { npy = \"y.npy\" }\n[[input]]\nname = \"image\"\nimages = \"images\"\ncolor = \"gray\"\n");
    folder_of_images(d, 3);
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval_y.npy"), d.join("y.npy"))
        .expect("copies");
    refused(&["eval", MODEL, "--data", text(&labels)], &["797", "3"]);
}

#[test]
fn a_graph_file_goes_to_standard_output_where_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("g");
    assert_eq!(samebit(&["import", MODEL, "-o", text(&file)]).status.code(), Some(0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_samebit"));
    let o = command.args(["import", MODEL, "-o", "-"]).current_dir(&dir).output().expect("the binary runs");
    assert_eq!(o.status.code(), Some(0), "{}", stderr(&o));
    assert!(o.stdout == std::fs::read(&file).expect("was written"), "not the bytes of the file");
    assert!(stderr(&o).contains("input image: f32[N,1,8,8]"), "{}", stderr(&o));
    assert_eq!(std::fs::read_dir(&dir).expect("lists").count(), 1, "a file was written");
    refused(&["import", MODEL, "-o", "-", "--json", "-"], &["-o -", "--json"]);
}

#[test]
fn what_is_no_onnx_model_is_told_by_what_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let (graph, out) = (dir.path().join("g"), dir.path().join("h"));
    assert_eq!(samebit(&["import", MODEL, "-o", text(&graph)]).status.code(), Some(0));
    refused(&["import", text(&graph), "-o", text(&out)], &["is a safetensors file", "needs no import"]);
    refused(&["import", DATA, "-o", text(&out)], &["eval.toml: not an ONNX model: it is a text file"]);
    assert!(!out.exists());
}

#[test]
fn a_scorer_gets_outputs_and_its_numbers_are_reported() {
    let scorer =
        "sh -c 'test -f \"$0/logits.npy\" && test -f \"$0/index.json\" && echo {\\\"mine\\\": 0.25}'";
    let v = json(0, &["eval", MODEL, "--data", DATA, "--limit", "16", "--scorer", scorer]);
    assert_eq!(v["models"][0]["metrics"]["mine"], 0.25);
}

#[test]
fn a_scorer_that_fails_is_named_first() {
    let o = samebit(&["eval", MODEL, "--data", DATA, "--limit", "4", "--scorer", "exit 3;"]);
    assert!(stderr(&o).contains("error: scorer `exit 3;` failed"), "{}", stderr(&o));
}

/// Identity models, so that what an output looks like is decided by the input.
fn identity(dir: &Path, name: &str, dtype: i64, dims: &[D]) -> PathBuf {
    let model = OnnxGraph::new()
        .input("x", dtype, dims)
        .node("i", "Identity", &["x"], &["y"], &[])
        .output("y")
        .model(13);
    write(dir, name, &model)
}

#[test]
fn a_feature_map_has_no_top1() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    for (name, shape, classes) in [
        ("list", &[7, 4][..], true),
        ("column", &[7, 4, 1, 1], true),
        ("map", &[7, 4, 2], false),
        ("scalar", &[7], false),
    ] {
        let n = shape.iter().product::<usize>();
        write_npy(&d.join("x.npy"), &Tensor::from_f32(shape.to_vec(), (0..n).map(|i| i as f32).collect()))
            .expect("writes");
        write_npy(&d.join("y.npy"), &Tensor::from_i32([7], vec![0; 7])).expect("writes");
        let data =
            write(d, "d.toml", b"[dataset]\nlabels = { npy = \"y.npy\" }\n[[input]]\nnpy = \"x.npy\"\n");
        let dims: Vec<D> =
            std::iter::once(D::Name("N")).chain(shape[1..].iter().map(|s| D::Size(*s as i64))).collect();
        let model = identity(d, "m.onnx", F32, &dims);
        let v = json(0, &["eval", text(&model), "--data", text(&data)]);
        let top1 = &v["models"][0]["metrics"]["top1"];
        assert_eq!(top1.is_number(), classes, "{name}: {v}");
        let warnings = v["models"][0]["warnings"].to_string();
        assert_eq!(warnings.contains("no top-1: output y"), !classes, "{name}: {warnings}");
    }
}

#[test]
fn eval_takes_the_options_of_import() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let model = identity(d, "open.onnx", F32, &[D::Name("N"), D::Name("h"), D::Size(2)]);
    write_npy(&d.join("x.npy"), &Tensor::from_f32([3, 4, 2], vec![0.5; 24])).expect("writes");
    let x = d.join("x.npy");
    refused(&["eval", text(&model), "--data", text(&x)], &["--shape x="]);
    let args = ["eval", text(&model), "--data", text(&x), "--shape", "x=Nx4x2"];
    assert_eq!(json(0, &args)["models"][0]["frames"], 3);
    // Beside ONNX a graph file is taken as it is; alone it cannot be cut.
    let graph = d.join("g.samebit");
    json(0, &["import", text(&model), "-o", text(&graph), "--shape", "x=Nx4x2"]);
    let args = ["--data", text(&x), "--shape", "x=Nx4x2"];
    json(0, &[&["eval", text(&model), text(&graph)][..], &args].concat());
    refused(&[&["eval", text(&graph)][..], &args].concat(), &["graph file"]);
    let cut = ["eval", MODEL, "--data", DATA, "--limit", "3", "--outputs", "/stem/Relu_output_0"];
    refused(&cut, &["/stem/Relu_output_0"]);
}

#[test]
fn run_takes_archives_and_describes_integers() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let model = identity(d, "ints.onnx", I32, &[D::Size(4)]);
    write_npy(&d.join("a.npy"), &Tensor::from_i32([4], vec![3, -2, 7, 0])).expect("writes");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(d.join("x.npz")).expect("creates"));
    for name in ["a", "b"] {
        use std::io::Write;
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("starts");
        zip.write_all(&std::fs::read(d.join("a.npy")).expect("reads")).expect("writes");
    }
    zip.finish().expect("finishes");
    let npz = d.join("x.npz").display().to_string();
    let o = samebit(&["run", text(&model), "--input", &format!("x={npz}:b")]);
    let table = String::from_utf8_lossy(&o.stdout).into_owned();
    let row = table.lines().find(|l| l.contains("i32")).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert!(cells.ends_with(&["-2", "7", "2.000000", "2", "|"]), "{table}{}", stderr(&o));
    refused(&["run", text(&model), "--input", &npz], &["2 arrays", "a, b", ":key"]);
    refused(&["run", text(&model), "--input", &format!("{npz}:c")], &["no array \"c\""]);
}

#[test]
fn only_images_are_said_not_to_be_resized() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    write_npy(&d.join("x.npy"), &Tensor::from_f32([1, 1, 9, 8], vec![0.0; 72])).expect("writes");
    image::GrayImage::new(9, 8).save(d.join("x.png")).expect("saves");
    for (file, resized) in [("x.npy", false), ("x.png", true)] {
        let o = samebit(&["run", MODEL, "--input", text(&d.join(file))]);
        assert_eq!(o.status.code(), Some(2));
        let said = stderr(&o);
        assert!(
            said.contains("does not fit") && said.contains("images are not resized") == resized,
            "{said}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_are_an_error_and_a_closed_pipe_is_not() {
    let run = |out: std::process::Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_samebit"));
        let args = ["eval", MODEL, "--data", DATA, "--limit", "4", "--device", "cpu"];
        let child =
            command.args(args).stdout(out).stderr(std::process::Stdio::piped()).spawn().expect("runs");
        let o = child.wait_with_output().expect("ends");
        (o.status.code(), stderr(&o))
    };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
    let (code, said) = run(full.into());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("error: standard output: "), "{said}");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, said) = run(writer.into());
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("error"), "{said}");
}

#[test]
fn an_error_is_in_the_json_too() {
    let v = json(2, &["eval", MODEL, "--data", "/nothing/there.toml"]);
    assert!(v["error"].as_str().expect("a text").contains("/nothing/there.toml"));
}
