//! Statistics of every tensor of a model over a data set.

use super::calibrate::bind;
use crate::data::{Dataset, Loader, LoaderOptions, Skip};
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, ValueId};
use crate::observers::{Bin, Summary};
use crate::tensor::DType;

/// One tensor.
#[derive(Clone, Debug)]
pub struct TensorProfile {
    /// Its name.
    pub name: String,
    /// The operator that makes it; `input` for an input.
    pub op: String,
    /// Its type.
    pub ty: String,
    /// Scale of its quantizer, where it has one of a single scale.
    pub scale: Option<f32>,
    /// Its numbers.
    pub summary: Summary,
}

impl TensorProfile {
    /// Its numbers by magnitude: a bin for each power of two on either side of zero, the lowest first.
    pub fn octaves(&self) -> Vec<Bin> {
        let mut out: Vec<Bin> = Vec::new();
        for bin in self.summary.bins() {
            let magnitude = bin.low.abs().max(bin.high.abs());
            if magnitude == 0.0 {
                out.push(bin);
                continue;
            }
            // The power of two above it: bins are cut at powers of two.
            let high = 2f64.powi(
                libm::ilogb(magnitude)
                    + i32::from(magnitude != libm::exp2(f64::from(libm::ilogb(magnitude)))),
            );
            let (low, high) = if bin.low < 0.0 { (-high, -high / 2.0) } else { (high / 2.0, high) };
            match out.last_mut().filter(|b| b.low == low && b.high == high) {
                Some(last) => last.count += bin.count,
                None => out.push(Bin { low, high, count: bin.count }),
            }
        }
        out
    }
}

/// What a pass found.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Frames.
    pub frames: usize,
    /// One a tensor of f32, in the order of the graph.
    pub tensors: Vec<TensorProfile>,
    /// Samples that could not be read.
    pub skipped: Vec<Skip>,
    /// Device dispatches.
    pub dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
}

/// Runs a model of any stage over a data set and summarises every f32 tensor. `progress` is called with the number of
/// samples done.
///
/// # Errors
/// A data set that does not fit, a failed run.
pub fn profile(
    graph: &Graph,
    device: &Device,
    data: &Dataset,
    mut progress: impl FnMut(usize),
) -> Result<Profile, Error> {
    let nodes = graph
        .nodes()
        .iter()
        .filter(|n| graph.value(n.inputs.first().copied().unwrap_or(n.outputs[0])).constant.is_none());
    let all = graph.inputs.iter().copied().chain(nodes.flat_map(|n| n.outputs.iter().copied()));
    let values: Vec<ValueId> = all.filter(|v| graph.value(*v).ty.dtype == DType::F32).collect();
    let bound = bind(graph, data)?;
    let mut engine = Engine::new(graph.clone(), device);
    engine.watch(&values)?;
    let loading = LoaderOptions { batch: engine.batch(&[])?, ..LoaderOptions::default() };
    let mut loader = Loader::new(bound, loading)?;
    let (mut dispatches, mut cpu_ops) = (0, Vec::new());
    while let Some(batch) = loader.next() {
        let seen = engine.observe(&batch?.inputs)?;
        dispatches += seen.dispatches;
        cpu_ops = seen.cpu_ops;
        progress(loader.frames() + loader.skipped().len());
    }
    let producers = graph.producers();
    let users = graph.users();
    let summaries = engine.summaries()?.to_vec();
    let tensors = values.iter().zip(summaries).map(|(v, summary)| {
        let producer = producers.get(v).map(|i| &graph.nodes()[*i]);
        let behind = users.get(v).into_iter().flatten().find_map(|i| graph.nodes()[*i].quantizer());
        let quantizer = producer.and_then(|n| n.quantizer()).or(behind);
        let params = quantizer.and_then(|q| q.params.as_ref()).filter(|p| p.scales().len() == 1);
        TensorProfile {
            name: graph.value(*v).name.clone(),
            op: producer.map_or("input", |n| n.op.def().name).to_owned(),
            ty: graph.value(*v).ty.to_string(),
            scale: params.map(|p| p.scales()[0]),
            summary,
        }
    });
    let tensors = tensors.collect();
    let (frames, skipped) = (loader.frames(), loader.skipped().to_vec());
    Ok(Profile { frames, tensors, skipped, dispatches, cpu_ops })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octaves_hold_every_number_once() {
        let mut summary = Summary::new();
        let x = [0.0f32, 0.0, 1.0, 1.5, 2.0, 3.9, -0.3, -0.25, -0.2, 1e-30, 1e10];
        summary.observe(&x, &[x.len()]);
        let p =
            TensorProfile { name: String::new(), op: String::new(), ty: String::new(), scale: None, summary };
        let octaves = p.octaves();
        let total: f64 = octaves.iter().map(|b| b.count).sum();
        assert_eq!(total, 11.0, "{octaves:?}");
        let count = |low: f64, high: f64| -> f64 {
            octaves.iter().filter(|b| b.low == low && b.high == high).map(|b| b.count).sum()
        };
        assert_eq!(count(1.0, 2.0), 2.0, "{octaves:?}");
        assert_eq!(count(2.0, 4.0), 2.0, "{octaves:?}");
        assert_eq!(count(-0.5, -0.25), 2.0, "{octaves:?}");
        assert_eq!(count(-0.25, -0.125), 1.0, "{octaves:?}");
        assert_eq!(count(0.0, 0.0), 2.0, "{octaves:?}");
    }
}
