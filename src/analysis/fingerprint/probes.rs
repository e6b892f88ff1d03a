//! A search for inputs on which profiles differ.

use super::candidates::Candidates;
use super::draw::{Drawn, FORMS, Slot, slots};
use super::read::{codes_behind, tells};
use super::segment::{Slack, segment};
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::sample::Rng;
use crate::graph::{Graph, ValueId};
use crate::quant::QParams;
use crate::tensor::{DType, Dim, Tensor};
use std::collections::{BTreeMap, HashSet};

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Frames to try, at most.
    pub tries: usize,
    /// Of the random numbers: one seed gives one set of probes.
    pub seed: u64,
    /// Elements in which two profiles should differ.
    pub witnesses: u64,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        ProbeOptions { tries: 512, seed: 0, witnesses: 4 }
    }
}

/// Where two candidates were found to differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeparatedAt {
    /// In outputs of the model: these elements of all probes.
    Outputs(u64),
    /// In tensors inside alone, the last one of which is named: a black box must show it.
    Inside(String, u64),
    /// Nowhere.
    Nowhere,
}

/// Two candidates, as positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The first one.
    pub a: usize,
    /// The second one.
    pub b: usize,
    /// Where they differ in the frames that were kept.
    pub at: SeparatedAt,
}

/// Frames of an input.
#[derive(Clone, Debug)]
pub struct ProbeInput {
    /// Its name.
    pub name: String,
    /// As the graph takes it.
    pub values: Tensor,
    /// As codes, with what they stand for, where the graph quantizes it.
    pub codes: Option<(Tensor, QParams)>,
}

/// Inputs on which candidates differ.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Of each input of the graph.
    pub inputs: Vec<ProbeInput>,
    /// What each frame is.
    pub samples: Vec<String>,
    /// Every pair of candidates.
    pub pairs: Vec<Pair>,
    /// Frames that were tried.
    pub tried: usize,
    /// Dispatches on the device.
    pub dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, String)>,
}

/// A frame that was tried.
struct Tried {
    what: String,
    inputs: Vec<Drawn>,
    /// For each pair, elements of outputs that tell.
    outputs: Vec<u64>,
    /// For each pair, the last tensor inside that tells, and elements of it.
    inside: Vec<Option<(usize, u64)>>,
}

/// A tensor that is watched: an output, or one inside.
struct Tap {
    name: String,
    output: bool,
    slack: Slack,
}

struct Search<'a> {
    engines: Vec<(Engine, Vec<ValueId>)>,
    taps: Vec<Tap>,
    slots: Vec<Slot>,
    pairs: Vec<(usize, usize)>,
    kept: Vec<Tried>,
    options: &'a ProbeOptions,
    dispatches: u64,
    cpu_ops: Vec<(String, String)>,
}

/// Whether axis 0 of all inputs and watched tensors counts frames, so that they can be run together.
fn by_rows(graph: &Graph, values: &[ValueId]) -> bool {
    let all = graph.inputs.iter().chain(values);
    all.into_iter().all(|v| graph.value(*v).ty.shape.first() == Some(&Dim::Batch(1)))
}

/// The tensors to watch, by name: outputs, and inside what operators on codes make.
fn taps(graph: &Graph) -> Vec<(ValueId, Tap)> {
    let given: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    let ends: Vec<ValueId> = graph.outputs.iter().map(|v| codes_behind(graph, *v)).collect();
    let made = graph.nodes().iter().filter(|n| n.op.integer_of().is_some() || n.op.def().name == "Table");
    let inside = made.flat_map(|n| n.outputs.iter().copied()).filter(|v| !ends.contains(v));
    let all: Vec<(ValueId, bool)> =
        inside.map(|v| (v, false)).chain(ends.iter().map(|v| (*v, true))).collect();
    let tap = |(v, output): (ValueId, bool)| {
        let slack = segment(graph, v, &given).slack;
        (v, Tap { name: graph.value(v).name.clone(), output, slack })
    };
    all.into_iter().map(tap).collect()
}

impl<'a> Search<'a> {
    fn new(candidates: &Candidates, device: &Device, options: &'a ProbeOptions) -> Result<Search<'a>, Error> {
        let first = &candidates.fit[0].graph;
        let taps: Vec<Tap> = taps(first).into_iter().map(|(_, t)| t).collect();
        let mut engines = Vec::new();
        for c in &candidates.fit {
            let find = |t: &Tap| {
                let missing =
                    || Error::Usage(format!("{}: has no tensor {:?}", c.profiles.join(", "), t.name));
                c.graph.find_value(&t.name).ok_or_else(missing)
            };
            let values = taps.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            engines.push((Engine::new(c.graph.clone(), device), values));
        }
        let n = candidates.fit.len();
        let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
        let slots = slots(first)?;
        let (kept, dispatches, cpu_ops) = (Vec::new(), 0, Vec::new());
        Ok(Search { engines, taps, slots, pairs, kept, options, dispatches, cpu_ops })
    }

    /// Elements of outputs that tell a pair apart, in all frames that were kept.
    fn witnesses(&self, pair: usize) -> u64 {
        self.kept.iter().map(|t| t.outputs[pair]).sum()
    }

    fn open(&self) -> Vec<usize> {
        (0..self.pairs.len()).filter(|p| self.witnesses(*p) < self.options.witnesses).collect()
    }

    /// The frame that comes nearest to telling a pair apart in an output.
    fn nearest(&self, pair: usize) -> Option<&Tried> {
        self.kept
            .iter()
            .filter(|t| t.inside[pair].is_some())
            .max_by_key(|t| (t.outputs[pair], t.inside[pair]))
    }

    /// Runs frames and keeps those that tell something.
    fn try_all(&mut self, frames: &[(String, Vec<Drawn>)], together: bool) -> Result<(), Error> {
        let size = if together { frames.len().max(1) } else { 1 };
        for part in frames.chunks(size) {
            let inputs: Vec<Tensor> = (0..self.slots.len())
                .map(|i| joined(&part.iter().map(|(_, d)| &d[i].values).collect::<Vec<_>>()))
                .collect();
            let mut made: Vec<Vec<Tensor>> = Vec::new();
            for (engine, values) in &mut self.engines {
                let mut trace = engine.run(&inputs, values)?;
                self.dispatches += trace.dispatches;
                for (node, why) in trace.cpu_ops.drain(..) {
                    let op = (node, why.to_owned());
                    if !self.cpu_ops.contains(&op) {
                        self.cpu_ops.push(op);
                    }
                }
                made.push(values.iter().map(|v| trace.values[v].clone()).collect());
            }
            for (row, (what, drawn)) in part.iter().enumerate() {
                let tried = self.tried(what, drawn, &made, (row, part.len()));
                self.keep(tried);
            }
        }
        Ok(())
    }

    fn tried(&self, what: &str, drawn: &[Drawn], made: &[Vec<Tensor>], row: (usize, usize)) -> Tried {
        let (mut outputs, mut inside) = (vec![0; self.pairs.len()], vec![None; self.pairs.len()]);
        for (p, (a, b)) in self.pairs.iter().enumerate() {
            for (k, tap) in self.taps.iter().enumerate() {
                let count = telling(&made[*a][k], &made[*b][k], tap.slack, row);
                if tap.output {
                    outputs[p] += count;
                } else if count > 0 {
                    inside[p] = Some((k, count));
                }
            }
        }
        Tried { what: what.to_owned(), inputs: drawn.to_vec(), outputs, inside }
    }

    fn keep(&mut self, new: Tried) {
        let tells = self.open().into_iter().any(|p| {
            let before = self.nearest(p).map(|t| (t.outputs[p], t.inside[p]));
            new.outputs[p] > 0 || (new.inside[p].is_some() && Some((0, new.inside[p])) > before)
        });
        if tells || self.kept.is_empty() {
            self.kept.push(new);
        }
    }

    /// The next frames: drawn, and for pairs that are still open near those that almost tell them apart.
    fn draw(&self, from: usize, count: usize) -> Result<Vec<(String, Vec<Drawn>)>, Error> {
        let open = self.open();
        let mut out = Vec::new();
        for i in from..from + count {
            let mut rng = Rng::new(self.options.seed ^ (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let near =
                open.get(i / 2 % open.len().max(1)).and_then(|p| self.nearest(*p)).filter(|_| i % 2 == 1);
            out.push(match near {
                Some(t) => {
                    let base = t.what.split(" near ").last().unwrap_or_default();
                    let drawn = self.slots.iter().zip(&t.inputs).map(|(s, d)| s.near(&mut rng, d));
                    (format!("{i} near {base}"), drawn.collect())
                }
                None => {
                    let form = i % FORMS.len();
                    let drawn = self.slots.iter().map(|s| s.draw(&mut rng, form));
                    (format!("{i} {}", FORMS[form]), drawn.collect::<Result<_, _>>()?)
                }
            });
        }
        Ok(out)
    }

    /// Few of the frames that were kept, by what each adds: first where outputs tell, then where tensors inside do.
    fn choose(&self, most: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut needed = vec![self.options.witnesses; self.pairs.len()];
        let mut pick = |gain: &dyn Fn(&Tried, usize) -> u64, needed: &mut Vec<u64>| {
            while chosen.len() < most {
                let worth = |i: usize| -> u64 {
                    let all = needed.iter().enumerate();
                    all.map(|(p, need)| gain(&self.kept[i], p).min(*need)).sum()
                };
                let free = (0..self.kept.len()).filter(|i| !chosen.contains(i));
                // Of equals the first.
                let Some(best) = free.max_by_key(|i| (worth(*i), usize::MAX - i)).filter(|i| worth(*i) > 0)
                else {
                    break;
                };
                for (p, need) in needed.iter_mut().enumerate() {
                    *need = need.saturating_sub(gain(&self.kept[best], p));
                }
                chosen.push(best);
            }
        };
        pick(&|t, p| t.outputs[p], &mut needed);
        let mut inside: Vec<u64> = (0..self.pairs.len()).map(|p| u64::from(self.witnesses(p) == 0)).collect();
        pick(&|t, p| u64::from(t.inside[p].is_some()), &mut inside);
        if chosen.is_empty() {
            chosen.push(0);
        }
        chosen.sort_unstable();
        chosen
    }

    fn pair(&self, p: usize, chosen: &[usize]) -> Pair {
        let (a, b) = self.pairs[p];
        let outputs: u64 = chosen.iter().map(|i| self.kept[*i].outputs[p]).sum();
        let inside = chosen.iter().filter_map(|i| self.kept[*i].inside[p]).max();
        let at = match inside {
            _ if outputs > 0 => SeparatedAt::Outputs(outputs),
            Some((tap, count)) => SeparatedAt::Inside(self.taps[tap].name.clone(), count),
            None => SeparatedAt::Nowhere,
        };
        Pair { a, b, at }
    }
}

/// Elements of one frame of two tensors that tell them apart.
fn telling(a: &Tensor, b: &Tensor, slack: Slack, (row, rows): (usize, usize)) -> u64 {
    let n = a.len() / rows.max(1);
    let at = row * n..(row + 1) * n;
    at.filter(|i| tells(slack, a.dtype(), a.number(*i), b.number(*i))).count() as u64
}

/// Frames along axis 0.
fn joined(frames: &[&Tensor]) -> Tensor {
    let first = frames[0];
    let mut shape = first.shape().to_vec();
    if let Some(rows) = shape.first_mut().filter(|_| frames.len() > 1) {
        *rows *= frames.len();
    }
    let bytes: Vec<u8> = frames.iter().flat_map(|t| t.bytes()).copied().collect();
    Tensor::from_bytes(first.dtype(), &shape, &bytes).expect("frames of one shape are a tensor")
}

/// Frames of a batch of data.
fn split(slots: &[Slot], batch: &[Tensor], frames: usize) -> Vec<Vec<Drawn>> {
    let row = |t: &Tensor, slot: &Slot, i: usize| {
        let n = t.bytes().len() / t.shape().first().copied().unwrap_or(1).max(1);
        Tensor::from_bytes(t.dtype(), &slot.shape, &t.bytes()[i * n..(i + 1) * n])
    };
    let one = |i: usize| {
        slots.iter().zip(batch).map(|(s, t)| Some(s.snapped(&row(t, s, i)?))).collect::<Option<Vec<_>>>()
    };
    (0..frames).filter_map(one).collect()
}

/// Searches inputs on which every two candidates differ in outputs: in frames of `data` first (inputs and names), then in
/// drawn ones.
///
/// # Errors
/// Inputs that cannot be drawn, and a run that fails.
pub fn probes(
    candidates: &Candidates,
    data: impl Iterator<Item = Result<(Vec<Tensor>, Vec<String>), Error>>,
    device: &Device,
    options: &ProbeOptions,
    mut progress: impl FnMut(usize),
) -> Result<Probes, Error> {
    const AT_ONCE: usize = 16;
    let first = &candidates.fit[0].graph;
    let watched: Vec<ValueId> = taps(first).into_iter().map(|(v, _)| v).collect();
    let together = by_rows(first, &watched);
    let mut search = Search::new(candidates, device, options)?;
    let mut tried = 0;
    for batch in data {
        let (inputs, ids) = batch?;
        if tried >= options.tries || (tried > 0 && search.open().is_empty()) {
            break;
        }
        let frames = split(&search.slots, &inputs, ids.len());
        tried += frames.len();
        let frames: Vec<_> = ids.into_iter().zip(frames).collect();
        search.try_all(&frames, together)?;
        progress(tried);
    }
    // Inputs of which only data can be had were tried by now.
    let drawable = search.slots.iter().all(|s| !matches!(s.dtype, DType::I32 | DType::Bool));
    while tried < options.tries && (tried == 0 || (drawable && !search.open().is_empty())) {
        let frames = search.draw(tried, AT_ONCE.min(options.tries - tried))?;
        tried += frames.len();
        search.try_all(&frames, together)?;
        progress(tried);
    }
    // Without a batch there is room for one frame.
    let chosen = search.choose(if first.is_batched() { usize::MAX } else { 1 });
    let pairs = (0..search.pairs.len()).map(|p| search.pair(p, &chosen)).collect();
    let kept: Vec<&Tried> = chosen.iter().map(|i| &search.kept[*i]).collect();
    let inputs = search.slots.iter().enumerate().map(|(k, slot)| {
        let values = joined(&kept.iter().map(|t| &t.inputs[k].values).collect::<Vec<_>>());
        let codes = codes(slot, &kept, k, &values);
        ProbeInput { name: slot.name.clone(), values, codes }
    });
    Ok(Probes {
        inputs: inputs.collect(),
        samples: kept.iter().map(|t| t.what.clone()).collect(),
        pairs,
        tried,
        dispatches: search.dispatches,
        cpu_ops: search.cpu_ops,
    })
}

/// An input as codes, beside its numbers.
fn codes(slot: &Slot, kept: &[&Tried], k: usize, values: &Tensor) -> Option<(Tensor, QParams)> {
    let params = slot.params.as_ref()?;
    let all: Vec<i32> = kept.iter().flat_map(|t| t.inputs[k].codes.iter().flatten().copied()).collect();
    Some((Tensor::from_codes(params.dtype(), values.shape(), &all)?, params.clone()))
}

impl Probes {
    /// Groups of candidates that nothing told apart, of two or more.
    pub fn together(&self, candidates: &Candidates) -> Vec<Vec<String>> {
        let mut group: BTreeMap<usize, usize> = (0..candidates.fit.len()).map(|i| (i, i)).collect();
        for pair in self.pairs.iter().filter(|p| p.at == SeparatedAt::Nowhere) {
            let (a, b) = (group[&pair.a], group[&pair.b]);
            group.values_mut().filter(|g| **g == b.max(a)).for_each(|g| *g = a.min(b));
        }
        let mut out: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (i, g) in group {
            out.entry(g).or_default().extend(candidates.fit[i].profiles.iter().cloned());
        }
        out.into_values().filter(|names| names.len() > 1).collect()
    }
}
