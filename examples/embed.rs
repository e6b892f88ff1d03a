//! Embedding the engine: load a model, run it on a GPU where there is one, read an intermediate tensor.
//!
//! `cargo run --release --example embed -- [MODEL] [TENSOR]`

use samebit::exec::Engine;
use samebit::gpu::{Choice, Device};
use samebit::graph::ValueId;
use samebit::model;
use samebit::onnx::ImportOptions;
use samebit::tensor::{Tensor, element_count};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or_else(|| "assets/quickstart/digits.onnx".into());
    let graph = model::load(model.as_ref(), &ImportOptions::default())?;

    // The tensor in the middle of the network, unless one is named.
    let middle = &graph.nodes()[graph.nodes().len() / 2];
    let tap: ValueId = match args.next() {
        Some(name) => graph.find_value(&name).ok_or(format!("no tensor {name}"))?,
        None => middle.outputs[0],
    };

    // Two frames of every input, filled with a ramp.
    let mut inputs = Vec::new();
    for id in &graph.inputs {
        let ty = graph.value(*id).ty.at(2).ok_or("a dimension overflows")?;
        let shape = ty.dims().ok_or("the batch is known")?;
        let n = element_count(&shape).ok_or("too large")?;
        inputs.push(Tensor::from_f32(shape, (0..n).map(|i| (i % 255) as f32 / 255.0).collect()));
    }

    let device = Device::open(&Choice::Gpu).or_else(|_| Device::open(&Choice::Cpu))?;
    println!("running on {device}");
    let names: Vec<(ValueId, String)> =
        graph.outputs.iter().chain([&tap]).map(|id| (*id, graph.value(*id).name.clone())).collect();
    let mut engine = Engine::new(graph, &device);
    let trace = engine.run(&inputs, &[tap])?;
    for (id, name) in names {
        let t = &trace.values[&id];
        let first: Vec<f32> = t.as_f32().unwrap_or(&[]).iter().take(4).copied().collect();
        println!("{name}: {} starts with {first:?}", t.ty());
    }
    println!("{} device dispatches", trace.dispatches);
    Ok(())
}
