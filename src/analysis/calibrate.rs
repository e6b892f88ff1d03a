//! Calibration: one pass over a data set, from which every quantizer gets its parameters.

mod numbers;

use super::checkpoint::{self, Saving};
use super::moving::Moving;
use super::statistics::{Skipped, Statistics};
use crate::data::fingerprint::SampleSum;
use crate::data::shards::{Provenance, Shard};
use crate::data::{BoundDataset, DataError, Dataset, Loader, LoaderOptions};
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, Node, NodeId, QuantRule, ValueId, file};
use crate::observers::{self, Observer, Summary};
use crate::ops::fake_quant;
use crate::passes::convert::simulated;
use crate::passes::fuse;
use crate::passes::internals::exposed;
use crate::passes::prepare::Prepared;
use crate::quant::{Origin, QParams, Quantizer, Range, Role, State, power_of_two};
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a pass over the data goes.
#[derive(Clone, Debug, Default)]
pub struct PassOptions {
    /// Frames that run together; default: chosen by the engine.
    pub batch: Option<usize>,
    /// Which samples; default: all.
    pub shard: Option<Shard>,
    /// The file that keeps the statistics.
    pub stats: Option<PathBuf>,
    /// Go on with that file, if there is one; otherwise there must not be one.
    pub resume: bool,
    /// The observers whose ranges will be asked for: some want the frames in order.
    pub observers: Vec<String>,
}

/// What a pass over the data found, and what it did.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The summaries.
    pub statistics: Statistics,
    /// What depends on the order of the frames; empty where the summaries are from a file.
    pub moving: Moving,
    /// Time of the runs, without decoding.
    pub busy: Duration,
    /// Frames that ran now; fewer where others were taken from a file.
    pub timed: usize,
    /// Device dispatches.
    pub dispatches: u64,
    /// Bytes that tensors took at once (see [`crate::exec::Observed::arena_bytes`]); 0 where nothing ran.
    pub arena_bytes: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
    /// What should be known: a halved batch.
    pub warnings: Vec<String>,
}

impl Observed {
    /// Of no data, for a graph whose scales are given.
    pub fn nothing() -> Observed {
        let provenance = Provenance {
            models: Vec::new(),
            preprocessing: String::new(),
            sequence: None,
            count: 0,
            options: BTreeMap::new(),
        };
        Observed::new(
            Statistics::new(provenance, Shard::WHOLE.into(), SampleSum::default(), []),
            Moving::default(),
        )
    }

    fn new(statistics: Statistics, moving: Moving) -> Observed {
        Observed {
            statistics,
            moving,
            busy: Duration::ZERO,
            timed: 0,
            dispatches: 0,
            arena_bytes: 0,
            cpu_ops: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Statistics that were made before, of the same float graph.
    ///
    /// # Errors
    /// A file that is none, or of another graph.
    pub fn from_file(path: &Path, graph: &Graph) -> Result<Observed, Error> {
        let statistics = Statistics::load(path)?;
        let hash = file::digest(graph).map_err(|e| Error::Usage(e.to_string()))?;
        if statistics.provenance.models != [hash] {
            let what = "holds statistics of another model".to_owned();
            return Err(DataError::new(path, what).help("calibrate this one with --data").into());
        }
        Ok(Observed::new(statistics, Moving::default()))
    }
}

/// The tensors of a float graph that a quantizer may need, and parts that are cut from them: whatever is not inside a
/// fused group and not another tensor's elements in another shape.
pub fn watched(graph: &Graph) -> Vec<ValueId> {
    let inner = fuse::groups(graph).inner(graph);
    let inputs = graph.inputs.iter().copied();
    let elements = |v: &ValueId| graph.value(*v).ty.elements();
    let same = |n: &&Node| {
        let codes = matches!(n.op.quant_rule(), QuantRule::Codes);
        codes && n.inputs.first().map(elements) == n.outputs.first().map(elements)
    };
    let nodes = graph.nodes().iter().filter(|n| !same(n) && n.quantizer().is_none());
    let outputs = nodes.flat_map(|n| n.outputs.iter().copied());
    let all = inputs.chain(outputs);
    all.filter(|v| !inner.contains(v) && graph.value(*v).ty.dtype == DType::F32).collect()
}

/// Runs a float graph over a data set and summarises its tensors. `progress` is called with the number of samples done.
/// With a file, it is saved every few seconds, whole or not at all: a run that was killed goes on from there.
///
/// # Errors
/// A data set that does not fit, a failed run, a NaN or infinity in a tensor, a file that does not fit.
pub fn observe(
    graph: &Graph,
    device: &Device,
    data: &Dataset,
    options: &PassOptions,
    mut progress: impl FnMut(usize),
) -> Result<Observed, Error> {
    let hash = file::digest(graph).map_err(|e| Error::Usage(e.to_string()))?;
    let provenance = Provenance::new(vec![hash], data, [])?;
    // What lies inside composite operators is observed, too, whatever the configuration will quantize.
    let mut values = watched(graph);
    let (graph, inside) = exposed(graph).map_err(|e| Error::Usage(e.to_string()))?;
    let graph = &graph;
    values.extend(inside);
    let names: Vec<String> = values.iter().map(|v| graph.value(*v).name.clone()).collect();
    let shard = options.shard.unwrap_or(Shard::WHOLE);
    let mine = data.shard(shard);
    let fresh = Statistics::new(provenance, shard.into(), SampleSum::of(&mine)?, names.iter().cloned());
    let mut stats = match &options.stats {
        Some(path) => open(path, options.resume, fresh)?,
        None => fresh,
    };
    let before = stats.done;
    let rest = mine.skip(before);
    let bound = bind(graph, &rest)?;
    let mut engine = Engine::new(graph.clone(), device);
    if let Some(n) = options.batch {
        engine = engine.with_batch(n);
    }
    let observers = options.observers.iter().map(String::as_str);
    let moving = Moving::new(observers, &names, options.batch.unwrap_or(1));
    let moving = moving.map_err(|e| Error::Usage(e.to_string()))?;
    if !moving.is_empty() && (options.shard.is_some() || before > 0) {
        let what =
            "a moving average depends on the order of the frames: it has no shards and cannot be resumed";
        return Err(Error::Usage(format!("{what}; run the whole data at once, or take minmax")));
    }
    let mut out = Observed::new(stats.clone(), moving);
    let mut saving = Saving::new();
    let path = options.stats.as_deref();
    // At once, so that a file that cannot be written is seen before hours of work.
    path.map(|path| saving.save(|| stats.save(path))).transpose()?;
    progress(before);
    if rest.is_empty() {
        out.statistics = stats;
        return Ok(out);
    }
    let fixed = bound.fixed_batch();
    if let Some(b) = fixed.filter(|b| !rest.len().is_multiple_of(*b)) {
        return Err(Error::Usage(format!(
            "the model takes {b} frames at once, {} samples are no multiple of that: give --limit",
            rest.len()
        )));
    }
    let loading = LoaderOptions { batch: engine.batch(&[])?, ..LoaderOptions::default() };
    let mut loader = Loader::new(bound, loading)?.or_nothing();
    engine.watch(&values)?;
    // What the file held; summaries of this run are added to it.
    let held = stats.tensors.clone();
    let skips_before = stats.skipped.len();
    loop {
        let batch = loader.next().transpose()?;
        if let Some(batch) = &batch {
            let start = Instant::now();
            if fixed.is_some_and(|b| batch.frames() < b) {
                let what =
                    "samples that could not be read leave a batch of the model's fixed size incomplete";
                return Err(Error::Usage(format!("{what}: take them out of the data set")));
            }
            let seen = engine.observe(&batch.inputs)?;
            out.busy += start.elapsed();
            out.timed += batch.frames();
            out.dispatches += seen.dispatches;
            out.arena_bytes = out.arena_bytes.max(seen.arena_bytes);
            out.cpu_ops = seen.cpu_ops;
            numbers::check(&mut engine, batch, &values, &seen.frames)?;
            out.moving.observe(&names, &seen.frames);
        }
        stats.done = before + loader.frames() + loader.skipped().len();
        let seen = stats.skipped.len() - skips_before;
        let new = &loader.skipped()[seen..];
        stats
            .skipped
            .extend(new.iter().map(|s| Skipped { sample: s.sample.clone(), reason: s.reason.clone() }));
        progress(stats.done);
        if batch.is_none() || (path.is_some() && saving.is_due()) {
            for (name, summary) in names.iter().zip(engine.summaries()?) {
                let mut all = held[name].clone();
                all.merge(summary);
                stats.tensors.insert(name.clone(), all);
            }
            path.map(|path| saving.save(|| stats.save(path))).transpose()?;
        }
        if batch.is_none() {
            break;
        }
    }
    out.warnings = engine.warnings().to_vec();
    out.statistics = stats;
    Ok(out)
}

pub(super) fn bind(graph: &Graph, data: &Dataset) -> Result<BoundDataset, Error> {
    let inputs: Vec<_> =
        graph.inputs.iter().map(|v| (graph.value(*v).name.clone(), graph.value(*v).ty.clone())).collect();
    Ok(data.inputs_for(&inputs)?)
}

fn open(path: &Path, resume: bool, fresh: Statistics) -> Result<Statistics, Error> {
    if !checkpoint::is_there(path, resume)? {
        return Ok(fresh);
    }
    let wrong = |what: String| DataError::new(path, what);
    let stats = Statistics::load(path)?;
    checkpoint::check(path, "calibration", "--stats", [&fresh.provenance, &stats.provenance])?;
    if stats.shards != fresh.shards || !stats.tensors.keys().eq(fresh.tensors.keys()) {
        return Err(wrong("holds another shard or other tensors".into()).help("give another --stats").into());
    }
    // What a finished file says of the samples, and more than the others' sequence does.
    if stats.samples != fresh.samples {
        let what = "belongs to another calibration: the names, labels or contents of its samples are others";
        return Err(wrong(what.into()).help("give another --stats").into());
    }
    Ok(stats)
}

/// What became of a quantizer.
#[derive(Clone, Debug)]
pub struct QuantizerReport {
    /// Its node.
    pub id: NodeId,
    /// Its node's name.
    pub name: String,
    /// The quantizer.
    pub quantizer: Quantizer,
    /// Least and greatest number of its tensor, where it was observed.
    pub range: Option<Range>,
    /// Share of the numbers beyond its codes.
    pub clipped: Option<f64>,
    /// What should be known.
    pub warning: Option<String>,
}

/// A calibrated graph.
#[derive(Debug)]
pub struct Calibrated {
    /// The graph, in stage `fake-quant`, its quantizers in state `validation`.
    pub graph: Graph,
    /// One a quantizer, in the graph's order.
    pub quantizers: Vec<QuantizerReport>,
}

/// Gives every quantizer without parameters its parameters: those of constants from their values, the others from what
/// was observed of tensors, by name.
///
/// # Errors
/// Tensors that were not observed or have no numbers, an observer that cannot be.
pub fn fill(
    prepared: &Prepared,
    summaries: &BTreeMap<String, Summary>,
    moving: &Moving,
) -> Result<Calibrated, Error> {
    let mut graph = prepared.graph.clone();
    let mut parsed: HashMap<String, Box<dyn Observer>> = HashMap::new();
    let mut reports = Vec::new();
    for i in 0..graph.nodes().len() {
        let node = &graph.nodes()[i];
        let Some(q) = node.quantizer().cloned() else { continue };
        let (id, name) = (node.id, node.name.clone());
        let wrong = |e: &dyn std::fmt::Display| Error::Usage(format!("quantizer {id} {name:?}: {e}"));
        let constant = graph.value(node.inputs[0]).constant.clone();
        let tensor = prepared.observed.get(&id);
        let summary = match &constant {
            Some(t) => Some(summary_of(t)),
            None => tensor.and_then(|v| summaries.get(v)).cloned(),
        };
        let mut q = q;
        let mut warning = None;
        if q.params.is_none() {
            let text = q.spec.observer.clone();
            if !parsed.contains_key(&text) {
                parsed.insert(text.clone(), observers::parse(&text).map_err(|e| wrong(&e))?);
            }
            let observer = parsed[&text].as_ref();
            let masked =
                prepared.masked.get(&id).map(|before| summaries.get(before).and_then(Summary::range));
            let unmasked = masked.and_then(|before| unmasked(summary.as_ref()?.range()?, before));
            let found = match unmasked.or_else(|| tensor.and_then(|t| moving.range(&text, t))) {
                Some(range) => from_ranges(&q, &[range]),
                None => parameters(&q, observer, constant.as_ref(), summary.as_ref()),
            };
            let params = found.map_err(|e| wrong(&e))?;
            let zero = summary.as_ref().and_then(Summary::range).is_some_and(|r| r.absmax() == 0.0);
            warning = zero.then(|| "its tensor is zero everywhere: scale 1".to_owned());
            warning = warning.or_else(|| {
                let low = unmasked?.low;
                Some(format!(
                    "numbers below {low} are taken for masked: their exponentials are 0 in any softmax"
                ))
            });
            q.origin = Origin::Observed;
            q.params = Some(params);
        }
        q.state = State::Validation;
        let range = summary.as_ref().and_then(Summary::range);
        let clipped = match (&q.params, &summary) {
            (Some(p), Some(s)) if p.scales().len() == 1 => Some(clipped(p, s)),
            _ => None,
        };
        graph.set_op(i, fake_quant(q.clone()));
        reports.push(QuantizerReport { id, name, quantizer: q, range, clipped, warning });
    }
    graph.verify().map_err(|e| Error::Usage(e.to_string()))?;
    Ok(Calibrated { graph, quantizers: reports })
}

/// The range of attention scores that a mask does not move away, where it moves any: down to where the exponential of
/// what lies below the least score before the mask is zero in 16 bits.
fn unmasked(scores: Range, before: Option<Range>) -> Option<Range> {
    /// exp(-16) is below 2^-23.
    const FAR: f32 = 16.0;
    // Inside a fused group there are no statistics: scores are as large below zero as above.
    let least = before.map_or(-scores.high.abs(), |b| b.low);
    let low = least.min(scores.high) - FAR;
    // Twice as far is still no mask, but a bias.
    (scores.low < low - FAR - scores.high.abs()).then(|| Range::new(low, scores.high).ok())?
}

fn summary_of(t: &Tensor) -> Summary {
    let mut s = Summary::new();
    s.observe(t.f32s(), &[t.len()]);
    s
}

fn parameters(
    q: &Quantizer,
    observer: &dyn Observer,
    constant: Option<&Tensor>,
    summary: Option<&Summary>,
) -> Result<QParams, Box<dyn std::error::Error>> {
    let spec = &q.spec;
    let ranges = match (constant, spec.axis, summary) {
        (Some(t), Some(axis), _) => observers::channel_ranges(observer, t, axis, spec.dtype, spec.scheme)?,
        (_, _, Some(s)) => vec![observer.range(s, spec.dtype, spec.scheme)?],
        _ => return Err("its tensor was not observed".into()),
    };
    from_ranges(q, &ranges)
}

/// Parameters from the range of a tensor, or of each index of the quantizer's axis.
fn from_ranges(q: &Quantizer, ranges: &[Range]) -> Result<QParams, Box<dyn std::error::Error>> {
    let spec = &q.spec;
    let params = match spec.axis {
        Some(axis) => spec.scheme.per_channel(ranges, spec.dtype, axis)?,
        None => spec.scheme.per_tensor(ranges[0], spec.dtype)?,
    };
    let params = if spec.power_of_two {
        let scales = params.scales().iter().map(|s| power_of_two(*s)).collect();
        QParams::new(params.dtype(), params.narrow(), scales, params.zero_points().to_vec(), params.axis())?
    } else {
        params
    };
    Ok(params.rounded(spec.rounding).divided(spec.division))
}

/// Share of a summary's numbers beyond the codes of a quantizer.
pub(super) fn clipped(params: &QParams, summary: &Summary) -> f64 {
    let step = params.step(0);
    let (low, high) = params.codes();
    // Half a step beyond the outermost codes still rounds to them.
    let half = 0.5 * f64::from(step.scale());
    let (low, high) = (f64::from(step.dequantize(low)) - half, f64::from(step.dequantize(high)) + half);
    let mut beyond = 0.0;
    for bin in summary.bins() {
        let width = bin.high - bin.low;
        let inside = (bin.high.min(high) - bin.low.max(low)).max(0.0);
        let is_point = width <= 0.0;
        let share = if is_point {
            f64::from(u8::from(bin.low > high || bin.low < low))
        } else {
            1.0 - inside / width
        };
        beyond += bin.count * share;
    }
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    let all = summary.elements().max(1) as f64;
    beyond / all
}

/// Quantizers of a graph that keep it from being evaluated, with the reason; none where it is a float graph.
pub fn unfit(graph: &Graph) -> Vec<String> {
    let mut out = Vec::new();
    for node in graph.nodes() {
        let Some(q) = node.quantizer() else { continue };
        let why = match (q.state, &q.params) {
            (State::Validation, Some(_)) | (State::Float, _) => continue,
            (State::Validation | State::Qat, None) => "never saw data",
            (state, _) => state.name(),
        };
        out.push(format!("{} {:?} ({why})", node.id, node.name));
    }
    out
}

/// Refuses a graph that cannot be evaluated, with its quantizers.
///
/// # Errors
/// A quantizer that never saw data, or in a state that does not fit.
pub fn refuse_unfit(label: &str, graph: &Graph) -> Result<(), Error> {
    const NAMED: usize = 20;
    let unfit = unfit(graph);
    if unfit.is_empty() {
        return Ok(());
    }
    let more =
        if unfit.len() > NAMED { format!("\n  and {} more", unfit.len() - NAMED) } else { String::new() };
    let named = unfit[..unfit.len().min(NAMED)].join("\n  ");
    Err(Error::Usage(format!(
        "{label}: quantizers in a state that does not fit evaluation (`samebit calibrate` brings them to validation):\n  {named}{more}"
    )))
}

/// What runs in place of a graph: itself, or the operators on codes that a simulation at level 4 is made of.
///
/// # Errors
/// As [`refuse_unfit`], and what has no integer model.
pub fn runnable(label: &str, graph: Graph) -> Result<Graph, Error> {
    refuse_unfit(label, &graph)?;
    simulated(graph).map_err(|source| Error::Pass { path: label.into(), source: Box::new(source) })
}

/// The state of a graph's quantizers, with counts where there are several; none without quantizers.
pub fn state(graph: &Graph) -> Option<String> {
    let mut out: BTreeMap<&str, usize> = BTreeMap::new();
    graph
        .nodes()
        .iter()
        .filter_map(|n| n.quantizer())
        .for_each(|q| *out.entry(q.state.name()).or_insert(0) += 1);
    match out.len() {
        0 => None,
        1 => out.into_keys().next().map(str::to_owned),
        _ => Some(out.into_iter().map(|(s, n)| format!("{s} {n}")).collect::<Vec<_>>().join(", ")),
    }
}

/// Whether a quantizer's role is that of a constant.
pub fn is_constant(role: Role) -> bool {
    matches!(role, Role::Weight | Role::Constant)
}
