//! Evaluation in shards, through the binary: joined in any order they give the figures of one run, and a run that was
//! killed goes on.

mod support;

use samebit::data::write_npy;
use samebit::tensor::Tensor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::binary::{bytes, command, json, refused, text};
use support::onnx::{D, F32, Graph as OnnxGraph, i64s};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

/// Numbers that depend on every byte that a scorer gets.
#[cfg(unix)]
const SCORER: &str = r#"sh -c 'printf "{\"logits\": %s, \"index\": %s}" $(cksum <"$0/logits.npy" | cut -d" " -f1) $(cksum <"$0/index.json" | cut -d" " -f1)'"#;

/// The digit classifier with one weight changed.
fn other_model(dir: &Path) -> PathBuf {
    let mut model = bytes(Path::new(MODEL));
    let middle = model.len() / 2;
    model[middle] ^= 0x10;
    let path = dir.join("other.onnx");
    std::fs::write(&path, model).expect("writes");
    path
}

/// What must be the same however the data set was divided.
fn figures(v: &Value) -> Vec<[Value; 3]> {
    let models = v["models"].as_array().expect("a list");
    models.iter().map(|m| ["frames", "metrics", "agreement"].map(|k| m[k].clone())).collect()
}

/// Runs all shards, each with its own batch.
fn shards(dir: &Path, of: usize, eval: &[&str]) -> Vec<PathBuf> {
    let run = |i: usize| {
        let path = dir.join(format!("{i}-of-{of}.part"));
        let (shard, batch) = (format!("{i}/{of}"), (7 + 11 * i).to_string());
        let part = ["--shard", &shard, "--partial", text(&path), "--batch", &batch];
        json(0, &[eval, &part].concat());
        path
    };
    (0..of).map(run).collect()
}

#[cfg(unix)]
#[test]
fn shards_joined_in_any_order_and_grouping_give_the_figures_of_one_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let other = other_model(d);
    let eval = ["eval", MODEL, text(&other), "--data", DATA, "--limit", "203", "--scorer", SCORER];
    let want = json(0, &eval);
    let agreement = &want["models"][1]["agreement"]["logits"];
    assert!(agreement["sqnr_db"].is_f64() && agreement["max_abs"].as_f64() > Some(0.0), "{agreement}");
    let want = figures(&want);
    let (a, b, c) = (d.join("a"), d.join("b"), d.join("c"));
    let merge = |parts: &[&Path], out: &Path| {
        let parts: Vec<&str> = parts.iter().map(|p| text(p)).collect();
        json(0, &[&["merge"][..], &parts, &["-o", text(out)]].concat())
    };
    for of in [1, 2, 5] {
        let parts = shards(d, of, &eval);
        let all: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
        let reversed: Vec<&Path> = all.iter().rev().copied().collect();
        let v = merge(&all, &a);
        assert_eq!(figures(&v), want, "{of} shards");
        assert_eq!((v["frames"].as_u64(), v["shards"].as_array().map(Vec::len)), (Some(203), Some(of)));
        assert_eq!(figures(&merge(&reversed, &b)), want, "{of} shards reversed");
        assert_eq!(bytes(&a), bytes(&b));
        if let [p0, p1, p2, p3, p4] = all[..] {
            let v = merge(&[p3, p1], &b);
            assert_eq!(
                (&v["missing"], &v["models"]),
                (&serde_json::json!([0, 2, 4]), &serde_json::json!([]))
            );
            merge(&[p4, p0], &c);
            assert_eq!(figures(&merge(&[&c, p2, &b], &b)), want);
            assert_eq!(bytes(&a), bytes(&b));
        }
    }
    let whole = d.join("whole");
    let v = json(0, &[&eval[..], &["--partial", text(&whole)]].concat());
    assert_eq!(figures(&v), want);
    assert_eq!(figures(&json(0, &[&eval[..], &["--partial", text(&whole), "--resume"]].concat())), want);
}

#[test]
fn skipped_samples_and_empty_shards_are_joined_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    for i in 0..5 {
        let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y) as u8 + i as u8]));
        image.save(d.join(format!("{i}.png"))).expect("saves");
    }
    std::fs::write(d.join("1b.png"), "no image").expect("writes");
    std::fs::write(d.join("4b.png"), "no image").expect("writes");
    let data = d.join("data.toml");
    std::fs::write(
        &data,
        "[[input]]\nname = \"image\"\nimages = \".\"\ncolor = \"gray\"\nsteps = [ { scale = 0.0625 } ]\n",
    )
    .expect("writes");
    let other = other_model(d);
    let eval = ["eval", MODEL, text(&other), "--data", text(&data)];
    let want = json(1, &eval);
    // Shard 2 of 9 holds only a sample that cannot be read, the last two hold none.
    let parts: Vec<PathBuf> = (0..9).map(|i| d.join(format!("{i}.part"))).collect();
    for (i, part) in parts.iter().enumerate() {
        let shard = format!("{i}/9");
        let code = i32::from(i == 2 || i == 6);
        json(code, &[&eval[..], &["--shard", &shard, "--partial", text(part)]].concat());
    }
    let out = d.join("all");
    let parts: Vec<&str> = parts.iter().rev().map(|p| text(p)).collect();
    let args = [&["merge"][..], &parts, &["-o", text(&out)]].concat();
    let v = json(1, &args);
    assert_eq!(figures(&v), figures(&want));
    assert_eq!(v["skipped"], want["skipped"]);
    assert_eq!(v["skipped"].as_array().map(Vec::len), Some(2));
    json(0, &[&args[..], &["--allow-skips"]].concat());
}

/// An array of images of the digit classifier.
fn images(path: &Path, frames: usize, of: impl Fn(usize) -> f32) {
    let values = (0..frames * 64).map(of).collect();
    write_npy(path, &Tensor::from_f32([frames, 1, 8, 8], values)).expect("writes");
}

#[test]
fn other_contents_under_the_same_name_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    for (folder, other) in [("a", false), ("b", true)] {
        std::fs::create_dir_all(d.join(folder).join("i")).expect("makes");
        images(&d.join(folder).join("x.npy"), 10, |i| (i % 17) as f32 + f32::from(other && i == 333));
        for i in 0..4u8 {
            let shade =
                |x: u32, y: u32| image::Luma([if other { ((x * 31) ^ (y * 17)) as u8 ^ i } else { i }]);
            let image = image::GrayImage::from_fn(8, 8, shade);
            image.save(d.join(folder).join(format!("i/{i}.png"))).expect("saves");
        }
        let toml =
            "[[input]]\nname = \"image\"\nimages = \"i\"\ncolor = \"gray\"\nsteps = [ { scale = 0.0625 } ]\n";
        std::fs::write(d.join(folder).join("i.toml"), toml).expect("writes");
        archive(&d.join(folder).join("z.npz"), &bytes(&d.join(folder).join("x.npy")));
    }
    for data in ["x.npy", "z.npz", "i.toml"] {
        let (p0, p1) = (d.join(format!("{data}.0")), d.join(format!("{data}.1")));
        let (a, b) = (d.join("a").join(data), d.join("b").join(data));
        let part = |data: &Path, shard: &'static str, path: &Path| -> Vec<String> {
            let args = ["eval", MODEL, "--data", text(data), "--shard", shard, "--partial", text(path)];
            args.iter().map(ToString::to_string).collect()
        };
        let run = |args: &[String]| json(0, &args.iter().map(String::as_str).collect::<Vec<_>>());
        run(&part(&a, "0/2", &p0));
        run(&part(&b, "1/2", &p1));
        let out = d.join("out");
        refused(&["merge", text(&p0), text(&p1), "-o", text(&out)], &["other contents"]);
        let mut resumed = part(&b, "0/2", &p0);
        resumed.push("--resume".to_owned());
        refused(&resumed.iter().map(String::as_str).collect::<Vec<_>>(), &["other contents"]);
        let p1 = d.join(format!("{data}.1a"));
        run(&part(&a, "1/2", &p1));
        json(0, &["merge", text(&p0), text(&p1), "-o", text(&out)]);
    }
}

fn archive(path: &Path, array: &[u8]) {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).expect("creates"));
    zip.start_file("x.npy", zip::write::SimpleFileOptions::default()).expect("starts");
    zip.write_all(array).expect("writes");
    zip.finish().expect("finishes");
}

#[test]
fn the_number_of_threads_makes_no_other_device() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let parts: Vec<PathBuf> = ["1", "2"].iter().map(|n| d.join(n)).collect();
    for (i, path) in parts.iter().enumerate() {
        let (shard, threads) = (format!("{i}/2"), (i + 1).to_string());
        let args = ["--shard", &shard, "--threads", &threads, "--partial", text(path)];
        json(0, &[&["eval", MODEL, "--data", DATA, "--limit", "20"][..], &args].concat());
    }
    let v = json(0, &["merge", text(&parts[0]), text(&parts[1]), "-o", text(&d.join("out"))]);
    assert_eq!(v["devices"], serde_json::json!(["cpu"]));
    let other = d.join("other");
    let args = ["--shard", "0/2", "--threads", "2", "--partial", text(&other)];
    json(0, &[&["eval", MODEL, "--data", DATA, "--limit", "20"][..], &args].concat());
    assert_eq!(bytes(&parts[0]), bytes(&other));
}

#[cfg(unix)]
#[test]
fn a_scorer_may_be_mended_but_not_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let (p0, p1, out) = (d.join("p0"), d.join("p1"), d.join("out"));
    let eval = ["eval", MODEL, "--data", DATA, "--limit", "20"];
    let with = |path: &Path, shard: &str, more: &[&str]| -> Vec<String> {
        let part = ["--shard", shard, "--partial", text(path)];
        [&eval[..], &part, more].concat().iter().map(ToString::to_string).collect()
    };
    let run = |code: i32, args: &[String]| json(code, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let refuse = |args: &[String], say: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), say);
    };
    let want = json(0, &[&eval[..], &["--scorer", SCORER]].concat());
    let whole = d.join("whole");
    refuse(&with(&whole, "0/1", &["--scorer", "false"]), &["false"]);
    let v = run(0, &with(&whole, "0/1", &["--scorer", SCORER, "--resume"]));
    assert_eq!(figures(&v), figures(&want));
    refuse(&with(&whole, "0/1", &["--resume"]), &["another evaluation", "--scorer CMD"]);
    run(0, &with(&p0, "0/2", &["--scorer", "false"]));
    run(0, &with(&p1, "1/2", &["--scorer", SCORER]));
    let merge = ["merge", text(&p1), text(&p0), "-o", text(&out)];
    refused(&merge, &["false"]);
    let v = json(0, &[&merge[..], &["--scorer", SCORER]].concat());
    assert_eq!(figures(&v), figures(&want));
    let plain = d.join("plain");
    run(0, &with(&plain, "0/1", &[]));
    refused(&["merge", text(&plain), "-o", text(&out), "--scorer", SCORER], &["no outputs"]);
}

#[test]
fn merge_says_what_eval_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    // A feature map has no classes.
    let graph = samebit::onnx::load_model(Path::new(MODEL), &samebit::onnx::ImportOptions::default());
    let graph = graph.expect("loads");
    let map = graph.value(graph.nodes()[0].outputs[0]).name.clone();
    let eval = ["eval", MODEL, "--data", DATA, "--limit", "20", "--output", &map];
    let want = json(0, &eval);
    assert!(want["models"][0]["warnings"][0].as_str().is_some_and(|w| w.contains("no top-1")), "{want}");
    let parts = shards(d, 2, &eval);
    let v = json(0, &["merge", text(&parts[1]), text(&parts[0]), "-o", text(&d.join("out"))]);
    for key in ["dispatches", "cpu_ops"] {
        assert_eq!(v[key], want[key], "{key}");
    }
    assert_eq!(v["models"][0]["warnings"], want["models"][0]["warnings"]);
}

#[test]
fn a_label_that_is_no_class_is_met_before_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    images(&d.join("x.npy"), 50, |i| (i % 17) as f32);
    let label = |last: i32| (0..50).map(|i| if i == 49 { last } else { i % 10 }).collect::<Vec<_>>();
    let set = d.join("set.toml");
    std::fs::write(
        &set,
        "[dataset]\nlabels = { npy = \"y.npy\" }\n[[input]]\nname = \"image\"\nnpy = \"x.npy\"\n",
    )
    .expect("writes");
    let part = d.join("part");
    let args = ["eval", MODEL, "--data", text(&set), "--partial", text(&part), "--batch", "4"];
    for last in [10, -1] {
        write_npy(&d.join("y.npy"), &Tensor::from_i32([50], label(last))).expect("writes");
        refused(&args, &["sample 49", &format!("label {last}"), "10 classes"]);
        assert!(!part.exists(), "a file that could never be finished");
    }
    write_npy(&d.join("y.npy"), &Tensor::from_i32([50], label(9))).expect("writes");
    json(0, &args);
}

#[cfg(unix)]
#[test]
fn outputs_without_elements_are_kept_and_scored() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let model = d.join("m.onnx");
    let onnx = OnnxGraph::new()
        .input("image", F32, &[D::Name("N"), D::Size(1), D::Size(8), D::Size(8)])
        .init(i64s("zero", &[1], &[0]))
        .init(i64s("two", &[1], &[2]))
        .node("s", "Slice", &["image", "zero", "zero", "two"], &["none"], &[])
        .node("r", "Relu", &["image"], &["some"], &[])
        .output("none")
        .output("some")
        .model(13);
    std::fs::write(&model, onnx).expect("writes");
    let scorer = r#"sh -c 'printf "{\"n\": %s, \"s\": %s}" $(cksum <"$0/none.npy" | cut -d" " -f1) $(cksum <"$0/some.npy" | cut -d" " -f1)'"#;
    let eval = ["eval", text(&model), "--data", DATA, "--limit", "20", "--scorer", scorer];
    let want = figures(&json(0, &eval));
    let parts = shards(d, 2, &eval);
    let v = json(0, &["merge", text(&parts[1]), text(&parts[0]), "-o", text(&d.join("out"))]);
    assert_eq!(figures(&v), want);
    let part = ["--partial", text(&d.join("whole"))].map(str::to_owned);
    let whole: Vec<&str> = eval.iter().copied().chain(part.iter().map(String::as_str)).collect();
    assert_eq!(figures(&json(0, &whole)), want);
}

#[test]
fn a_damaged_partial_is_refused_whichever_bit_is_flipped() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let (part, bad, out) = (d.join("part"), d.join("bad"), d.join("out"));
    let other = other_model(d);
    json(0, &["eval", MODEL, text(&other), "--data", DATA, "--limit", "20", "--partial", text(&part)]);
    let good = bytes(&part);
    json(0, &["merge", text(&part), "-o", text(&out)]);
    for i in 0..60 {
        let mut bytes = good.clone();
        let at = i * (good.len() - 1) / 59;
        bytes[at] ^= 1 << (i % 8);
        std::fs::write(&bad, bytes).expect("writes");
        refused(&["merge", text(&bad), "-o", text(&out)], &["bad"]);
    }
}

/// A data set that takes some seconds.
fn long(dir: &Path, frames: usize) -> PathBuf {
    images(&dir.join("x.npy"), frames, |i| ((i * 37 + i / 64 * 11) % 17) as f32 / 16.0);
    dir.join("x.npy")
}

fn start(args: &[&str]) -> Child {
    command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs")
}

#[test]
fn a_run_that_was_killed_goes_on_and_leaves_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let other = other_model(d);
    let data = long(d, 30_000);
    let (whole, killed) = (d.join("whole"), d.join("killed"));
    let eval = ["eval", MODEL, text(&other), "--data", text(&data), "--shard", "1/2", "--threads", "1"];
    let args = [&eval[..], &["--partial", text(&killed), "--batch", "1", "--resume"]].concat();
    for _ in 0..2 {
        let before = std::fs::metadata(&killed).map_or(0, |m| m.len());
        let mut child = start(&args);
        // Until it has saved more than it found, twice: the first save of a new file has no rows.
        let begin = Instant::now();
        let mut sizes = vec![before];
        while sizes.len() < 3 {
            assert!(begin.elapsed() < Duration::from_secs(120), "it saves nothing: {sizes:?}");
            assert_eq!(child.try_wait().expect("waits"), None, "it ended before it was killed: {sizes:?}");
            let size = std::fs::metadata(&killed).map_or(0, |m| m.len());
            if size > sizes[sizes.len() - 1] {
                sizes.push(size);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("kills");
        child.wait().expect("waits");
        refused(&["merge", text(&killed), "-o", text(&d.join("m"))], &["unfinished", "15000", "--resume"]);
    }
    let v = json(0, &[&eval[..], &["--partial", text(&killed), "--resume"]].concat());
    assert_eq!(v["models"][1]["frames"], 15_000);
    let w = json(0, &[&eval[..], &["--partial", text(&whole), "--batch", "13"]].concat());
    assert_eq!(figures(&v), figures(&w));
    assert!(bytes(&killed) == bytes(&whole), "the files differ");
    let left: Vec<_> = std::fs::read_dir(d).expect("lists").flatten().map(|e| e.file_name()).collect();
    assert!(left.len() <= 4 + 2, "{left:?}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let other = other_model(d);
    let (p0, p1, out) = (d.join("p0"), d.join("p1"), d.join("out"));
    let eval = |model: &'static str| vec!["eval", model, "--data", DATA, "--limit", "20"];
    let with = |more: &[&'static str], path: &Path, args: &dyn Fn(&[&str])| {
        args(&[&eval(MODEL)[..], more, &["--partial", text(path)]].concat());
    };
    with(&["--shard", "0/2"], &p0, &|a| drop(json(0, a)));
    with(&["--shard", "1/2"], &p1, &|a| drop(json(0, a)));
    let p0_bytes = bytes(&p0);
    // The options.
    with(&["--shard", "2/2"], &out, &|a| refused(a, &["2/2", "count from 0"]));
    with(&["--shard", "two"], &out, &|a| refused(a, &["I/N"]));
    refused(&[&eval(MODEL)[..], &["--shard", "0/2"]].concat(), &["--partial"]);
    refused(&[&eval(MODEL)[..], &["--resume"]].concat(), &["--partial"]);
    with(&[], Path::new("/nothing/there"), &|a| refused(a, &["/nothing/there"]));
    // A file that is there.
    with(&["--shard", "0/2"], &p0, &|a| refused(a, &["p0", "there already", "--resume"]));
    with(&["--shard", "1/2", "--resume"], &p0, &|a| refused(a, &["p0", "shard 0 of 2", "1/2"]));
    with(&["--shard", "0/2", "--output", "logits", "--resume"], &p0, &|a| {
        refused(a, &["p0", "no option", "--output logits"]);
    });
    let args =
        ["eval", text(&other), "--data", DATA, "--limit", "20", "--shard", "0/2", "--partial", text(&p0)];
    refused(&[&args[..], &["--resume"]].concat(), &["p0", "another evaluation", "model 1"]);
    let args = ["eval", MODEL, "--data", DATA, "--limit", "21", "--shard", "0/2", "--partial", text(&p0)];
    refused(&[&args[..], &["--resume"]].concat(), &["p0", "20 samples, here are 21"]);
    // What is joined.
    let merge = |parts: &[&Path], say: &[&str]| {
        let parts: Vec<&str> = parts.iter().map(|p| text(p)).collect();
        refused(&[&["merge"][..], &parts, &["-o", text(&out)]].concat(), say);
    };
    merge(&[&p0, &p1, &p0], &["p0", "shard 0/2 is there already"]);
    let foreign = d.join("foreign");
    let args = ["--data", DATA, "--limit", "20", "--shard", "1/2", "--partial", text(&foreign)];
    json(0, &[&["eval", text(&other)][..], &args].concat());
    merge(&[&p0, &foreign], &["foreign", "p0", "model 1 is another"]);
    std::fs::remove_file(&foreign).expect("removes");
    with(&["--shard", "1/3"], &foreign, &|a| drop(json(0, a)));
    merge(&[&p0, &foreign], &["3 shards here, in 2"]);
    let cut = d.join("cut");
    std::fs::write(&cut, &p0_bytes[..p0_bytes.len() - 5]).expect("writes");
    merge(&[&cut], &["cut", "damaged"]);
    merge(&[Path::new(MODEL)], &["digits.onnx", "not a partial result"]);
    merge(&[Path::new("/nothing/there")], &["/nothing/there"]);
    assert!(!out.exists());
    assert_eq!(bytes(&p0), p0_bytes);
    // A data set whose samples have other names, and one that is prepared otherwise.
    for (toml, say) in [("start = 1", "names or labels"), ("", "prepared in another way")] {
        let assets = Path::new(DATA).parent().expect("a folder").display().to_string();
        let scale = if toml.is_empty() { "0.5" } else { "0.0625" };
        let set = d.join("set.toml");
        let body = format!(
            "[dataset]\nlabels = {{ npy = \"{assets}/eval_y.npy\" }}\n{toml}\n[[input]]\nname = \"image\"\nnpy = \"{assets}/eval_x.npy\"\nsteps = [ {{ scale = {scale} }} ]\n"
        );
        std::fs::write(&set, body).expect("writes");
        let args =
            ["eval", MODEL, "--data", text(&set), "--limit", "20", "--shard", "0/2", "--partial", text(&p0)];
        refused(&[&args[..], &["--resume"]].concat(), &["p0", say]);
    }
}
