//! Statistics do not depend on the order of the samples, to the last byte, and yet tell other samples apart.

mod support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use samebit::data::fingerprint::SampleSum;
use samebit::data::shards::Shard;
use samebit::data::{Dataset, write_npy};
use samebit::graph::sample::Rng;
use samebit::tensor::Tensor;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::binary::{bytes, json, refused, text};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");

/// Samples of each data set.
const COUNT: usize = 23;

/// The kinds of data sets.
const KINDS: [&str; 5] = ["list", "csv", "npy", "fortran", "npz"];

/// The pixels of a sample.
fn pixels(sample: usize) -> impl Iterator<Item = u8> {
    (0..64).map(move |i| ((i * 37 + sample * 101 + i * sample % 13) % 251) as u8)
}

/// Makes images, which data sets of files are about.
fn images(dir: &Path) {
    for sample in 0..COUNT {
        let image = image::GrayImage::from_raw(8, 8, pixels(sample).collect()).expect("64 pixels");
        image.save(dir.join(format!("{sample}.png"))).expect("saves");
    }
    std::fs::write(dir.join("0.png"), "no image").expect("writes");
}

/// A data set of a kind with these samples, in this order.
fn data_set(dir: &Path, kind: &str, name: &str, order: &[usize]) -> PathBuf {
    let file = |extension: &str| dir.join(format!("{kind}-{name}.{extension}"));
    let head = "color = \"gray\"\nsteps = [ { scale = 0.0625 } ]";
    let lines = |of: &dyn Fn(usize) -> String| order.iter().map(|s| of(*s)).collect::<String>();
    let (npy, labels) = (file("npy"), file("y.npy"));
    let input = match kind {
        "list" => {
            std::fs::write(file("txt"), lines(&|s| format!("{s}.png\n"))).expect("writes");
            format!("[[input]]\nname = \"image\"\nlist = \"{kind}-{name}.txt\"\n{head}\n")
        }
        "csv" => {
            let rows = lines(&|s| format!("{s}.png,{}\n", s % 10));
            std::fs::write(file("csv"), format!("file,label\n{rows}")).expect("writes");
            let labels =
                format!("labels = {{ csv = \"{kind}-{name}.csv\", file = \"file\", label = \"label\" }}");
            format!("[dataset]\n{labels}\n[[input]]\nname = \"image\"\nimages = \".\"\n{head}\n")
        }
        _ => {
            let x = order.iter().flat_map(|s| pixels(*s)).map(|p| f32::from(p) / 16.0).collect::<Vec<_>>();
            write_npy(&labels, &Tensor::from_i32([COUNT], order.iter().map(|s| *s as i32 % 10).collect()))
                .expect("writes");
            write_npy(&npy, &Tensor::from_f32([COUNT, 1, 8, 8], x.clone())).expect("writes");
            let mut input = format!("npy = \"{kind}-{name}.npy\"");
            if kind == "fortran" {
                std::fs::write(&npy, fortran(&bytes(&npy), &x)).expect("writes");
            } else if kind == "npz" {
                archive(&file("npz"), &bytes(&npy));
                input = format!("npz = \"{kind}-{name}.npz:x\"");
            }
            format!(
                "[dataset]\nlabels = {{ npy = \"{kind}-{name}.y.npy\" }}\n[[input]]\nname = \"image\"\n{input}\n"
            )
        }
    };
    std::fs::write(file("toml"), input).expect("writes");
    file("toml")
}

/// The file of an array with its axes stored in the other order.
fn fortran(file: &[u8], x: &[f32]) -> Vec<u8> {
    let start = file.len() - 4 * x.len();
    // One byte less in `True` is one blank more.
    let at = file[..start].windows(5).position(|w| w == b"False").expect("an array in C order");
    let mut out = file[..start].to_vec();
    out[at..at + 5].copy_from_slice(b" True");
    for i in 0..64 {
        // Axes of 8 and 8: the last one is the outermost now.
        let column = (i % 8) * 8 + i / 8;
        (0..COUNT).for_each(|row| out.extend(x[row * 64 + column].to_le_bytes()));
    }
    out
}

fn archive(path: &Path, array: &[u8]) {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).expect("creates"));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("x.npy", options).expect("starts");
    zip.write_all(array).expect("writes");
    zip.finish().expect("finishes");
}

fn shuffled(seed: u64) -> Vec<usize> {
    let mut rng = Rng::new(seed);
    let mut keyed: Vec<(u32, usize)> = (0..COUNT).map(|s| (rng.float(0.0, 1.0).to_bits(), s)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, s)| s).collect()
}

/// Runs the binary.
fn calibrate(device: &str, data: &Path, stats: &Path, more: &[&str]) {
    let args = ["calibrate", MODEL, "--data", text(data), "--stats", text(stats), "--device", device];
    let graph = stats.with_extension("g");
    let output = if more.contains(&"--shard") { vec![] } else { vec!["-o", text(&graph)] };
    let run = Command::new(env!("CARGO_BIN_EXE_samebit"))
        .args(args)
        .args(["--quiet", "--allow-skips"])
        .args([more, &output].concat())
        .output()
        .expect("the binary runs");
    assert!(run.status.success(), "{more:?}: {}", String::from_utf8_lossy(&run.stderr));
}

fn any_order_gives_the_same_bytes(device: &str, kinds: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    images(d);
    let reversed: Vec<usize> = (0..COUNT).rev().collect();
    for kind in kinds {
        let first = data_set(d, kind, "first", &(0..COUNT).collect::<Vec<_>>());
        let stats = |name: &str| d.join(format!("{kind}.{name}.stats"));
        calibrate(device, &first, &stats("first"), &["--batch", "7"]);
        let want = bytes(&stats("first"));
        for (i, order) in [reversed.clone(), shuffled(1), shuffled(2)].iter().enumerate() {
            let data = data_set(d, kind, &i.to_string(), order);
            let whole = stats(&i.to_string());
            calibrate(device, &data, &whole, &["--batch", ["64", "1", "5"][i]]);
            assert!(bytes(&whole) == want, "{kind}, order {i}");
            // A finished file goes on with any order of its samples, with nothing to do.
            calibrate(device, &first, &whole, &["--resume"]);
            assert!(bytes(&whole) == want, "{kind}, order {i}, resumed");
        }
        for of in [2usize, 5] {
            let data = d.join(format!("{kind}-1.toml"));
            let shards: Vec<PathBuf> = (0..of).rev().map(|i| stats(&format!("{i}-{of}"))).collect();
            for (i, shard) in (0..of).rev().zip(&shards) {
                calibrate(device, &data, shard, &["--shard", &format!("{i}/{of}")]);
            }
            let merged = stats(&format!("all-{of}"));
            let parts: Vec<&str> = shards.iter().map(|p| text(p)).collect();
            json(0, &[&["merge", "--allow-skips"], &parts[..], &["-o", text(&merged)]].concat());
            assert!(bytes(&merged) == want, "{kind}, {of} shards");
        }
    }
}

#[test]
fn any_order_gives_the_same_bytes_on_the_cpu() {
    any_order_gives_the_same_bytes("cpu", &KINDS);
}

#[test]
fn any_order_gives_the_same_bytes_on_a_gpu() {
    if support::gpu().is_some() {
        any_order_gives_the_same_bytes("gpu", &["list", "npy"]);
    }
}

#[test]
fn other_samples_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    images(d);
    let order: Vec<usize> = (0..COUNT).collect();
    // The last sample gives way to one that is there already.
    let foreign: Vec<usize> = (0..COUNT - 1).chain([3]).collect();
    for kind in ["list", "npy", "fortran", "npz"] {
        let own = data_set(d, kind, "own", &order);
        let other = data_set(d, kind, "other", &foreign);
        let path = |name: &str| d.join(format!("{kind}.{name}"));
        let (whole, half, rest, out) = (path("whole"), path("half"), path("rest"), path("out"));
        calibrate("cpu", &own, &whole, &[]);
        let finished = bytes(&whole);
        let graph = path("graph");
        let resume = [
            "calibrate",
            MODEL,
            "--data",
            text(&other),
            "--stats",
            text(&whole),
            "--resume",
            "-o",
            text(&graph),
        ];
        refused(&resume, &["another calibration", "contents of its samples"]);
        assert_eq!(bytes(&whole), finished);
        calibrate("cpu", &own, &half, &["--shard", "0/2"]);
        calibrate("cpu", &other, &rest, &["--shard", "1/2"]);
        refused(&["merge", text(&half), text(&rest), "-o", text(&out)], &["its samples"]);
        refused(&["merge", text(&whole), text(&rest), "-o", text(&out)], &["2 shards"]);
        assert!(!out.exists());
    }
    // A file of the same name and size.
    let own = d.join("list-own.toml");
    let image = bytes(&d.join("5.png"));
    std::fs::write(d.join("5.png"), vec![7; image.len()]).expect("writes");
    let (whole, graph) = (d.join("list.whole"), d.join("g"));
    let resume =
        ["calibrate", MODEL, "--data", text(&own), "--stats", text(&whole), "--resume", "-o", text(&graph)];
    refused(&resume, &["another calibration", "contents of its samples"]);
}

#[test]
fn sums_of_shards_in_any_order_are_the_sum_of_the_data_set() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.npy");
    let sum = |rows: &[Vec<i32>], shards: usize| {
        let x = rows.concat();
        write_npy(&path, &Tensor::from_i32([rows.len(), rows[0].len()], x)).expect("writes");
        let data = Dataset::open(&path).expect("opens");
        (0..shards).fold(SampleSum::default(), |sum, index| {
            sum.plus(SampleSum::of(&data.shard(Shard { index, of: shards })).expect("reads"))
        })
    };
    // Rows below and above what is hashed all of.
    let width = prop_oneof![Just(3usize), Just(20_000)];
    let cases = (width, 1usize..9, 1usize..6, any::<u64>(), any::<prop::sample::Index>());
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    runner
        .run(&cases, |(width, count, shards, seed, at)| {
            let mut rng = Rng::new(seed);
            let row = |_| (0..width).map(|_| rng.float(-1e6, 1e6) as i32).collect::<Vec<i32>>();
            let rows: Vec<Vec<i32>> = (0..count).map(row).collect();
            let mut other = rows.clone();
            other.rotate_left(at.index(count));
            other.reverse();
            prop_assert_eq!(sum(&rows, 1), sum(&other, shards));
            other[at.index(count)][width - 1] ^= 1;
            prop_assert_ne!(sum(&rows, 1), sum(&other, shards));
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}
