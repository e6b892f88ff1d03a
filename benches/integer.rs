//! Speed of models on codes: images per second of the float model, of its fake-quant graph at level 4 and of its integer
//! graph, and ratios to ONNX Runtime on its own QDQ model of u8 activations and i8 weights, and to PPQ's simulation, measured in
//! the same run.
//!
//! `cargo bench --bench integer [-- FILTER]`, for the shapes of ResNet-18 and the convolutional models of
//! `shared/data/models` beside the checkout. Peers are run by the Pythons that `SAMEBIT_PEER_PYTHON` and `SAMEBIT_PPQ_PYTHON` name. The CPU is timed with one thread and with all. Inputs are random, and
//! calibration is on them: decoding and preprocessing are not measured, and accuracy means nothing here.

mod subjects;

use samebit::data::write_npy;
use samebit::exec::Engine;
use samebit::gpu::Device;
use samebit::graph::{Graph, file};
use samebit::onnx::{ImportOptions, load_model};
use samebit::ops;
use samebit::passes::convert::simulated;
use samebit::tensor::Tensor;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use subjects::{devices, onnxruntime, ppq, random_inputs, resnet18, shared, short, threads, wanted};

const MODELS: [&str; 4] =
    ["resnet8_cifar10", "mobilenetv1_025_vww", "squeezenet11_imagenet", "ultraface_rfb320"];

/// Rounds, at least; more within [`TIME`].
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);

fn main() {
    let wanted = wanted();
    let devices = devices();
    println!(
        "\nmodel, batch, device, threads, images/s (medians) of float, level 4, integer, ONNX Runtime QDQ, \
         PPQ's simulation, integer over float, level 4 over integer, integer over ONNX Runtime QDQ, level 4 over PPQ"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let models = MODELS.map(|name| (name, shared().join(format!("data/models/{name}.onnx"))));
    let resnet = resnet18().map(|path| ("resnet18", path));
    for (name, model) in resnet.into_iter().chain(models).filter(|m| wanted(m.0)) {
        let Ok(float) = load_model(&model, &ImportOptions::default()) else {
            println!("{name}: not in {}", model.display());
            continue;
        };
        let [fake, codes] = quantized(dir.path(), &model, &float);
        let fake = simulated(fake).expect("has an integer form");
        let graphs = [&float, &fake, &codes];
        let peer = shared().join(format!("data/quantized_by_onnxruntime/{name}.qdq_u8.onnx"));
        let batches: &[usize] = if float.is_batched() { &[1, 16] } else { &[1] };
        for &batch in batches {
            let inputs = random_inputs(&float, batch);
            for device in &devices {
                let counts = if matches!(device, Device::Cpu) { vec![1, threads()] } else { vec![threads()] };
                for count in counts {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("starts");
                    let rates = pool.install(|| rates(graphs, device, &inputs, batch));
                    let on_cpu = matches!(device, Device::Cpu);
                    let frame = &inputs[0].shape()[1..];
                    let peers = on_cpu.then(|| {
                        let qdq = peer.exists().then(|| onnxruntime(&peer, batch, count)).flatten();
                        [qdq, ppq(&model, frame, batch, count)]
                    });
                    row(name, batch, &short(device), count, rates, peers.unwrap_or_default());
                }
            }
        }
    }
}

fn row(name: &str, batch: usize, device: &str, threads: usize, rates: [f64; 3], peers: [Option<f64>; 2]) {
    let [float, fake, codes] = rates;
    let or_none = |v: Option<f64>, digits: usize| v.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    println!(
        "{name}, {batch}, {device}, {threads}, {float:.1}, {fake:.1}, {codes:.1}, {}, {}, {:.2}, {:.2}, {}, {}",
        or_none(peers[0], 1),
        or_none(peers[1], 1),
        codes / float,
        fake / codes,
        or_none(peers[0].map(|p| codes / p), 2),
        or_none(peers[1].map(|p| fake / p), 2)
    );
}

/// The fake-quant graph at level 4 and the integer graph, calibrated on random frames.
fn quantized(dir: &Path, model: &Path, float: &Graph) -> [Graph; 2] {
    let [frames, fake, codes] = ["frames.npy", "fake.g", "codes.g"].map(|f| dir.join(f));
    write_npy(&frames, &random_inputs(float, if float.is_batched() { 8 } else { 1 })[0]).expect("writes");
    let run = |what: &str, input: &Path, more: &[&str], output: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_samebit"));
        command.arg(what).arg(input).args(more).arg("-o").arg(output).arg("--quiet");
        assert!(command.status().expect("starts").success(), "{command:?}");
        file::load(output, ops::by_name).expect("just written")
    };
    let data = frames.to_string_lossy();
    let fake_quant =
        run("calibrate", model, &["--data", &data, "--consistency", "4", "--device", "cpu"], &fake);
    [fake_quant, run("convert", &fake, &[], &codes)]
}

/// Images per second of each graph, taken in turns so that what disturbs one disturbs all.
fn rates(graphs: [&Graph; 3], device: &Device, inputs: &[Tensor], batch: usize) -> [f64; 3] {
    let mut engines = graphs.map(|g| Engine::new(g.clone(), device).with_batch(batch));
    let mut seconds: [Vec<f64>; 3] = Default::default();
    let start = Instant::now();
    // The first round builds plans and kernels.
    while seconds[0].len() <= ROUNDS || (start.elapsed() < TIME && seconds[0].len() < 200) {
        for (engine, seconds) in engines.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            engine.run(inputs, &[]).expect("runs");
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let frames = batch as f64;
    seconds.map(|mut all| {
        let all = &mut all[1..];
        all.sort_by(f64::total_cmp);
        frames / all[all.len() / 2]
    })
}
