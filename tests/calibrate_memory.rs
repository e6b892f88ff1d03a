//! Calibration takes as much memory for many frames as for few.

#[path = "support/allocations.rs"]
mod allocations;
mod support;

use allocations::peak;
use samebit::analysis::calibrate::{PassOptions, observe};
use samebit::data::{Dataset, write_npy};
use samebit::gpu::Device;
use samebit::graph::Graph;
use samebit::graph::sample::{Rng, SampleInput};
use samebit::onnx::{ImportOptions, load_model};
use samebit::passes::prepare::calibration_graph;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");

/// Frames that run together.
const BATCH: usize = 8;

/// Less than 576 more frames would take if they were kept: 147456 bytes.
const SLACK: usize = 100_000;

fn frames(dir: &Path, n: usize) -> PathBuf {
    let path = dir.join(format!("{n}.npy"));
    let x = SampleInput::f32([n, 1, 8, 8]).draw(&mut Rng::new(1));
    write_npy(&path, &x).expect("writes");
    path
}

/// Peak of allocations of a pass over the frames, and bytes of its tensors.
fn pass(graph: &Graph, device: &Device, frames: &Path, n: usize) -> (usize, u64) {
    let options = PassOptions { batch: Some(BATCH), ..PassOptions::default() };
    let (bytes, observed) = peak(|| {
        let data = Dataset::open(frames).expect("opens");
        observe(graph, device, &data, &options, |_| ()).expect("runs")
    });
    assert_eq!((observed.timed, observed.statistics.frames()), (n, n));
    (bytes, observed.arena_bytes)
}

// One test: others beside it would count, too.
#[test]
fn ten_times_the_frames_take_no_more_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let [few, many] = [64, 640].map(|n| frames(dir.path(), n));
    let graph = load_model(Path::new(MODEL), &ImportOptions::default()).expect("loads");
    let graph = calibration_graph(graph).expect("a float model");
    let gpu = support::gpu().map(|g| Device::Gpu(Arc::clone(&g)));
    for device in [Device::Cpu].into_iter().chain(gpu) {
        // What is made once: threads, kernels.
        pass(&graph, &device, &few, 64);
        let (of_few, arena) = pass(&graph, &device, &few, 64);
        let (of_many, arena_of_many) = pass(&graph, &device, &many, 640);
        assert!(of_many <= of_few + SLACK, "{device}: {of_few} bytes for 64 frames, {of_many} for 640");
        assert_eq!(arena, arena_of_many, "{device}");
        assert!(arena >= (BATCH * 64 * 4) as u64, "{device}: {arena} bytes do not even hold the input");
        println!("{device}: {of_few} bytes for 64 frames, {of_many} for 640; tensors {arena}");
    }
}
