//! `compile` through the binary: a deployment file computes what the graph on codes computes, is small, and knows when it
//! was damaged.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, write_npy};
use samebit::exec::{Engine, Plan, compile};
use samebit::gpu::{Device, Limits};
use samebit::graph::sample::Rng;
use samebit::graph::{Graph, Placed, Stage, ValueId, file};
use samebit::onnx::ImportOptions;
use samebit::ops::by_name;
use samebit::tensor::{DType, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::binary::{bytes, json, refused, text};
use support::{gpu, trial};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const CALIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/calib.toml");
const EVAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

fn main() {
    let trials = vec![
        trial("a_deployment_file_is_the_model", false, a_deployment_file_is_the_model),
        trial("both_devices_run_it_alike", gpu().is_none(), both_devices_run_it_alike),
        trial("every_flipped_bit_is_noticed", false, every_flipped_bit_is_noticed),
        trial("foreign_and_newer_files_are_refused", false, foreign_and_newer_files_are_refused),
        trial("codes_of_four_bits_take_half_a_byte", false, codes_of_four_bits_take_half_a_byte),
        trial("codes_go_in_and_come_out", false, codes_go_in_and_come_out),
        trial("memory_lies_as_it_was_chosen_where_that_holds", false, memory_lies_as_it_was_chosen),
        trial(
            "prepared_inputs_are_what_the_model_quantizes",
            false,
            prepared_inputs_are_what_the_model_quantizes,
        ),
        trial("other_stages_are_refused", false, other_stages_are_refused),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn load(path: &Path) -> Graph {
    samebit::model::load(path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// The bundled model: calibrated, converted, compiled.
fn artefacts(dir: &Path, config: &str) -> [PathBuf; 3] {
    let all = ["g", "q", "bin"].map(|name| dir.join(name));
    let toml = dir.join("config.toml");
    std::fs::write(&toml, config).expect("writes");
    let (g, q) = (text(&all[0]), text(&all[1]));
    json(0, &["calibrate", MODEL, "--data", CALIB, "--limit", "8", "--config", text(&toml), "-o", g]);
    json(0, &["convert", g, "-o", q]);
    all
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).expect("is there").len()
}

fn a_deployment_file_is_the_model() {
    for preset in ["default", "all-i8", "all-i16"] {
        let dir = tempfile::tempdir().expect("a folder");
        let [_, q, bin] = artefacts(dir.path(), &format!("preset = \"{preset}\""));
        let v = json(0, &["compile", text(&q), "-o", text(&bin)]);
        assert_eq!(v["bytes"], size(&bin), "{preset}: {v}");
        let weights = v["weight_bytes"].as_u64().expect("a number");
        assert!(weights > 1000 && size(&bin) <= weights + (16 << 10), "{preset}: {v}");
        assert!(size(&bin) < size(&q), "{preset}: {} {}", size(&bin), size(&q));
        assert!(v["arena_bytes"].as_u64() > Some(0), "{preset}: {v}");
        assert!(v["kernels"].as_array().is_some_and(|k| k.len() > 5), "{preset}: {v}");
        let v = json(0, &["verify", text(&q), text(&bin), "--data", EVAL, "--limit", "16"]);
        assert!(v["consistent"] == true && v["compared_elements"].as_u64() > Some(50_000), "{preset}: {v}");
        let v = json(0, &["eval", text(&q), text(&bin), "--data", EVAL]);
        assert_eq!(v["models"][0]["metrics"], v["models"][1]["metrics"], "{preset}");
        assert_eq!(v["models"][1]["stage"], "compiled");
        for (name, agreement) in v["models"][1]["agreement"].as_object().expect("outputs") {
            assert_eq!(agreement["max_abs"], 0.0, "{preset}: {name}");
        }
        // Reading and writing again gives the same bytes.
        let again = dir.path().join("again");
        file::save(&load(&bin), &again).expect("saves");
        assert_eq!(bytes(&again), bytes(&bin), "{preset}");
    }
}

fn both_devices_run_it_alike() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, bin] = artefacts(dir.path(), "");
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    let graph = load(&bin);
    let device = Device::Gpu(gpu().expect("checked in main"));
    let mut rng = Rng::new(5);
    for frames in [1, 3] {
        let shape = graph.at_batch(frames).expect("holds").value(graph.inputs[0]).ty.dims().expect("fixed");
        let x = (0..shape.iter().product()).map(|_| rng.float(-1.0, 1.0)).collect();
        let x = Tensor::from_f32(shape, x);
        // What a softmax gives is not the same to the bit; what lies before it is.
        let taps: Vec<ValueId> =
            graph.code_params().into_keys().filter(|v| !graph.inputs.contains(v)).collect();
        for taps in [Vec::new(), taps] {
            let run = |d: &Device| {
                Engine::new(graph.clone(), d).run(std::slice::from_ref(&x), &taps).expect("runs")
            };
            let (cpu, gpu) = (run(&Device::Cpu), run(&device));
            assert_eq!(gpu.cpu_ops, [], "{frames}");
            for v in &taps {
                assert_eq!(cpu.values[v], gpu.values[v], "{frames}: {}", graph.value(*v).name);
            }
            for v in &graph.outputs {
                let pairs = cpu.values[v].f32s().iter().zip(gpu.values[v].f32s());
                pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{frames}: {a} {b}"));
            }
        }
    }
}

fn every_flipped_bit_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, bin] = artefacts(dir.path(), "");
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    let good = bytes(&bin);
    file::from_bytes(&good, by_name).expect("whole");
    let mut rng = Rng::new(11);
    // Every byte up to where the weights are, then one in eight.
    let header = 8 + u64::from_le_bytes(*good.first_chunk().expect("a length"));
    for at in 0..good.len() {
        if at as u64 > header && rng.int(0, 7) > 0 {
            continue;
        }
        let mut bad = good.clone();
        bad[at] ^= 1 << rng.int(0, 7);
        assert!(file::from_bytes(&bad, by_name).is_err(), "byte {at} of {}", good.len());
    }
    for len in (0..good.len()).step_by(97) {
        assert!(file::from_bytes(&good[..len], by_name).is_err(), "{len} of {} bytes", good.len());
    }
    // The same through the binary.
    let mut bad = good;
    let last = bad.len() - 1;
    bad[last] ^= 1;
    std::fs::write(&bin, bad).expect("writes");
    for command in [
        &["print", text(&bin)][..],
        &["eval", text(&bin), "--data", EVAL],
        &["verify", text(&q), text(&bin), "--random", "1"],
    ] {
        refused(command, &["damaged"]);
    }
}

fn foreign_and_newer_files_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, bin] = artefacts(dir.path(), "");
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    let changed = |from: &str, to: &str| {
        let data = bytes(&bin);
        let at = data.windows(from.len()).position(|w| w == from.as_bytes()).expect("is there");
        let mut data = data;
        data[at..at + from.len()].copy_from_slice(to.as_bytes());
        let path = dir.path().join("changed");
        std::fs::write(&path, data).expect("writes");
        path
    };
    refused(
        &["print", text(&changed("\"compiled\":\"1\"", "\"compiled\":\"2\""))],
        &["version \"2\"", "newer"],
    );
    refused(&["print", text(&changed("\"samebit\":\"1\"", "\"samebit\":\"7\""))], &["version \"7\""]);
    refused(&["print", text(&changed("\"samebit\"", "\"tamebit\""))], &["no entry \"samebit\""]);
    refused(&["print", text(&changed("\"digest\"", "\"digits\""))], &["no entry \"digest\""]);
}

fn codes_of_four_bits_take_half_a_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, bin] = artefacts(dir.path(), "[[rule]]\nname = \"*\"\nweight = \"i4\"\n");
    let (of_q, of_bin) = {
        let v = json(0, &["compile", text(&q), "-o", text(&bin)]);
        (load(&q), v["weight_bytes"].as_u64().expect("a number"))
    };
    let of = |dtype: DType| -> usize {
        let constants = of_q.values().iter().filter_map(|v| v.constant.as_ref());
        constants.filter(|t| t.dtype() == dtype).map(Tensor::len).sum()
    };
    assert!(of(DType::I4) > 1000, "{} codes of 4 bits", of(DType::I4));
    let halves: usize = of_q
        .values()
        .iter()
        .filter_map(|v| v.constant.as_ref())
        .filter(|t| t.dtype() == DType::I4)
        .map(|t| t.len().div_ceil(2))
        .sum();
    assert_eq!(of_bin, (halves + 4 * of(DType::I32)) as u64);
    let v = json(0, &["verify", text(&q), text(&bin), "--data", EVAL, "--limit", "4"]);
    assert_eq!(v["consistent"], true, "{v}");
    let constants = |g: &Graph| g.values().iter().filter_map(|v| v.constant.clone()).collect::<Vec<_>>();
    assert_eq!(constants(&load(&bin)), constants(&of_q));
}

fn codes_go_in_and_come_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, bin] = artefacts(dir.path(), "preset = \"all-i8\"");
    let graph = load(&q);
    let v = json(0, &["compile", text(&q), "--io", "codes", "-o", text(&bin)]);
    let compiled = load(&bin);
    let name = |g: &Graph, v: ValueId| g.value(v).name.clone();
    assert_eq!(name(&compiled, compiled.inputs[0]), name(&graph, graph.inputs[0]));
    assert_eq!(compiled.value(compiled.inputs[0]).ty.dtype, DType::I8);
    assert_eq!(v["inputs"][0]["dtype"], "i8");
    let params = compiled.code_params()[&compiled.inputs[0]].clone();
    assert_eq!(v["inputs"][0]["scale"], serde_json::json!(params.scales()), "{v}");
    let mut rng = Rng::new(7);
    let shape = graph.at_batch(2).expect("holds").value(graph.inputs[0]).ty.dims().expect("fixed");
    let x: Vec<f32> = (0..shape.iter().product()).map(|_| rng.float(-1.0, 1.0)).collect();
    let step = params.step(0);
    let codes: Vec<i32> = x.iter().map(|x| step.quantize(*x)).collect();
    let codes = Tensor::from_codes(DType::I8, &shape, &codes).expect("codes");
    let run = |g: &Graph, x: Tensor| Engine::new(g.clone(), &Device::Cpu).run(&[x], &[]).expect("runs");
    let want = run(&graph, Tensor::from_f32(shape, x));
    let got = run(&compiled, codes);
    for (a, b) in graph.outputs.iter().zip(&compiled.outputs) {
        assert_eq!(name(&graph, *a), name(&compiled, *b));
        let got = match compiled.code_params().get(b) {
            Some(p) => {
                let numbers =
                    got.values[b].codes().expect("codes").into_iter().map(|q| p.step(0).dequantize(q));
                Tensor::from_f32(want.values[a].shape(), numbers.collect())
            }
            None => got.values[b].clone(),
        };
        assert_eq!(got, want.values[a]);
    }
}

fn prepared_inputs_are_what_the_model_quantizes() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, bin] = artefacts(dir.path(), "preset = \"all-i8\"");
    json(0, &["compile", text(&q), "--io", "codes", "-o", text(&bin)]);
    let graph = load(&q);
    let [n, c, h, w] = *graph.at_batch(2).expect("holds").value(graph.inputs[0]).ty.dims().expect("fixed")
    else {
        panic!("images")
    };
    let mut rng = Rng::new(9);
    let x = Tensor::from_f32([n, c, h, w], (0..n * c * h * w).map(|_| rng.float(-0.2, 1.2)).collect());
    let at = |name: &str| dir.path().join(name);
    write_npy(&at("x.npy"), &x).expect("writes");
    let run = |model: &Path, input: &Path, more: &[&str]| {
        let args = ["run", text(model), "--input", text(input)];
        json(0, &[&args[..], more].concat())
    };
    let (ready, want, got) = (at("ready"), at("want"), at("got"));
    let v = run(&q, &at("x.npy"), &["--prepare", text(&ready), "--dump", text(&want)]);
    let name = &graph.value(graph.inputs[0]).name;
    let told = &v["prepared"][name];
    assert_eq!(
        (&told["dtype"], &told["kind"], &told["layout"]),
        (&"i8".into(), &"codes".into(), &"nchw".into())
    );
    let file = |told: &serde_json::Value, form: &str| PathBuf::from(told[form].as_str().expect("a path"));
    // What goes in as codes gives what the model gives.
    run(&bin, &file(told, "npy"), &["--dump", text(&got)]);
    let output = format!("{}.npy", graph.value(graph.outputs[0]).name);
    assert_eq!(bytes(&want.join(&output)), bytes(&got.join(&output)));
    let codes =
        Array::open(&file(told, "npy")).and_then(|a| a.read()).expect("reads").codes().expect("codes");
    let zero = told["zero_point"][0].as_i64().expect("a number") as u8;
    let row = told["padded_row"].as_u64().expect("a number") as usize;
    assert_eq!(row, w.next_multiple_of(16));
    let padded = bytes(&file(told, "bin"));
    assert_eq!(padded.len(), n * c * h * row);
    for (i, byte) in padded.iter().enumerate() {
        let code = codes.get(i / row * w + i % row).filter(|_| i % row < w).map_or(zero, |q| *q as u8);
        assert_eq!(*byte, code, "byte {i}");
    }
    // Channels last.
    let frames = Tensor::from_f32([n, h, w, c], {
        let at = |i: usize| (i / (h * w * c), i % c, i / (w * c) % h, i / c % w);
        let source = |(n, k, y, x): (usize, usize, usize, usize)| ((n * c + k) * h + y) * w + x;
        (0..x.len()).map(|i| x.f32s()[source(at(i))]).collect()
    });
    write_npy(&at("frames.npy"), &frames).expect("writes");
    let v = run(&q, &at("frames.npy"), &["--layout", "nhwc", "--prepare", text(&at("last"))]);
    let told = &v["prepared"][name];
    assert_eq!(told["shape"], serde_json::json!([n, h, w, c]));
    let last = Array::open(&file(told, "npy")).and_then(|a| a.read()).expect("reads").codes().expect("codes");
    for (i, q) in last.iter().enumerate() {
        let (f, k, y, x) = (i / (h * w * c), i % c, i / (w * c) % h, i / c % w);
        assert_eq!(*q, codes[((f * c + k) * h + y) * w + x], "element {i}");
    }
}

fn memory_lies_as_it_was_chosen() {
    let dir = tempfile::tempdir().expect("a folder");
    let [_, q, _] = artefacts(dir.path(), "");
    let graph = compile(load(&q)).expect("compiles");
    assert_eq!(graph.stage, Stage::Compiled);
    let placed = graph.placed.clone().expect("placed");
    let limits = Limits::least();
    let plan = |placed: &Placed, batch: usize| {
        let mut g = graph.at_batch(batch).expect("holds");
        g.placed = Some(Arc::new(placed.clone()));
        Plan::new(&g, &[], &limits).expect("plans")
    };
    let own = plan(&Placed::default(), 1);
    assert_eq!((own.arenas.clone(), own.tensors.clone()), (placed.arenas.clone(), placed.tensors.clone()));
    // Another choice that holds: all lie further back.
    let mut moved = (*placed).clone();
    moved.arenas.iter_mut().for_each(|a| *a += 512);
    moved.tensors.iter_mut().for_each(|t| t.1 += 512);
    assert_eq!(plan(&moved, 1).tensors, moved.tensors);
    assert_ne!(plan(&moved, 2).tensors, moved.tensors, "of another batch");
    // Choices that do not hold.
    let mut wrong: Vec<Placed> = Vec::new();
    for (arena, offset) in [(0, 8), (99, 0), (0, 1 << 40), (0, u64::MAX)] {
        let mut p = (*placed).clone();
        (p.tensors[0].0, p.tensors[0].1) = (arena, offset);
        wrong.push(p);
    }
    let mut small = (*placed).clone();
    small.arenas[0] -= 256;
    let mut fewer = (*placed).clone();
    fewer.tensors.pop();
    let mut together = (*placed).clone();
    together.tensors.iter_mut().for_each(|t| (t.0, t.1) = (0, 0));
    let mut other = (*placed).clone();
    other.kernels[0].push('x');
    wrong.extend([small, fewer, together, other]);
    for (i, p) in wrong.iter().enumerate() {
        assert_eq!(plan(p, 1).tensors, own.tensors, "choice {i}");
    }
}

fn other_stages_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let [g, q, bin] = artefacts(dir.path(), "");
    refused(&["compile", MODEL, "-o", text(&bin)], &["stage float", "samebit calibrate"]);
    refused(&["compile", text(&g), "-o", text(&bin)], &["stage fake-quant", "samebit convert"]);
    assert!(!bin.exists());
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    refused(&["compile", text(&bin), "-o", text(&q)], &["compiled already"]);
    refused(&["convert", text(&bin), "-o", text(&q)], &["stage compiled"]);
    refused(&["calibrate", text(&bin), "--data", CALIB, "-o", text(&g)], &["stage compiled"]);
}
