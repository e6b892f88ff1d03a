//! Data that claims to be much more than it is: refused, or read as far as it is wanted, in little memory.

#[path = "support/allocations.rs"]
mod allocations;
mod support;

use allocations::peak;
use samebit::analysis::eval::{Candidate, EvalOptions, eval};
use samebit::analysis::partial::{PartOptions, eval_part};
use samebit::data::shards::Shard;
use samebit::data::{Dataset, read_input};
use samebit::error::Error;
use samebit::gpu::Device;
use samebit::onnx::{ImportOptions, load_model};
use samebit::tensor::{DType, Dim, TensorType};
use std::io::Write;
use std::path::{Path, PathBuf};
use support::binary::{refused, text};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");

/// An archive of an array `x` of zeros.
fn bomb(dir: &Path, name: &str, descr: &str, fortran: bool, shape: &[usize]) -> PathBuf {
    let path = dir.join(name);
    let order = if fortran { "True" } else { "False" };
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({},), }}", dims.join(", "));
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend(118u16.to_le_bytes());
    head.extend(format!("{dict:<117}\n").bytes());
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("creates"));
    zip.start_file("x.npy", zip::write::SimpleFileOptions::default()).expect("starts");
    zip.write_all(&head).expect("writes");
    let size: usize = descr[2..].parse().expect("a size");
    let mut left = shape.iter().product::<usize>() * size;
    let zeros = vec![0; 1 << 16];
    while left > 0 {
        let n = left.min(zeros.len());
        zip.write_all(&zeros[..n]).expect("writes");
        left -= n;
    }
    zip.finish().expect("finishes");
    path
}

fn models() -> Vec<Candidate> {
    let graph = load_model(Path::new(MODEL), &ImportOptions::default()).expect("loads");
    vec![Candidate { label: "digits".to_owned(), graph }]
}

// One test: others beside it would count, too.
#[test]
fn memory_does_not_grow_with_the_rows_that_an_archive_declares() {
    const MOST: usize = 64 << 20;
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let ty = TensorType::new(DType::F32, [Dim::Batch(1), Dim::Fixed(1), Dim::Fixed(8), Dim::Fixed(8)]);
    let options = EvalOptions { batch: Some(16), ..EvalOptions::default() };
    let flat = bomb(d, "flat.npz", "|u1", false, &[1 << 27]);
    let wide = bomb(d, "wide.npz", "<f4", true, &[1 << 12, 1 << 13]);
    for (path, shape) in [(&flat, "[134217728]"), (&wide, "[4096, 8192]")] {
        let (used, e) = peak(|| {
            let data = Dataset::open(path)?;
            eval(models(), &Device::Cpu, &data, &options, Vec::new, |_| ())
        });
        let e = e.expect_err("does not fit").to_string();
        assert!(e.contains("a sample is") && e.contains("[1, 8, 8]"), "{e}");
        assert!(used < MOST, "{e}: {used} bytes");
        let (used, e) = peak(|| read_input(path, &ty, false));
        let e = e.expect_err("does not fit").to_string();
        assert!(e.contains(shape) && e.contains("does not fit"), "{e}");
        assert!(used < MOST, "{e}: {used} bytes");
        refused(&["eval", MODEL, "--data", text(path), "--limit", "1"], &["a sample is", "[1, 8, 8]"]);
        refused(&["run", MODEL, "--input", text(path)], &[shape, "does not fit"]);
    }
    let labels = bomb(d, "labels.npz", "<i8", false, &[1 << 22]);
    for fortran in [false, true] {
        let rows = bomb(d, &format!("rows-{fortran}.npz"), "|u1", fortran, &[1 << 22, 1, 8, 8]);
        let set = d.join(format!("{fortran}.toml"));
        let file = |p: &Path| p.file_name().expect("has one").to_string_lossy().into_owned();
        let toml = format!(
            "[dataset]\nlabels = {{ npy = \"{}:x\" }}\n[[input]]\nname = \"image\"\nnpz = \"{}:x\"\n",
            file(&labels),
            file(&rows)
        );
        std::fs::write(&set, toml).expect("writes");
        for part in [false, true] {
            let (used, report) = peak(|| -> Result<_, Error> {
                let data = Dataset::open(&set)?.limit(20);
                if !part {
                    return eval(models(), &Device::Cpu, &data, &options, Vec::new, |_| ());
                }
                let path = d.join(format!("{fortran}.part"));
                let part = PartOptions { shard: Shard::WHOLE, path, resume: false };
                eval_part(models(), &Device::Cpu, &data, &options, &part, |_| ())
            });
            assert_eq!(report.expect("runs").models[0].frames, 20);
            assert!(used < MOST, "fortran {fortran}, part {part}: {used} bytes");
        }
    }
}
