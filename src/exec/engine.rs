//! One engine over both executors, for any number of frames: it splits what does not fit at once.

mod joins;
mod nan;
mod watch;

use super::cpu::{fits_the_cpu, peak_bytes};
use super::frames::{batch_axis, concatenate, is_separable, rows};
use super::{CpuExecutor, ExecError, GpuExecutor, NanCount, Purpose, Trace, batch_of};
use crate::gpu::{Device, GpuError, Kind};
use crate::graph::{Graph, ValueId};
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Frames computed at once unless said otherwise.
const DEFAULT_BATCH: usize = 64;

/// Specialised graphs that the CPU keeps.
const KEPT_GRAPHS: usize = 4;

/// Bytes for what grows with the batch, unless said otherwise.
const HARDWARE_BUDGET: u64 = 2 << 30;
const SOFTWARE_BUDGET: u64 = 1 << 30;

/// The same on the CPU, for each thread, and its ends. More frames at once keep no more threads busy, and tensors that are
/// far larger than the caches are read from memory again by every operator.
const CPU_BUDGET: u64 = 64 << 20;
const CPU_BUDGETS: std::ops::RangeInclusive<u64> = 128 << 20..=1 << 30;

/// A graph ready to run on a device, with inputs of any batch.
#[derive(Debug)]
pub struct Engine {
    graph: Graph,
    backend: Backend,
    device: String,
    /// Frames computed at once, at most.
    most: usize,
    budget: u64,
    /// Whether frames can be computed apart.
    separable: bool,
    /// Batch chosen for what runs are for.
    chosen: HashMap<Purpose, usize>,
    watching: Option<watch::Watching>,
    warnings: Vec<String>,
    /// NaN of constants, which the first run tells.
    nans: Vec<NanCount>,
    /// Whether the GPU has run something.
    warm: bool,
}

#[derive(Debug)]
enum Backend {
    /// Executors by batch, the most recently used last.
    Cpu(Vec<(usize, CpuExecutor)>),
    Gpu(Box<GpuExecutor>),
}

impl Engine {
    /// Prepares a graph. Kernels are built and memory is taken at the first run.
    pub fn new(mut graph: Graph, device: &Device) -> Engine {
        let nans = nan::quantize_constants(&mut graph);
        let (backend, budget) = match device {
            Device::Cpu => (Backend::Cpu(Vec::new()), cpu_budget(rayon::current_num_threads())),
            Device::Gpu(gpu) => {
                let soft = gpu.adapter.kind == Kind::Software;
                let budget = if soft { SOFTWARE_BUDGET } else { HARDWARE_BUDGET };
                (Backend::Gpu(Box::new(GpuExecutor::new(Arc::clone(gpu), &graph))), budget)
            }
        };
        let separable = is_separable(&graph);
        Engine {
            graph,
            backend,
            device: device.to_string(),
            most: DEFAULT_BATCH,
            budget,
            separable,
            chosen: HashMap::new(),
            watching: None,
            warnings: Vec::new(),
            nans,
            warm: false,
        }
    }

    /// Computes at most this many frames at once.
    pub fn with_batch(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// Uses at most this many bytes for what grows with the batch.
    pub fn with_budget(mut self, bytes: u64) -> Self {
        self.budget = bytes;
        self
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What it runs on, in words.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What had to be done otherwise than asked, in order: a smaller batch for want of memory.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Frames computed at once when these values are tapped.
    ///
    /// # Errors
    /// A graph of which not even one frame fits the device.
    pub fn batch(&mut self, taps: &[ValueId]) -> Result<usize, ExecError> {
        self.batch_for(&Purpose::Taps(taps.to_vec()))
    }

    fn batch_for(&mut self, purpose: &Purpose) -> Result<usize, ExecError> {
        if let Some(b) = self.chosen.get(purpose) {
            return Ok(*b);
        }
        let mut batch = self.most;
        if matches!(self.backend, Backend::Cpu(_)) {
            while batch > 1 && self.graph.at_batch(batch).map_or(u64::MAX, |g| peak_bytes(&g)) > self.budget {
                batch /= 2;
            }
        }
        if let Backend::Gpu(gpu) = &self.backend {
            loop {
                match gpu.plan_for(batch, purpose) {
                    Ok(plan) if batch == 1 || plan.batch_bytes() <= self.budget => break,
                    Ok(_) => {}
                    Err(e) if batch == 1 || !is_too_large(&e) => return Err(e),
                    Err(_) => {}
                }
                batch /= 2;
            }
        }
        self.chosen.insert(purpose.clone(), batch);
        Ok(batch)
    }

    /// Makes ready what a run of these inputs needs, which the first run of a batch does otherwise: kernels, plans and
    /// memory. At the first call a GPU also runs one frame, as drivers finish kernels when they are first used.
    ///
    /// # Errors
    /// As for [`Engine::run`], but for what is too large: the run halves its batch then.
    pub fn prepare(&mut self, inputs: &[Tensor], taps: &[ValueId]) -> Result<(), ExecError> {
        let frames = batch_of(&self.graph, inputs)?;
        let in_parts = self.separable && self.graph.is_batched() && frames > 1;
        let batch = if in_parts { self.batch(taps)?.min(frames) } else { frames };
        if matches!(self.backend, Backend::Gpu(_)) && !std::mem::replace(&mut self.warm, true) {
            let count = if in_parts { 1 } else { frames };
            let part = self.slice(inputs, 0, count);
            match self.run_at_once(count, &part, taps) {
                Err(e) if is_too_large(&e) => return Ok(()),
                run => drop(run?),
            }
        }
        for size in [batch, frames.checked_rem(batch).unwrap_or(0)].into_iter().filter(|n| *n > 0) {
            let made = match &mut self.backend {
                Backend::Gpu(gpu) => gpu.prepare(size, taps),
                Backend::Cpu(known) => specialise(&self.graph, known, size).map(drop),
            };
            match made {
                Err(e) if is_too_large(&e) => return Ok(()),
                made => made?,
            }
        }
        Ok(())
    }

    /// Runs any number of frames: in parts where they do not fit at once, which changes no bit of the result.
    /// Inputs in the graph's order; `taps` are values wanted beside the outputs.
    ///
    /// # Errors
    /// Inputs that do not fit the graph or each other, and what the executor says.
    pub fn run(&mut self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        let mut trace = self.run_parts(inputs, taps)?;
        trace.nans.append(&mut self.nans);
        Ok(trace)
    }

    fn run_parts(&mut self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        let frames = batch_of(&self.graph, inputs)?;
        if !self.separable || !self.graph.is_batched() || frames <= 1 {
            return self.run_at_once(frames, inputs, taps);
        }
        let mut parts: Vec<Trace> = Vec::new();
        let mut done = 0;
        while done < frames {
            let count = self.batch(taps)?.min(frames - done);
            let part = self.slice(inputs, done, count);
            match self.run_at_once(count, &part, taps) {
                Ok(trace) => {
                    parts.push(trace);
                    done += count;
                }
                Err(e) if count > 1 && is_too_large(&e) => {
                    self.shrink(count, Purpose::Taps(taps.to_vec()), &e);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(self.join(parts))
    }

    fn shrink(&mut self, count: usize, purpose: Purpose, why: &ExecError) {
        if let Backend::Gpu(gpu) = &self.backend {
            gpu.forget_plans();
        }
        let batch = count / 2;
        self.warnings.push(format!("{count} frames at once do not fit ({why}); going on with {batch}"));
        self.chosen.insert(purpose, batch);
    }

    fn run_at_once(&mut self, batch: usize, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        match &mut self.backend {
            Backend::Gpu(gpu) => gpu.run(inputs, taps),
            Backend::Cpu(known) => specialise(&self.graph, known, batch)?.run(inputs, taps),
        }
    }

    /// Frames `from..from + count` of the inputs.
    fn slice<'a>(&self, inputs: &'a [Tensor], from: usize, count: usize) -> Cow<'a, [Tensor]> {
        let types = self.graph.inputs.iter().map(|v| &self.graph.value(*v).ty);
        let all = inputs.iter().zip(types).all(|(t, ty)| match batch_axis(ty) {
            Some((axis, k)) => t.shape()[axis] == k * count,
            None => true,
        });
        if from == 0 && all {
            return Cow::Borrowed(inputs);
        }
        let types = self.graph.inputs.iter().map(|v| &self.graph.value(*v).ty);
        let part = inputs.iter().zip(types).map(|(t, ty)| match batch_axis(ty) {
            Some((axis, k)) => rows(t, axis, from * k, count * k),
            None => t.clone(),
        });
        Cow::Owned(part.collect())
    }

    /// Traces of consecutive frames as one.
    fn join(&self, mut parts: Vec<Trace>) -> Trace {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let mut values = BTreeMap::new();
        for v in parts.first().map(|p| p.values.keys().copied().collect::<Vec<_>>()).unwrap_or_default() {
            let tensors: Vec<Tensor> = parts.iter_mut().filter_map(|p| p.values.remove(&v)).collect();
            let joined = match batch_axis(&self.graph.value(v).ty) {
                Some((axis, _)) => concatenate(&tensors, axis),
                None => tensors[0].clone(),
            };
            values.insert(v, joined);
        }
        let dispatches = parts.iter().map(|p| p.dispatches).sum();
        let cpu_ops = parts.first().map(|p| p.cpu_ops.clone()).unwrap_or_default();
        let nans = NanCount::join(parts.into_iter().map(|p| p.nans));
        Trace { values, dispatches, cpu_ops, nans }
    }
}

fn cpu_budget(threads: usize) -> u64 {
    (threads as u64).saturating_mul(CPU_BUDGET).clamp(*CPU_BUDGETS.start(), *CPU_BUDGETS.end())
}

/// The executor of a graph at a batch; the most recently used is last.
fn specialise<'a>(
    graph: &Graph,
    known: &'a mut Vec<(usize, CpuExecutor)>,
    batch: usize,
) -> Result<&'a CpuExecutor, ExecError> {
    match known.iter().position(|(b, _)| *b == batch) {
        Some(i) => known[i..].rotate_left(1),
        None => {
            if known.len() == KEPT_GRAPHS {
                known.remove(0);
            }
            let graph = graph.at_batch(batch)?;
            fits_the_cpu(&graph)?;
            known.push((batch, CpuExecutor::new(graph)));
        }
    }
    Ok(&known.last().expect("just put there").1)
}

/// Whether a smaller batch may help.
fn is_too_large(e: &ExecError) -> bool {
    matches!(
        e,
        ExecError::TooLarge { .. }
            | ExecError::Gpu(GpuError::OutOfMemory { .. })
            | ExecError::Graph(crate::graph::GraphError::TooLarge { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attrs::Input;
    use crate::graph::sample::{Rng, SampleInput};
    use crate::graph::{Attrs, Reader, Source};
    use crate::tensor::{DType, Dim, TensorType};

    /// Adds a node of one input to the graph.
    fn add(g: &mut Graph, op: &str, attrs: Attrs, x: ValueId) -> ValueId {
        let def = crate::ops::by_name(op).unwrap();
        let input = Input { ty: g.value(x).ty.clone(), known: None };
        let mut r = Reader::new(Source::Graph, op, attrs, vec![Some(input)], 1);
        let op = (def.read)(&mut r).unwrap();
        let name = format!("node{}", g.nodes().len());
        g.add_node(name.clone(), None, op, &[x], &[format!("{name}.out")]).unwrap()[0]
    }

    fn batched(shape: &[Dim]) -> (Graph, ValueId) {
        let mut g = Graph::new("test");
        let x = g.add_input("x", TensorType::new(DType::F32, shape.iter().copied()));
        (g, x)
    }

    const N: Dim = Dim::Batch(1);

    #[test]
    fn parts_give_the_bits_of_the_whole() {
        let (mut g, x) = batched(&[N, Dim::Fixed(6)]);
        let y = add(&mut g, "Sigmoid", Attrs::new(), x);
        let z = add(&mut g, "Reshape", Attrs::new().dims("shape", &[Dim::Batch(3), Dim::Fixed(2)]), y);
        g.outputs = vec![z];
        let input = SampleInput::f32([10, 6]).draw(&mut Rng::new(1));
        let whole =
            CpuExecutor::new(g.at_batch(10).unwrap()).run(std::slice::from_ref(&input), &[y]).unwrap();
        for most in [1, 3, 4, 10, 64] {
            let mut engine = Engine::new(g.clone(), &Device::Cpu).with_batch(most);
            assert_eq!(
                engine.run(std::slice::from_ref(&input), &[y]).unwrap().values,
                whole.values,
                "batch {most}"
            );
        }
    }

    #[test]
    fn what_was_made_ready_is_what_the_run_takes() {
        let (mut g, x) = batched(&[N, Dim::Fixed(6)]);
        g.outputs = vec![add(&mut g, "Sigmoid", Attrs::new(), x)];
        let input = [SampleInput::f32([10, 6]).draw(&mut Rng::new(1))];
        let mut engine = Engine::new(g, &Device::Cpu).with_batch(4);
        let made = |e: &Engine| match &e.backend {
            Backend::Cpu(known) => known.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(),
            Backend::Gpu(_) => Vec::new(),
        };
        engine.prepare(&input, &[]).unwrap();
        assert_eq!(made(&engine), [4, 2]);
        engine.run(&input, &[]).unwrap();
        assert_eq!(made(&engine), [4, 2]);
    }

    #[test]
    fn frames_on_another_axis_are_cut_and_joined_there() {
        let (mut g, x) = batched(&[Dim::Fixed(2), N, Dim::Fixed(3)]);
        let y = add(&mut g, "Relu", Attrs::new(), x);
        g.outputs = vec![y, x];
        let input = SampleInput::f32([2, 5, 3]).draw(&mut Rng::new(1));
        let mut engine = Engine::new(g, &Device::Cpu).with_batch(2);
        assert!(engine.separable);
        let trace = engine.run(std::slice::from_ref(&input), &[]).unwrap();
        assert_eq!(trace.values[&x], input);
        let want: Vec<f32> = input.f32s().iter().map(|v| v.max(0.0)).collect();
        assert_eq!(trace.values[&y], Tensor::from_f32([2, 5, 3], want));
    }

    #[test]
    fn a_reshape_that_mixes_frames_is_not_cut() {
        let (mut g, x) = batched(&[Dim::Fixed(2), N]);
        let y = add(&mut g, "Reshape", Attrs::new().dims("shape", &[Dim::Batch(2)]), x);
        g.outputs = vec![y];
        let input = SampleInput::f32([2, 5]).draw(&mut Rng::new(1));
        let mut engine = Engine::new(g, &Device::Cpu).with_batch(2);
        assert!(!engine.separable);
        assert_eq!(engine.run(std::slice::from_ref(&input), &[]).unwrap().values[&y], input.reshaped([10]));
    }

    #[test]
    fn inputs_of_different_batches_are_refused_with_both_numbers() {
        let (mut g, x) = batched(&[N, Dim::Fixed(2)]);
        let y = g.add_input("y", TensorType::new(DType::F32, [Dim::Batch(2)]));
        g.outputs = vec![x, y];
        let mut engine = Engine::new(g, &Device::Cpu);
        let good = [Tensor::zeros(DType::F32, [3, 2]), Tensor::zeros(DType::F32, [6])];
        assert!(engine.run(&good, &[]).is_ok());
        for bad in [[8], [7], [0]] {
            let inputs = [good[0].clone(), Tensor::zeros(DType::F32, bad)];
            let e = engine.run(&inputs, &[]).unwrap_err().to_string();
            assert!(e.contains("\"y\"") && e.contains(&format!("f32[{}]", bad[0])), "{e}");
        }
        assert!(matches!(engine.run(&good[..1], &[]), Err(ExecError::InputCount { expected: 2, got: 1 })));
    }

    #[test]
    fn the_cpu_takes_as_many_frames_as_fit_the_budget() {
        let (mut g, x) = batched(&[N, Dim::Fixed(256)]);
        let y = add(&mut g, "Sigmoid", Attrs::new(), x);
        let z = add(&mut g, "Relu", Attrs::new(), y);
        g.outputs = vec![add(&mut g, "Sigmoid", Attrs::new(), z)];
        // Two tensors of 1 KiB a frame are alive at once.
        assert_eq!(peak_bytes(&g.at_batch(16).unwrap()), 16 * 2048);
        for (budget, batch) in [(1 << 30, 64), (64 * 2048, 64), (64 * 2048 - 1, 32), (1, 1)] {
            let mut engine = Engine::new(g.clone(), &Device::Cpu).with_budget(budget);
            assert_eq!(engine.batch(&[]).unwrap(), batch, "budget {budget}");
        }
    }

    #[test]
    fn the_cpu_has_a_budget_for_each_thread_within_bounds() {
        let mib = |threads| cpu_budget(threads) >> 20;
        assert_eq!([1, 2, 3, 8, 16, usize::MAX].map(mib), [128, 128, 192, 512, 1024, 1024]);
    }

    #[test]
    fn a_tensor_beyond_two_gibibytes_is_refused_by_name() {
        let (mut g, x) = batched(&[N, Dim::Fixed(1 << 29)]);
        g.outputs = vec![add(&mut g, "Sigmoid", Attrs::new(), x)];
        assert!(fits_the_cpu(&g.at_batch(1).unwrap()).is_ok());
        let e = fits_the_cpu(&g.at_batch(2).unwrap()).unwrap_err().to_string();
        assert!(e.contains("\"x\"") && e.contains("4294967296"), "{e}");
    }
}
