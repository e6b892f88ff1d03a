//! The GPU executor: plans made concrete on a device, kept for the next run.

mod watch;

use super::plan::{Constant, Memory, Plan, Span, Transfer};
use super::relayout::{from_words, to_words};
use super::{ExecError, NanCount, Purpose, Trace};
use crate::gpu::{Bound, Buffer, Copy, Counters, Gpu, Region, Submission};
use crate::graph::lower::{Layout, View};
use crate::graph::{Graph, Scratch, ValueId};
use crate::tensor::{DType, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Plans kept at a time; each holds its own arenas.
const KEPT_PLANS: usize = 4;

/// Bytes of one buffer of constants, unless one constant is larger.
const CONSTANT_BUFFER: u64 = 64 << 20;

/// What a plan is made for.
type Key = (usize, Purpose);

/// A part of a buffer of constants.
#[derive(Clone, Debug)]
struct Part {
    buffer: Buffer,
    offset: u64,
}

/// Runs a graph on a GPU at any batch.
#[derive(Debug)]
pub struct GpuExecutor {
    gpu: Arc<Gpu>,
    graph: Graph,
    /// The most recently used last.
    plans: Mutex<Vec<(Key, Arc<Mutex<Ready>>)>>,
    /// Constants on the device, shared by all plans.
    constants: Mutex<HashMap<Constant, Part>>,
    scratch: Scratch,
    watching: Mutex<Option<watch::Watching>>,
    poison: bool,
}

/// A plan with its memory.
#[derive(Debug)]
struct Ready {
    graph: Graph,
    plan: Plan,
    segments: Vec<ReadySegment>,
    upload: Option<Buffer>,
    readback: Option<Buffer>,
    counters: Counters,
}

/// What a segment submits.
#[derive(Debug)]
struct ReadySegment {
    before: Vec<Copy>,
    dispatches: Vec<Bound>,
    after: Vec<Copy>,
    /// Whether no dispatch of the run came before.
    clear: bool,
    /// Where the counts of NaN come to in the readback buffer, in the last segment of a plan that does not observe.
    counters_at: Option<u64>,
    /// Where the results of what is watched come to, in the last segment of a plan that observes.
    results: Option<Buffer>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GpuExecutor {
    /// Prepares a graph, symbolic or concrete. Nothing is compiled or allocated before the first run.
    pub fn new(gpu: Arc<Gpu>, graph: &Graph) -> Self {
        GpuExecutor {
            gpu,
            graph: graph.clone(),
            plans: Mutex::default(),
            constants: Mutex::default(),
            scratch: Scratch::new(),
            watching: Mutex::default(),
            poison: false,
        }
    }

    /// Fills all temporary memory with NaN before each run, so that a kernel that reads what nobody wrote is seen.
    pub fn poison(mut self) -> Self {
        self.poison = true;
        self
    }

    /// The plan for a batch.
    ///
    /// # Errors
    /// What [`Plan::new`] refuses, and a graph that does not hold at this batch.
    pub fn plan(&self, batch: usize, taps: &[ValueId]) -> Result<Plan, ExecError> {
        Plan::new(&self.graph.at_batch(batch)?, taps, self.gpu.limits())
    }

    pub(super) fn plan_for(&self, batch: usize, purpose: &Purpose) -> Result<Plan, ExecError> {
        match purpose {
            Purpose::Taps(taps) => self.plan(batch, taps),
            Purpose::Watch => self.observing_plan(batch),
        }
    }

    /// Gives the memory of all plans back; constants stay.
    pub fn forget_plans(&self) {
        lock(&self.plans).clear();
    }

    /// Builds the plan, the kernels and the memory of a batch.
    ///
    /// # Errors
    /// What is beyond the device, and its failures.
    pub fn prepare(&self, batch: usize, taps: &[ValueId]) -> Result<(), ExecError> {
        self.ready(batch, &Purpose::Taps(taps.to_vec())).map(drop)
    }

    /// Runs once, at the batch that the inputs have. Inputs in the graph's order; `taps` are values wanted beside the
    /// outputs. Equal calls reuse plans, kernels and memory.
    ///
    /// # Errors
    /// Inputs that do not fit, what is beyond the device, and its failures.
    pub fn run(&self, inputs: &[Tensor], taps: &[ValueId]) -> Result<Trace, ExecError> {
        let batch = super::batch_of(&self.graph, inputs)?;
        let ready = self.ready(batch, &Purpose::Taps(taps.to_vec()))?;
        let ready = lock(&ready);
        let (host, counts) = self.execute(&ready, inputs)?;
        let wanted = ready.graph.outputs.iter().chain(taps);
        let values = wanted.map(|v| (*v, value(&ready.graph, &host, *v))).collect();
        let counts = ready.plan.quantizers.iter().copied().zip(counts.into_iter().map(u64::from));
        let nans = NanCount::all(&ready.graph, counts);
        Ok(Trace { values, dispatches: ready.plan.dispatches(), cpu_ops: ready.plan.cpu_ops.clone(), nans })
    }

    /// Runs all segments: the values that are then on the host, and the results of what is watched, or else the counts
    /// of NaN.
    fn execute(
        &self,
        ready: &Ready,
        inputs: &[Tensor],
    ) -> Result<(HashMap<ValueId, Tensor>, Vec<u32>), ExecError> {
        super::check_inputs(&ready.graph, inputs)?;
        let mut host: HashMap<ValueId, Tensor> = HashMap::new();
        for (v, t) in ready.graph.inputs.iter().zip(inputs) {
            host.insert(*v, t.clone());
        }
        let mut results = Vec::new();
        for (planned, segment) in ready.plan.segments.iter().zip(&ready.segments) {
            for node in planned.host.iter().map(|i| &ready.graph.nodes()[*i]) {
                let args: Vec<Tensor> = node.inputs.iter().map(|v| value(&ready.graph, &host, *v)).collect();
                // No quantizer: these have kernels.
                let (outputs, _) = super::eval(node, &self.scratch, &args)?;
                host.extend(node.outputs.iter().copied().zip(outputs));
            }
            results = self.device_part(ready, &planned.uploads, &planned.reads, segment, &mut host)?;
        }
        Ok((host, results))
    }

    fn device_part(
        &self,
        ready: &Ready,
        uploads: &[Transfer],
        reads: &[Transfer],
        segment: &ReadySegment,
        host: &mut HashMap<ValueId, Tensor>,
    ) -> Result<Vec<u32>, ExecError> {
        if segment.before.is_empty() && segment.dispatches.is_empty() && segment.after.is_empty() {
            for r in reads {
                host.insert(r.value, from_words(r.view.dtype, &r.view.shape, r.view.layout, &[]));
            }
            return Ok(Vec::new());
        }
        let upload = ready.upload.as_ref().filter(|_| !uploads.is_empty());
        if let Some(buffer) = upload {
            let words: Vec<(u64, Cow<'_, [u8]>)> =
                uploads.iter().map(|u| (u.offset, device_bytes(&host[&u.value], &u.view))).collect();
            let parts: Vec<(u64, &[u8])> = words.iter().map(|(o, b)| (*o, &**b)).collect();
            self.gpu.fill_upload(buffer, &parts)?;
        }
        let readback = ready.readback.as_ref().filter(|_| !segment.after.is_empty());
        let readback = segment.results.as_ref().or(readback);
        self.gpu.submit(&Submission {
            before: &segment.before,
            dispatches: &segment.dispatches,
            after: &segment.after,
            counters: Some(&ready.counters),
            clear: segment.clear,
            upload,
            readback,
        })?;
        if let Some(results) = &segment.results {
            return Ok(self.gpu.read(results, bytemuck::pod_collect_to_vec)?);
        }
        let bytes_of = |all: &[u8], r: &Transfer| -> Tensor {
            let from = usize::try_from(r.offset).expect("within a buffer");
            let len = usize::try_from(r.at.bytes).expect("within a buffer");
            // Where every output is empty nothing is read back.
            let part = if len == 0 { &[] } else { &all[from..from + len] };
            let words: Cow<'_, [u32]> = bytemuck::try_cast_slice(part)
                .map_or_else(|_| bytemuck::pod_collect_to_vec(part).into(), Cow::Borrowed);
            from_words(r.view.dtype, &r.view.shape, r.view.layout, &words)
        };
        let counts_of = |all: &[u8]| -> Vec<u32> {
            let Some(at) = segment.counters_at else { return Vec::new() };
            let from = usize::try_from(at).expect("within a buffer");
            bytemuck::pod_collect_to_vec(&all[from..from + 4 * ready.plan.quantizers.len()])
        };
        let tensors = |all: &[u8]| reads.iter().map(|r| (r.value, bytes_of(all, r))).collect::<Vec<_>>();
        let (got, counts) = match readback {
            Some(buffer) => self.gpu.read(buffer, |all| (tensors(all), counts_of(all)))?,
            None => (tensors(&[]), Vec::new()),
        };
        host.extend(got);
        Ok(counts)
    }

    /// The plan for a batch and a purpose, with its memory, made at the first call.
    fn ready(&self, batch: usize, purpose: &Purpose) -> Result<Arc<Mutex<Ready>>, ExecError> {
        let key = (batch, purpose.clone());
        let mut plans = lock(&self.plans);
        if let Some(i) = plans.iter().position(|(k, _)| *k == key) {
            let found = plans.remove(i);
            let ready = Arc::clone(&found.1);
            plans.push(found);
            return Ok(ready);
        }
        if plans.len() == KEPT_PLANS {
            plans.remove(0);
        }
        let graph = self.graph.at_batch(batch)?;
        let plan = self.plan_for(batch, purpose)?;
        let ready = Arc::new(Mutex::new(self.make_ready(graph, plan)?));
        plans.push((key, Arc::clone(&ready)));
        Ok(ready)
    }

    fn make_ready(&self, graph: Graph, plan: Plan) -> Result<Ready, ExecError> {
        let gpu = &*self.gpu;
        let arenas: Vec<Buffer> = (0..)
            .zip(&plan.arenas)
            .map(|(i, bytes): (usize, _)| gpu.storage(&format!("arena {i}"), *bytes))
            .collect::<Result<_, _>>()?;
        let constants = self.constants(&graph, &plan)?;
        let tables = upload_all(gpu, "tables", &plan.tables)?;
        let params = gpu.uniforms("params", plan.params.len() as u64)?;
        if !plan.params.is_empty() {
            gpu.write(&params, 0, &plan.params)?;
        }
        let some = |bytes: u64| (bytes > 0).then_some(bytes);
        let upload = some(plan.upload_bytes).map(|b| gpu.upload_buffer("upload", b)).transpose()?;
        let readback = some(plan.readback_bytes).map(|b| gpu.readback_buffer("readback", b)).transpose()?;
        let results = some(plan.result_bytes).map(|b| gpu.storage("results", b)).transpose()?;
        let counters = gpu.counters(plan.quantizers.len())?;
        let watching = lock(&self.watching);
        let locate = |s: &Span| -> (&Buffer, u64) {
            match s.memory {
                Memory::Results => (results.as_ref().expect("it has bytes"), s.offset),
                Memory::Histograms => (&watching.as_ref().expect("the plan watches").histograms, s.offset),
                Memory::Arena(a) => (&arenas[a], s.offset),
                Memory::Constant(c) => (&constants[c].buffer, constants[c].offset + s.offset),
                Memory::Table(t) => (&tables[t].buffer, tables[t].offset + s.offset),
            }
        };
        let mut segments = Vec::new();
        let mut poison = if self.poison { self.poisoning(&arenas)? } else { Vec::new() };
        for s in &plan.segments {
            let mut before = std::mem::take(&mut poison);
            before.extend(s.uploads.iter().filter(|u| u.at.bytes > 0).filter_map(|u| {
                let (to, to_offset) = locate(&u.at);
                let from = upload.clone()?;
                Some(Copy { from, from_offset: u.offset, to: to.clone(), to_offset, bytes: u.at.bytes })
            }));
            let mut dispatches = Vec::with_capacity(s.steps.len());
            for step in &s.steps {
                let pipeline = gpu.pipeline(step.kernel, &step.overrides)?;
                let regions: Vec<Region<'_>> = step
                    .bind
                    .iter()
                    .map(|b| {
                        let (buffer, offset) = locate(b);
                        Region { buffer, offset, bytes: b.bytes }
                    })
                    .collect();
                let group = gpu.bind(&pipeline, &params, step.params_offset, &regions)?;
                dispatches.push(Bound { pipeline, group, grid: step.grid });
            }
            let after = s.reads.iter().filter(|r| r.at.bytes > 0).filter_map(|r| {
                let (from, from_offset) = locate(&r.at);
                let to = readback.clone()?;
                Some(Copy { from: from.clone(), from_offset, to, to_offset: r.offset, bytes: r.at.bytes })
            });
            let after = after.collect();
            let clear =
                !dispatches.is_empty() && segments.iter().all(|s: &ReadySegment| s.dispatches.is_empty());
            segments.push(ReadySegment {
                before,
                dispatches,
                after,
                clear,
                counters_at: None,
                results: None,
            });
        }
        if let (Some(from), Some(last)) = (&results, segments.last_mut()) {
            let to = gpu.readback_buffer("readback of results", from.size())?;
            let (from, bytes) = (from.clone(), from.size());
            last.after.push(Copy { from, from_offset: 0, to: to.clone(), to_offset: 0, bytes });
            last.results = Some(to);
        } else if let (Some(at), Some(to), Some(last)) = (plan.counters_at, &readback, segments.last_mut()) {
            let (from, bytes) = (counters.buffer.clone(), plan.quantizers.len() as u64 * 4);
            last.after.push(Copy { from, from_offset: 0, to: to.clone(), to_offset: at, bytes });
            last.counters_at = Some(at);
        }
        Ok(Ready { graph, plan, segments, upload, readback, counters })
    }

    /// Copies that fill arenas with NaN.
    fn poisoning(&self, arenas: &[Buffer]) -> Result<Vec<Copy>, ExecError> {
        const NAN: u32 = 0x7fc0_0000;
        let largest = arenas.iter().map(Buffer::size).max().unwrap_or(0);
        let from = self.gpu.storage("poison", largest)?;
        let words = vec![NAN; usize::try_from(largest / 4).expect("fits in memory")];
        if !words.is_empty() {
            self.gpu.write(&from, 0, bytemuck::cast_slice(&words))?;
        }
        let fill = |to: &Buffer| Copy {
            from: from.clone(),
            from_offset: 0,
            to: to.clone(),
            to_offset: 0,
            bytes: to.size(),
        };
        Ok(arenas.iter().map(fill).collect())
    }

    /// Constants of a plan on the device; those that no plan has used before are uploaded.
    fn constants(&self, graph: &Graph, plan: &Plan) -> Result<Vec<Part>, ExecError> {
        let mut known = lock(&self.constants);
        let missing: Vec<&Constant> =
            plan.constants.iter().map(|(c, _)| c).filter(|c| !known.contains_key(*c)).collect();
        let mut words = Vec::with_capacity(missing.len());
        for c in &missing {
            let t = graph.value(c.value).constant.as_ref().expect("the plan took it for a constant");
            words.push(to_words(&t.reshaped(c.shape.clone()), c.layout));
        }
        let parts = upload_all(&self.gpu, "constants", &words)?;
        known.extend(missing.into_iter().cloned().zip(parts));
        Ok(plan.constants.iter().map(|(c, _)| known[c].clone()).collect())
    }
}

/// A value that is on the host.
fn value(graph: &Graph, host: &HashMap<ValueId, Tensor>, v: ValueId) -> Tensor {
    match &graph.value(v).constant {
        Some(t) => t.clone(),
        None => host[&v].clone(),
    }
}

/// The bytes that a tensor has on the device.
fn device_bytes<'a>(t: &'a Tensor, view: &View) -> Cow<'a, [u8]> {
    if view.layout == Layout::Linear && matches!(t.dtype(), DType::F32 | DType::I32) {
        return Cow::Borrowed(t.bytes());
    }
    Cow::Owned(bytemuck::cast_slice(&to_words(t, view.layout)).to_vec())
}

/// Words, packed into as few buffers as sensible.
fn upload_all(gpu: &Gpu, name: &str, all: &[Vec<u32>]) -> Result<Vec<Part>, ExecError> {
    let limits = gpu.limits();
    let most = CONSTANT_BUFFER.min(limits.buffer_bytes);
    let mut parts = Vec::with_capacity(all.len());
    let mut rest = all;
    while !rest.is_empty() {
        let mut offsets = Vec::new();
        let mut end = 0u64;
        for words in rest {
            let bytes = (words.len() as u64 * 4).max(16).next_multiple_of(16);
            let offset = limits.align_storage(end);
            if offset + bytes > most && !offsets.is_empty() {
                break;
            }
            offsets.push(offset);
            end = offset + bytes;
        }
        let buffer = gpu.storage(name, end)?;
        let (now, later) = rest.split_at(offsets.len());
        for (words, offset) in now.iter().zip(offsets) {
            if !words.is_empty() {
                gpu.write(&buffer, offset, bytemuck::cast_slice(words))?;
            }
            parts.push(Part { buffer: buffer.clone(), offset });
        }
        rest = later;
    }
    Ok(parts)
}
