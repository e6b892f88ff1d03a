//! Observing values on the device: histograms that stay there, results that come back with each run.

use super::{GpuExecutor, Purpose, lock};
use crate::exec::observe::{HISTOGRAM_BYTES, Observed, Watch};
use crate::exec::plan::{Plan, watched_bytes};
use crate::exec::{ExecError, batch_of};
use crate::gpu::{Buffer, Copy, Gpu, Submission};
use crate::graph::ValueId;
use crate::observers::Summary;
use crate::tensor::Tensor;

/// Elements after which counts are fetched, at most: none of them can then have wrapped.
const DRAIN_AT: u64 = u32::MAX as u64;

/// What is being observed.
#[derive(Debug)]
pub(super) struct Watching {
    pub values: Vec<ValueId>,
    joins: Vec<Vec<usize>>,
    separable: bool,
    /// A histogram for each value.
    pub histograms: Buffer,
    readback: Buffer,
    /// Where one histogram begins after the other.
    stride: u64,
    /// Elements of the largest value that were counted since the histograms were fetched.
    pending: u64,
    drain_at: u64,
}

impl GpuExecutor {
    /// Observes these values from now on; those observed before are forgotten. `joins`: see
    /// [`Watch::parts`]. `separable`: see [`super::super::Frames::of`].
    ///
    /// # Errors
    /// Memory that the device does not have.
    pub(in super::super) fn watch(
        &self,
        values: &[ValueId],
        joins: &[Vec<usize>],
        separable: bool,
    ) -> Result<(), ExecError> {
        lock(&self.plans).retain(|(key, _)| key.1 != Purpose::Watch);
        let mut watching = lock(&self.watching);
        *watching = None;
        if values.is_empty() {
            return Ok(());
        }
        let stride = watched_bytes(1, self.gpu.limits());
        let bytes = watched_bytes(values.len(), self.gpu.limits());
        if bytes > self.gpu.limits().buffer_bytes {
            let (what, limit) = ("histograms of all tensors".into(), self.gpu.limits().buffer_bytes);
            return Err(ExecError::TooLarge { what, amount: bytes, unit: "bytes", limit });
        }
        let histograms = self.gpu.storage("histograms", bytes)?;
        clear(&self.gpu, &histograms)?;
        *watching = Some(Watching {
            values: values.to_vec(),
            joins: joins.to_vec(),
            separable,
            histograms,
            readback: self.gpu.readback_buffer("readback of histograms", bytes)?,
            stride,
            pending: 0,
            drain_at: DRAIN_AT,
        });
        Ok(())
    }

    /// Fetches histograms before so many elements were counted.
    #[cfg(test)]
    pub(in super::super) fn drain_at(&self, elements: u64) {
        if let Some(w) = lock(&self.watching).as_mut() {
            w.drain_at = elements;
        }
    }

    /// The plan that observes at a batch.
    pub(in super::super) fn observing_plan(&self, batch: usize) -> Result<Plan, ExecError> {
        Plan::observing(&self.graph.at_batch(batch)?, &self.watches(batch)?, self.gpu.limits())
    }

    /// What is observed at a batch.
    pub(super) fn watches(&self, batch: usize) -> Result<Vec<Watch>, ExecError> {
        let watching = lock(&self.watching);
        let watching = watching.as_ref().ok_or(ExecError::NotWatching)?;
        Watch::all(&self.graph, &watching.values, &watching.joins, batch, watching.separable)
    }

    /// Takes the memory that observing at a batch needs.
    pub(in super::super) fn prepare_to_observe(&self, batch: usize) -> Result<(), ExecError> {
        self.ready(batch, &Purpose::Watch).map(drop)
    }

    /// Runs once and adds what it shows to `summaries`, one for each watched value; the histograms follow with
    /// [`GpuExecutor::drain`], which is also called here before they could wrap.
    ///
    /// # Errors
    /// As [`GpuExecutor::run`].
    pub(in super::super) fn observe(
        &self,
        inputs: &[Tensor],
        summaries: &mut [Summary],
    ) -> Result<Observed, ExecError> {
        let batch = batch_of(&self.graph, inputs)?;
        let ready = self.ready(batch, &Purpose::Watch)?;
        let ready = lock(&ready);
        let watched = &ready.plan.watched;
        let largest = watched.iter().map(|(w, _)| (w.frames.count * w.frames.elements) as u64).max();
        let largest = largest.unwrap_or(0);
        let full = lock(&self.watching).as_ref().is_some_and(|w| w.pending + largest > w.drain_at);
        if full {
            self.drain(summaries)?;
        }
        let (_, results) = self.execute(&ready, inputs)?;
        if let Some(w) = lock(&self.watching).as_mut() {
            w.pending += largest;
        }
        let words: &[u32] = &results;
        let frames = watched.iter().zip(summaries).map(|((w, at), summary)| {
            let from = usize::try_from(at.offset / 4).expect("within memory");
            let stats = w.frames.read(words.get(from..).unwrap_or_default());
            stats.iter().for_each(|s| summary.add_frame(s));
            stats
        });
        let frames = frames.collect();
        Ok(Observed {
            frames,
            dispatches: ready.plan.dispatches(),
            arena_bytes: ready.plan.batch_bytes(),
            cpu_ops: ready.plan.cpu_ops.clone(),
        })
    }

    /// Moves the histograms from the device to `summaries`.
    ///
    /// # Errors
    /// Failures of the device.
    pub(in super::super) fn drain(&self, summaries: &mut [Summary]) -> Result<(), ExecError> {
        let mut watching = lock(&self.watching);
        let Some(w) = watching.as_mut().filter(|w| w.pending > 0) else { return Ok(()) };
        let copy = Copy {
            from: w.histograms.clone(),
            from_offset: 0,
            to: w.readback.clone(),
            to_offset: 0,
            bytes: w.histograms.size(),
        };
        self.gpu.submit(&Submission {
            after: &[copy],
            readback: Some(&w.readback),
            ..Submission::default()
        })?;
        let stride = usize::try_from(w.stride).expect("within memory");
        self.gpu.read(&w.readback, |bytes| {
            for (summary, part) in summaries.iter_mut().zip(bytes.chunks(stride)) {
                let len = usize::try_from(HISTOGRAM_BYTES).expect("small");
                summary.add_histogram(&bytemuck::pod_collect_to_vec::<u8, u32>(&part[..len]));
            }
        })?;
        clear(&self.gpu, &w.histograms)?;
        w.pending = 0;
        Ok(())
    }
}

/// Fills a buffer with zeros.
fn clear(gpu: &Gpu, buffer: &Buffer) -> Result<(), ExecError> {
    let zeros = vec![0; usize::try_from(buffer.size()).expect("within memory")];
    Ok(gpu.write(buffer, 0, &zeros)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Choice, Device};
    use crate::graph::Graph;
    use crate::graph::sample::{Rng, SampleInput};
    use crate::tensor::{DType, Dim, TensorType};

    #[test]
    fn histograms_are_fetched_before_they_can_wrap() {
        let gpu = match Device::open(&Choice::Gpu) {
            Ok(Device::Gpu(gpu)) => gpu,
            other => {
                let required = std::env::var("SAMEBIT_REQUIRE_GPU").as_deref() == Ok("1");
                assert!(!required, "{other:?}");
                eprintln!("ignored: no GPU");
                return;
            }
        };
        let mut g = Graph::new("input");
        let x = g.add_input("x", TensorType::new(DType::F32, [Dim::Batch(1), Dim::Fixed(100)]));
        g.outputs = vec![x];
        let executor = GpuExecutor::new(gpu, &g);
        executor.watch(&[x], &[vec![]], true).unwrap();
        executor.drain_at(500);
        let mut rng = Rng::new(1);
        let (mut got, mut want) = (vec![Summary::new()], Summary::new());
        let binned = |s: &Summary| s.parts().histogram.iter().sum::<u64>();
        for frames in [2, 2, 2, 9] {
            let input = SampleInput::f32([frames, 100]).draw(&mut rng);
            executor.observe(std::slice::from_ref(&input), &mut got).unwrap();
            want.observe_frames(input.f32s(), frames, 100);
        }
        // Six frames are more than 500 elements, so four were fetched before the last two; these before the nine.
        assert_eq!(binned(&got[0]), 600);
        executor.drain(&mut got).unwrap();
        assert_eq!(got[0], want);
        executor.drain(&mut got).unwrap();
        assert_eq!(got[0], want);
    }
}
