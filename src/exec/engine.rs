//! One engine over both executors, for any number of frames: it splits what does not fit at once.

mod watch;

use super::cpu::{fits_the_cpu, peak_bytes};
use super::{CpuExecutor, ExecError, GpuExecutor, Purpose, Trace, batch_of};
use crate::gpu::{Device, GpuError, Kind};
use crate::graph::lower::{Io, Layout, Lowering, View};
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::{Dim, Tensor, TensorType};
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
}

#[derive(Debug)]
enum Backend {
    /// Executors by batch, the most recently used last.
    Cpu(Vec<(usize, CpuExecutor)>),
    Gpu(Box<GpuExecutor>),
}

impl Engine {
    /// Prepares a graph. Kernels are built and memory is taken at the first run.
    pub fn new(graph: Graph, device: &Device) -> Engine {
        let (backend, budget) = match device {
            Device::Cpu => (Backend::Cpu(Vec::new()), SOFTWARE_BUDGET),
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

    /// Runs any number of frames: in parts where they do not fit at once, which changes no bit of the result.
    /// Inputs in the graph's order; `taps` are values wanted beside the outputs.
    ///
    /// # Errors
    /// Inputs that do not fit the graph or each other, and what the executor says.
    pub fn run(&mut self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
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
        if let Backend::Gpu(gpu) = &self.backend {
            return gpu.run(inputs, taps);
        }
        self.cpu(batch)?.run(inputs, taps)
    }

    /// The CPU's executor for a batch.
    fn cpu(&mut self, batch: usize) -> Result<&CpuExecutor, ExecError> {
        let Backend::Cpu(known) = &mut self.backend else { unreachable!("asked for on the CPU only") };
        match known.iter().position(|(b, _)| *b == batch) {
            Some(i) => known[i..].rotate_left(1),
            None => {
                if known.len() == KEPT_GRAPHS {
                    known.remove(0);
                }
                let graph = self.graph.at_batch(batch)?;
                fits_the_cpu(&graph)?;
                known.push((batch, CpuExecutor::new(graph)));
            }
        }
        let (_, executor) = known.last().expect("just put there");
        Ok(executor)
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
        Trace { values, dispatches, cpu_ops }
    }
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

/// The axis along which frames lie, with k of k*N.
fn batch_axis(ty: &TensorType) -> Option<(usize, usize)> {
    ty.shape.iter().enumerate().find_map(|(axis, d)| match d {
        Dim::Batch(k) => Some((axis, *k)),
        Dim::Fixed(_) => None,
    })
}

/// Elements before the frame axis: how many runs of one frame's elements there are.
fn outer(ty: &TensorType, axis: usize) -> usize {
    ty.shape[..axis].iter().filter_map(|d| d.fixed()).product()
}

/// Whether frame i of every value comes from frame i of the inputs as far as types tell: no value has two axes of
/// frames, none loses its axis, and the frames stay in order where their count changes.
fn is_separable(graph: &Graph) -> bool {
    let two = |ty: &TensorType| ty.shape.iter().filter(|d| matches!(d, Dim::Batch(_))).count() > 1;
    let Ok(sample) = graph.at_batch(2) else { return false };
    !graph.values().iter().any(|v| two(&v.ty))
        && graph
            .nodes()
            .iter()
            .zip(sample.nodes())
            .all(|(node, concrete)| keeps_frames(graph, &sample, node, concrete))
}

fn keeps_frames(graph: &Graph, sample: &Graph, node: &Node, concrete: &Node) -> bool {
    let types =
        |list: &[ValueId]| -> Vec<TensorType> { list.iter().map(|v| graph.value(*v).ty.clone()).collect() };
    let (ins, outs) = (types(&node.inputs), types(&node.outputs));
    let batched: Vec<(&TensorType, (usize, usize))> =
        ins.iter().filter_map(|t| Some((t, batch_axis(t)?))).collect();
    let Some((x, (x_axis, k))) = batched.first() else {
        // From fixed values only: broadcast to the batch, so that all rows are equal.
        return true;
    };
    let Some(rows) = outs.iter().map(batch_axis).collect::<Option<Vec<_>>>() else { return false };
    let same_k = batched.iter().all(|(_, (_, j))| j == k) && rows.iter().all(|(_, j)| j == k);
    let view = |v: &ValueId| {
        let ty = &sample.value(*v).ty;
        View { dtype: ty.dtype, shape: ty.dims().unwrap_or_default(), layout: Layout::Linear }
    };
    let io = Io {
        inputs: concrete.inputs.iter().map(view).collect(),
        outputs: concrete.outputs.iter().map(view).collect(),
    };
    if matches!(concrete.op.lower(&io), Ok(Lowering::Alias)) {
        // The same elements in the same order: frames stay together where as many elements lie before them.
        return outs.iter().zip(&rows).all(|(t, (axis, _))| outer(t, *axis) == outer(x, *x_axis));
    }
    same_k
}

/// Rows `from..from + count` along an axis.
fn rows(t: &Tensor, axis: usize, from: usize, count: usize) -> Tensor {
    let inner: usize = t.shape()[axis + 1..].iter().product::<usize>() * t.dtype().size_bytes();
    let len = t.shape()[axis] * inner;
    let mut shape = t.shape().to_vec();
    shape[axis] = count;
    let mut bytes = Vec::new();
    if len > 0 {
        for run in t.bytes().chunks_exact(len) {
            bytes.extend_from_slice(&run[from * inner..(from + count) * inner]);
        }
    }
    Tensor::from_bytes(t.dtype(), &shape, &bytes).expect("rows of a tensor are a tensor")
}

/// Tensors one after the other along an axis.
fn concatenate(parts: &[Tensor], axis: usize) -> Tensor {
    let first = &parts[0];
    let mut shape = first.shape().to_vec();
    shape[axis] = parts.iter().map(|t| t.shape()[axis]).sum();
    let inner: usize = first.shape()[axis + 1..].iter().product::<usize>() * first.dtype().size_bytes();
    let runs: usize = first.shape()[..axis].iter().product();
    let mut bytes = Vec::with_capacity(parts.iter().map(|t| t.bytes().len()).sum());
    for run in 0..runs {
        for t in parts {
            let len = t.shape()[axis] * inner;
            bytes.extend_from_slice(&t.bytes()[run * len..(run + 1) * len]);
        }
    }
    Tensor::from_bytes(first.dtype(), &shape, &bytes).expect("parts of one type join")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attrs::Input;
    use crate::graph::sample::{Rng, SampleInput};
    use crate::graph::{Attrs, Reader, Source};
    use crate::tensor::DType;

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
    fn a_tensor_beyond_two_gibibytes_is_refused_by_name() {
        let (mut g, x) = batched(&[N, Dim::Fixed(1 << 29)]);
        g.outputs = vec![add(&mut g, "Sigmoid", Attrs::new(), x)];
        assert!(fits_the_cpu(&g.at_batch(1).unwrap()).is_ok());
        let e = fits_the_cpu(&g.at_batch(2).unwrap()).unwrap_err().to_string();
        assert!(e.contains("\"x\"") && e.contains("4294967296"), "{e}");
    }
}
