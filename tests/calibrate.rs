//! Calibration through the binary: from statistics that do not depend on how they were collected to a graph that
//! quantizes.

mod support;

use samebit::analysis::statistics::Statistics;
use samebit::data::write_npy;
use samebit::graph::file;
use samebit::graph::sample::Rng;
use samebit::onnx::{self, ImportOptions};
use samebit::ops;
use samebit::passes::config::QuantConfig;
use samebit::passes::prepare::{calibration_graph, prepare};
use samebit::quant::{Origin, Role, State};
use samebit::tensor::Tensor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::binary::{bytes, command, json, refused, text};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

/// Calibrates the digit classifier with a configuration.
fn calibrate(dir: &Path, name: &str, config: &str) -> (PathBuf, Value) {
    let (toml, out) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.g")));
    std::fs::write(&toml, config).expect("writes");
    let v = json(0, &["calibrate", MODEL, "--data", CALIB, "--config", text(&toml), "-o", text(&out)]);
    (out, v)
}

fn top1(models: &[&Path]) -> Vec<f64> {
    let mut args = vec!["eval"];
    args.extend(models.iter().map(|m| text(m)));
    args.extend(["--data", DATA]);
    let v = json(0, &args);
    let all = v["models"].as_array().expect("a list");
    all.iter().map(|m| m["metrics"]["top1"].as_f64().expect("a share")).collect()
}

#[test]
fn a_calibrated_model_keeps_its_accuracy_and_four_bits_do_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let (i8, v) = calibrate(dir.path(), "i8", "");
    assert_eq!((&v["stage"], &v["state"]), (&Value::from("fake-quant"), &Value::from("validation")));
    let quantizers = v["quantizers"].as_array().expect("a list");
    let count = |role: &str| quantizers.iter().filter(|q| q["role"] == role).count();
    assert!(count("input") == 1 && count("weight") >= 3 && count("activation") >= 2, "{quantizers:?}");
    for q in quantizers {
        assert!(q["scale"].as_array().is_some_and(|s| s.iter().all(|s| s.as_f64() > Some(0.0))), "{q}");
        assert_eq!(q["origin"], "observed");
    }
    let (i16, _) =
        calibrate(dir.path(), "i16", "preset = \"all-i16\"\n[[rule]]\nname = \"*\"\nweight = \"i16\"");
    let (i4, _) = calibrate(dir.path(), "i4", "[[rule]]\nname = \"*\"\nactivation = \"i4\"\nweight = \"i4\"");
    let all = top1(&[Path::new(MODEL), &i8, &i16, &i4]);
    assert!((all[1] - all[0]).abs() <= 0.01, "i8: {all:?}");
    assert!((all[2] - all[0]).abs() <= 0.002, "i16: {all:?}");
    assert!(all[0] - all[3] >= 0.01, "i4 activations and weights must cost accuracy: {all:?}");
    let v = json(0, &["eval", MODEL, text(&i8), "--data", DATA, "--limit", "50"]);
    assert_eq!((&v["models"][0]["state"], &v["models"][1]["state"]), (&Value::Null, &"validation".into()));
    assert!(v["models"][1]["agreement"]["logits"]["sqnr_db"].as_f64() < Some(60.0), "it really quantizes");
}

/// `convert` would refuse them, when the data was run.
#[test]
fn types_that_the_target_lacks_are_refused_before_the_data() {
    let dir = tempfile::tempdir().expect("a folder");
    let (config, out) = (dir.path().join("c.toml"), dir.path().join("g"));
    std::fs::write(&config, "preset = \"all-i16\"").expect("writes");
    for level in ["1", "4"] {
        let args = ["calibrate", MODEL, "--config", text(&config), "-o", text(&out), "--consistency", level];
        let pairs = ["--target", "x86-avx2-saturating", "--data", "no data"];
        refused(&[&args[..], &pairs].concat(), &["c.toml", "i16 codes", "x86-avx2-saturating has u8, i8"]);
    }
    let args = ["calibrate", MODEL, "--config", text(&config), "-o", text(&out), "--data", CALIB];
    json(0, &[&args[..], &["--limit", "4", "--target", "tflite-reference"]].concat());
    json(0, &["convert", text(&out), "-o", text(&dir.path().join("q"))]);
}

#[test]
fn the_memory_that_it_took_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let (stats, out) = (dir.path().join("s"), dir.path().join("g"));
    let (stats, out) = (text(&stats), text(&out));
    let of_batch = |n: &str| json(0, &["calibrate", MODEL, "--data", CALIB, "--batch", n, "-o", out]);
    let [one, eight] = ["1", "8"].map(of_batch);
    let arena = |v: &Value| v["arena_bytes"].as_u64().expect("a number");
    assert!(arena(&one) >= 64 * 4, "{one}");
    assert_eq!(arena(&eight), 8 * arena(&one), "tensors of eight frames");
    let shard = ["--shard", "0/2", "--stats", stats, "--batch", "8"];
    let shard = json(0, &[&["calibrate", MODEL, "--data", CALIB][..], &shard].concat());
    assert_eq!(arena(&shard), arena(&eight));
    for v in [&one, &eight, &shard] {
        let told = v["host_bytes"].as_u64();
        assert_eq!(told.is_some(), cfg!(target_os = "linux"), "{v}");
        assert!(told.is_none_or(|bytes| bytes > arena(v) && bytes < 1 << 30), "{v}");
    }
}

#[test]
fn another_observer_needs_no_data() {
    let dir = tempfile::tempdir().expect("a folder");
    let (stats, direct, later) = (dir.path().join("s"), dir.path().join("d.g"), dir.path().join("l.g"));
    let (stats, direct, later) = (text(&stats), text(&direct), text(&later));
    json(0, &["calibrate", MODEL, "--data", CALIB, "--stats", stats, "-o", later]);
    for observer in ["minmax", "percentile=99.9", "mse", "kl", "mix", "clip_std=3", "norm=2,4.5"] {
        json(0, &["calibrate", MODEL, "--data", CALIB, "--observer", observer, "-o", direct]);
        json(0, &["calibrate", MODEL, "--from-stats", stats, "--observer", observer, "-o", later]);
        assert_eq!(bytes(Path::new(direct)), bytes(Path::new(later)), "{observer}");
    }
    refused(
        &["calibrate", MODEL, "--from-stats", stats, "--observer", "best", "-o", later],
        &["best", "minmax"],
    );
    refused(&["calibrate", MODEL, "--from-stats", MODEL, "-o", later], &["digits.onnx"]);
    refused(&["calibrate", MODEL, "--from-stats", stats, "--data", CALIB, "-o", later], &["--data"]);
}

#[test]
fn a_model_in_which_nothing_is_quantized_is_warned_of() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, v) = calibrate(dir.path(), "float", "[[rule]]\nname = \"*\"\nfloat = true");
    let warnings = v["warnings"].as_array().expect("a list");
    assert!(warnings.iter().any(|w| w.as_str().is_some_and(|w| w.contains("nothing is quantized"))), "{v}");
}

#[test]
fn a_range_that_cuts_the_data_is_an_error_of_check() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("cut.toml");
    std::fs::write(&config, "[[rule]]\nname = \"*\"\nrange = [-0.01, 0.01]").expect("writes");
    let v = json(1, &["check", MODEL, "--data", CALIB, "--config", text(&config)]);
    let findings = v["findings"].as_array().expect("a list");
    let cut = |f: &Value| f["rule"] == "fixed-range" && f["severity"] == "error";
    assert!(findings.iter().any(cut), "{findings:?}");
    let rows = |section: &str| v["sections"][section].as_array().expect("a list").clone();
    for row in rows("input_dtypes").iter().chain(&rows("output_dtypes")) {
        assert!(row["operator"].is_string() && row["f32"].is_u64() && row["i16"].is_u64(), "{row}");
    }
    let quantized = rows("outputs").into_iter().filter(|r| r["observer"].is_string()).collect::<Vec<_>>();
    assert!(!quantized.is_empty() && quantized.iter().all(|r| r["scale"].is_f64()), "{quantized:?}");
    for row in rows("weights") {
        let [n, axis, low, high] =
            ["scales", "axis", "least scale", "greatest scale"].map(|k| row[k].as_f64());
        assert!(n > Some(1.0) && axis.is_some() && low > Some(0.0) && high >= low, "{row}");
    }
    assert!(v["dispatches"].is_number() && v["cpu_ops"].is_array(), "{v}");
}

#[test]
fn statistics_do_not_depend_on_batch_shards_or_grouping() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let observe = |name: &str, more: &[&str]| {
        let path = d.join(name);
        let out = d.join("graph.g");
        let mut args = vec!["calibrate", MODEL, "--data", CALIB, "--stats", text(&path)];
        args.extend(more);
        if !more.contains(&"--shard") {
            args.extend(["-o", text(&out)]);
        }
        json(0, &args);
        path
    };
    let want = bytes(&observe("64", &["--batch", "64"]));
    for batch in ["1", "7"] {
        assert_eq!(bytes(&observe(batch, &["--batch", batch])), want, "batch {batch}");
    }
    assert_eq!(bytes(&observe("threads", &["--threads", "1"])), want, "one thread");
    let merge = |parts: &[&Path], name: &str| {
        let out = d.join(name);
        let mut args = vec!["merge"];
        args.extend(parts.iter().map(|p| text(p)));
        args.extend(["-o", text(&out)]);
        let v = json(0, &args);
        (out, v)
    };
    for of in [1usize, 2, 5] {
        let shards: Vec<PathBuf> = (0..of)
            .map(|i| observe(&format!("{i}-{of}"), &["--shard", &format!("{i}/{of}"), "--batch", "5"]))
            .collect();
        let mut order: Vec<&Path> = shards.iter().map(PathBuf::as_path).collect();
        order.reverse();
        let (all, v) = merge(&order, &format!("all-{of}"));
        assert_eq!(v["missing"], serde_json::json!([]));
        let merged = bytes(&all);
        assert_eq!(merged, want, "{of} shards have the bytes of one run");
        order.rotate_left(of / 2);
        assert_eq!(bytes(&merge(&order, "again").0), merged, "{of} shards in another order");
        refused(&["merge", text(&all), "--scorer", "true", "-o", text(&all)], &["statistics", "--scorer"]);
        if of == 5 {
            let (a, _) = merge(&[&shards[3], &shards[1]], "a");
            let (b, _) = merge(&[&shards[4], &shards[0], &shards[2]], "b");
            assert_eq!(bytes(&merge(&[&b, &a], "grouped").0), merged, "grouped");
            refused(&["merge", text(&a), text(&shards[1]), "-o", text(&b)], &["shard 1/5", "already"]);
            let graph = d.join("incomplete.g");
            let args = ["calibrate", MODEL, "--from-stats", text(&a), "-o", text(&graph)];
            refused(&args, &["incomplete", "0/5", "merge"]);
            assert!(!graph.exists());
        }
        let (one, parts) = (d.join("one.g"), d.join("parts.g"));
        json(0, &["calibrate", MODEL, "--from-stats", text(&d.join("64")), "-o", text(&one)]);
        json(0, &["calibrate", MODEL, "--from-stats", text(&all), "-o", text(&parts)]);
        assert_eq!(bytes(&one), bytes(&parts), "{of} shards give the graph of one run");
    }
}

#[test]
fn a_calibration_that_was_killed_goes_on_and_leaves_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let frames = 30_000;
    let mut rng = Rng::new(3);
    let x: Vec<f32> = (0..frames * 64).map(|_| rng.float(0.0, 16.0)).collect();
    write_npy(&d.join("x.npy"), &Tensor::from_f32([frames, 1, 8, 8], x)).expect("writes");
    let data = d.join("x.npy");
    let run = |stats: &Path| {
        let out = d.join("g");
        command(&[
            "calibrate",
            MODEL,
            "--data",
            text(&data),
            "--stats",
            text(stats),
            "--resume",
            "--batch",
            "4",
            "-o",
            text(&out),
        ])
    };
    let (whole, killed) = (d.join("whole"), d.join("killed"));
    assert!(run(&whole).status().expect("runs").success());
    let done = |path: &Path| Statistics::load(path).map_or(0, |s| s.done);
    for _ in 0..2 {
        let before = done(&killed);
        let mut child = run(&killed).spawn().expect("starts");
        let begin = Instant::now();
        while done(&killed) <= before {
            assert!(begin.elapsed() < Duration::from_secs(120), "it saves nothing");
            assert_eq!(child.try_wait().expect("waits"), None, "it ended before it was killed");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
        assert!(done(&killed) < frames, "killed too late");
        refused(&["merge", text(&killed), "-o", text(&d.join("m"))], &["unfinished", "--resume"]);
    }
    assert!(run(&killed).status().expect("runs").success());
    assert_eq!(bytes(&whole), bytes(&killed));
}

#[test]
fn quantizers_that_never_saw_data_are_refused_with_their_list() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("prepared.g");
    let graph = onnx::load_model(Path::new(MODEL), &ImportOptions::default()).expect("loads");
    let float = calibration_graph(graph).expect("float");
    let mut prepared = prepare(&float, &QuantConfig::default()).expect("prepares").graph;
    file::save(&prepared, &path).expect("saves");
    refused(&["eval", text(&path), "--data", DATA], &["/quantizer", "calibration", "samebit calibrate"]);
    let input = dir.path().join("x.npy");
    write_npy(&input, &Tensor::from_f32([1, 1, 8, 8], vec![1.0; 64])).expect("writes");
    refused(
        &["run", text(&path), "--input", &format!("image={}", text(&input))],
        &["/quantizer", "calibration"],
    );
    for i in 0..prepared.nodes().len() {
        if let Some(mut q) = prepared.nodes()[i].quantizer().cloned() {
            q.state = State::Validation;
            prepared.set_op(i, ops::fake_quant(q));
        }
    }
    file::save(&prepared, &path).expect("saves");
    refused(&["eval", text(&path), "--data", DATA], &["never saw data"]);
}

#[test]
fn rules_that_match_nothing_or_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (toml, out) = (dir.path().join("q.toml"), dir.path().join("g"));
    let name = {
        let graph = onnx::load_model(Path::new(MODEL), &ImportOptions::default()).expect("loads");
        graph.nodes()[0].name.clone()
    };
    let near = format!("[[rule]]\nname = \"{name}x\"\nactivation = \"i16\"");
    for (config, parts) in [
        (near.as_str(), vec!["rule 1", "matches nothing", name.as_str()]),
        ("[[rule]]\nop = \"Convs\"\nfloat = true", vec!["matches nothing", "Conv"]),
        ("[[rule]]\nactivation = \"i8\"", vec!["rule 1", "name, op, role"]),
        ("[[rule]]\nop = \"Conv\"", vec!["sets nothing"]),
        ("[[rule]]\nop = \"Conv\"\nactivation = \"i32\"", vec!["i32", "i4, i8, i16"]),
        ("[[rule]]\nop = \"Conv\"\nrange = [1, -1]", vec!["range"]),
        ("presets = \"default\"", vec!["presets"]),
        ("observer = \"best\"", vec!["best", "minmax"]),
        ("target = \"npu\"", vec!["npu", "samebit"]),
        ("consistency = 7", vec!["consistency"]),
        ("[[rule]]\nsensitivity = \"none.json\"\nratio = 0.1\nactivation = \"i16\"", vec!["none.json"]),
    ] {
        std::fs::write(&toml, config).expect("writes");
        refused(&["calibrate", MODEL, "--data", CALIB, "--config", text(&toml), "-o", text(&out)], &parts);
    }
    assert!(!out.exists());
}

#[test]
fn a_nan_stops_calibration_with_the_frame_and_the_node() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut x = vec![1.0f32; 5 * 64];
    x[3 * 64 + 17] = f32::NAN;
    let path = dir.path().join("x.npy");
    write_npy(&path, &Tensor::from_f32([5, 1, 8, 8], x.clone())).expect("writes");
    let out = dir.path().join("g");
    let args = ["calibrate", MODEL, "--data", text(&path), "-o", text(&out)];
    refused(&args, &["frame", "3", "input", "1 NaN"]);
    x[3 * 64 + 17] = 1.0;
    x[2 * 64] = 3e38;
    x[2 * 64 + 1] = -3e38;
    write_npy(&path, &Tensor::from_f32([5, 1, 8, 8], x)).expect("writes");
    refused(&args, &["frame", "2", "Conv", "first"]);
    assert!(!out.exists());
}

#[test]
fn fixed_ranges_and_types_reach_the_quantizers() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, v) = calibrate(
        dir.path(),
        "fixed",
        "consistency = 2\n[[rule]]\nname = \"image\"\nrange = [-16, 16]\n[[rule]]\nop = \"Conv\"\nactivation = \"i16\"\nobserver = \"minmax\"",
    );
    let all = v["quantizers"].as_array().expect("a list");
    let input = all.iter().find(|q| q["role"] == "input").expect("one");
    assert_eq!((&input["origin"], &input["scale"]), (&"fixed".into(), &serde_json::json!([0.125])));
    for q in all.iter().filter(|q| q["role"] == "activation" && q["dtype"] == "i16") {
        assert_eq!(q["observer"], "minmax");
        let scale = q["scale"][0].as_f64().expect("a number");
        assert_eq!(scale.log2().fract(), 0.0, "level 2 has powers of two: {q}");
    }
    assert!(all.iter().any(|q| q["dtype"] == "i16"));
}

#[test]
fn a_model_with_quantizers_keeps_its_scales_and_observes_what_is_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, before) = calibrate(dir.path(), "full", "");
    let scales = |v: &Value| -> Vec<(String, Value, Value)> {
        let all = v["quantizers"].as_array().expect("a list").iter();
        all.map(|q| (q["name"].as_str().expect("a name").to_owned(), q["scale"].clone(), q["origin"].clone()))
            .collect()
    };
    let mut g = onnx::load_model(&path, &ImportOptions::default()).expect("loads");
    let missing =
        g.nodes().iter().position(|n| n.quantizer().is_some_and(|q| q.spec.role == Role::Activation));
    let missing = missing.expect("one");
    let name = g.nodes()[missing].name.clone();
    for i in 0..g.nodes().len() {
        if let Some(mut q) = g.nodes()[i].quantizer().cloned() {
            if i == missing {
                (q.params, q.origin, q.state) = (None, Origin::None, State::Calibration);
            } else {
                q.origin = Origin::Imported;
            }
            g.set_op(i, ops::fake_quant(q));
        }
    }
    let (partly, out) = (dir.path().join("partly.g"), dir.path().join("out.g"));
    file::save(&g, &partly).expect("saves");
    refused(&["eval", text(&partly), "--data", DATA], &[&name, "calibration"]);
    let after = json(0, &["calibrate", text(&partly), "--data", CALIB, "-o", text(&out)]);
    for (old, new) in scales(&before).into_iter().zip(scales(&after)) {
        if new.0 == name {
            assert_eq!(new.2, "observed");
            // What comes before it is quantized now, so the range is near the one of the float model.
            let (a, b) = (old.1[0].as_f64().expect("a scale"), new.1[0].as_f64().expect("a scale"));
            assert!((a / b - 1.0).abs() < 0.1, "{a} {b}");
        } else {
            assert_eq!((old.0, old.1, "imported".into()), new);
        }
    }
    json(0, &["eval", text(&out), "--data", DATA, "--limit", "10"]);
    let toml = dir.path().join("full.toml");
    refused(
        &["calibrate", text(&partly), "--data", CALIB, "--config", text(&toml), "-o", text(&out)],
        &["has quantizers already"],
    );
}

#[test]
fn a_moving_average_follows_the_frames_in_order_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let data = |name: &str, highs: &[f32]| {
        let frame = |h: &f32| std::iter::once(*h).chain([0.0; 63]).collect::<Vec<f32>>();
        let x = Tensor::from_f32([highs.len(), 1, 8, 8], highs.iter().flat_map(frame).collect());
        write_npy(&d.join(name), &x).expect("writes");
        d.join(name)
    };
    let (up, down) = (data("up.npy", &[1.0, 2.0, 4.0]), data("down.npy", &[4.0, 2.0, 1.0]));
    let (out, toml) = (d.join("g"), d.join("q.toml"));
    std::fs::write(&toml, "observer = { moving_average = 0.5 }").expect("writes");
    let scale = |data: &Path, more: &[&str]| -> f64 {
        let args = ["calibrate", MODEL, "--data", text(data), "-o", text(&out)];
        let v = json(0, &[&args, more].concat());
        let all = v["quantizers"].as_array().expect("a list");
        let input = all.iter().find(|q| q["role"] == "input").expect("one");
        assert_eq!(input["observer"].as_str().map(|o| o.starts_with("moving_average")), Some(true));
        input["scale"][0].as_f64().expect("a scale")
    };
    let of = |high: f64| f64::from((high / 127.5) as f32);
    let moving = ["--observer", "moving_average=0.5"];
    // 1, 1.5, 2.75 whatever runs together; 2, 3 by twos; 4, 3, 2.
    assert_eq!(scale(&up, &moving), of(2.75));
    assert_eq!(scale(&up, &["--config", text(&toml)]), of(2.75));
    assert_eq!(scale(&up, &[&moving[..], &["--batch", "2"]].concat()), of(3.0));
    assert_eq!(scale(&down, &moving), of(2.0));
    assert_eq!(scale(&up, &["--observer", "moving_average"]), of(f64::from(1.01f32 + 0.01 * (4.0 - 1.01))));
    let stats = d.join("s");
    json(0, &["calibrate", MODEL, "--data", text(&up), "--stats", text(&stats), "-o", text(&out)]);
    let base = ["calibrate", MODEL, "--observer", "moving_average"];
    let (up, stats, shard, out) = (text(&up), text(&stats), d.join("p"), text(&out));
    for more in [
        &["--from-stats", stats, "-o", out][..],
        &["--data", up, "--stats", stats, "--resume", "-o", out],
        &["--data", up, "--stats", text(&shard), "--shard", "0/2"],
    ] {
        refused(
            &[&base, more].concat(),
            &["a moving average depends on the order of the frames", "take minmax"],
        );
    }
    refused(
        &["calibrate", MODEL, "--data", up, "--observer", "moving_average=0", "-o", out],
        &["moving_average[=C]"],
    );
}
