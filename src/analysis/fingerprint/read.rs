//! From what a black box answered to the profiles that are still possible.

use super::answers::{Answer, Answers, Ignored};
use super::candidates::Candidates;
use super::segment::{Segment, Slack, forced, segment};
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, ValueId};
use crate::tensor::{DType, Tensor};
use std::collections::HashSet;

/// A profile that a tensor excludes.
#[derive(Clone, Debug, PartialEq)]
pub struct Excluded {
    /// Its name.
    pub profile: String,
    /// Where the first witness is in the file of the answer.
    pub element: Vec<usize>,
    /// The frame of it.
    pub sample: String,
    /// What the black box has there.
    pub got: f64,
    /// What the profile gives.
    pub expected: f64,
    /// Witnesses.
    pub mismatches: u64,
    /// The largest difference.
    pub max_abs: f64,
}

/// How a profile differs from a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its name.
    pub profile: String,
    /// Elements that are not equal.
    pub elements: u64,
    /// The largest difference.
    pub max_abs: f64,
}

/// What a tensor says of the operators before it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The last of these operators, by name.
    pub op: String,
    /// All of them, with what they are; one where the black box showed its inputs.
    pub nodes: Vec<(String, &'static str)>,
    /// The tensor.
    pub tensor: String,
    /// Its name in the answers.
    pub answer: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Elements that were compared: the votes.
    pub elements: u64,
    /// Those that the profiles do not agree about.
    pub telling: u64,
    /// How far an answer may be off.
    pub slack: Slack,
    /// Profiles that are still possible.
    pub profiles: Vec<String>,
    /// Others.
    pub excluded: Vec<Excluded>,
    /// Of every profile that gives something else, excluded or not; of all where an answer may be off.
    pub differences: Vec<Difference>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Operators, each on the inputs that the black box had.
    pub ops: Vec<Judged>,
    /// Outputs of the model from its inputs alone.
    pub outputs: Vec<Judged>,
    /// Profiles that nothing excludes.
    pub profiles: Vec<String>,
    /// What was not compared.
    pub ignored: Vec<Ignored>,
    /// Frames.
    pub frames: usize,
    /// Dispatches on the device.
    pub dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, String)>,
}

/// Whether an element that is not equal speaks against a profile.
pub(super) fn tells(slack: Slack, dtype: DType, got: f64, expected: f64) -> bool {
    let off = (got - expected).abs();
    let most = match slack {
        Slack::Open(_) => return false,
        Slack::OneCode(_) => 1.0,
        Slack::Floats => 1e-5 + 1e-4 * expected.abs(),
        // f32(sum) * f32(scale), however it is formed.
        Slack::None if dtype == DType::F32 => 5e-7 * expected.abs(),
        Slack::None => 0.0,
    };
    // Of NaN, too.
    !(off <= most || got.to_bits() == expected.to_bits())
}

/// One of [`Candidates::fit`] over the answers.
struct Runs<'a> {
    candidates: &'a Candidates,
    device: &'a Device,
    reading: Reading,
}

impl Runs<'_> {
    /// What every candidate gives for the wanted values when the given ones are put in place.
    fn run(
        &mut self,
        given: &[&Answer],
        wanted: &[ValueId],
        frames: usize,
    ) -> Result<Vec<Vec<Tensor>>, Error> {
        let first = &self.candidates.fit[0].graph;
        let names: Vec<String> = wanted.iter().map(|v| first.value(*v).name.clone()).collect();
        let mut out = Vec::new();
        for candidate in &self.candidates.fit {
            let graph = &candidate.graph;
            let same = |name: &str| {
                let missing =
                    || Error::Usage(format!("{}: has no tensor {name:?}", candidate.profiles.join(", ")));
                graph.find_value(name).ok_or_else(missing)
            };
            let inner: Vec<&&Answer> = given.iter().filter(|a| !first.inputs.contains(&a.value)).collect();
            let at = inner.iter().map(|a| same(&a.name)).collect::<Result<Vec<_>, _>>()?;
            let want = names.iter().map(|n| same(n)).collect::<Result<Vec<_>, _>>()?;
            let mut inputs = Vec::new();
            for v in &first.inputs {
                inputs.push(match given.iter().find(|a| a.value == *v) {
                    Some(a) => a.tensor.clone(),
                    // Nothing that is wanted depends on it.
                    None => zeros(first, *v, frames)?,
                });
            }
            inputs.extend(inner.iter().map(|a| a.tensor.clone()));
            let graph = forced(graph, &at, &want)?;
            let outputs = graph.outputs.clone();
            let mut engine = Engine::new(graph, self.device);
            let mut trace = engine.run(&inputs, &[])?;
            self.reading.dispatches += trace.dispatches;
            for (node, why) in trace.cpu_ops {
                let op = (node, why.to_owned());
                if !self.reading.cpu_ops.contains(&op) {
                    self.reading.cpu_ops.push(op);
                }
            }
            let value = |v: &ValueId| trace.values.remove(v).expect("outputs are in the trace");
            out.push(outputs.iter().map(value).collect());
        }
        Ok(out)
    }

    fn judge(&self, answer: &Answer, segment: &Segment, made: &[&Tensor], samples: &[String]) -> Judged {
        let graph = &self.candidates.fit[0].graph;
        let nodes: Vec<(String, &'static str)> = segment
            .ops
            .iter()
            .map(|i| {
                let node = &graph.nodes()[*i];
                (node.name.clone(), node.op.integer_of().map_or(node.op.def().name, |(op, _)| op.def().name))
            })
            .collect();
        let mut judged = Judged {
            op: nodes.last().map_or_else(|| answer.name.clone(), |n| n.0.clone()),
            nodes,
            tensor: answer.name.clone(),
            answer: answer.key.clone(),
            dtype: answer.tensor.dtype(),
            elements: answer.tensor.len() as u64,
            telling: telling(made),
            slack: segment.slack,
            profiles: Vec::new(),
            excluded: Vec::new(),
            differences: Vec::new(),
        };
        let (got, dtype) = (&answer.tensor, answer.tensor.dtype());
        for (candidate, t) in self.candidates.fit.iter().zip(made) {
            let (mut first, mut against, mut differ, mut max_abs) = (None, 0, 0, 0f64);
            for i in 0..got.len() {
                let (x, y) = (got.number(i), t.number(i));
                if x.to_bits() == y.to_bits() {
                    continue;
                }
                differ += 1;
                let off = (x - y).abs();
                max_abs = if off.is_nan() { off } else { max_abs.max(off) };
                if tells(segment.slack, dtype, x, y) {
                    against += 1;
                    first.get_or_insert(i);
                }
            }
            for profile in &candidate.profiles {
                if differ > 0 || segment.slack != Slack::None {
                    judged.differences.push(Difference {
                        profile: profile.clone(),
                        elements: differ,
                        max_abs,
                    });
                }
                match first {
                    None => judged.profiles.push(profile.clone()),
                    Some(i) => {
                        let element = answer.index(i);
                        let sample =
                            element.first().and_then(|f| samples.get(*f)).cloned().unwrap_or_default();
                        judged.excluded.push(Excluded {
                            profile: profile.clone(),
                            element,
                            sample,
                            got: got.number(i),
                            expected: t.number(i),
                            mismatches: against,
                            max_abs,
                        });
                    }
                }
            }
        }
        judged
    }
}

/// Elements that not all tensors have alike.
fn telling(made: &[&Tensor]) -> u64 {
    let Some((first, rest)) = made.split_first() else { return 0 };
    let other = |i: &usize| rest.iter().any(|t| t.number(*i).to_bits() != first.number(*i).to_bits());
    (0..first.len()).filter(other).count() as u64
}

fn zeros(graph: &Graph, v: ValueId, frames: usize) -> Result<Tensor, Error> {
    let value = graph.value(v);
    let dims = value.ty.at(frames).and_then(|t| t.dims());
    let dims = dims.ok_or_else(|| Error::Usage(format!("{}: {frames} frames are too many", value.name)))?;
    Ok(Tensor::zeros(value.ty.dtype, dims))
}

/// Judges every profile by what a black box answered. The answers are those of `candidates.fit[0].graph`.
///
/// # Errors
/// Answers of which nothing can be compared, and a run that fails.
pub fn read(candidates: &Candidates, answers: &Answers, device: &Device) -> Result<Reading, Error> {
    let graph = &candidates.fit[0].graph;
    let given: HashSet<ValueId> = answers.found.iter().map(|a| a.value).collect();
    let mut runs = Runs {
        candidates,
        device,
        reading: Reading { frames: answers.frames, ignored: answers.ignored.clone(), ..Reading::default() },
    };
    let produced: HashSet<ValueId> = graph.nodes().iter().flat_map(|n| n.outputs.iter().copied()).collect();
    let mut judged: Vec<(&Answer, Segment)> = Vec::new();
    for answer in answers.found.iter().filter(|a| produced.contains(&a.value)) {
        let segment = segment(graph, answer.value, &given);
        if let Some(v) = segment.missing.first() {
            let reason = format!("it depends on input {}, which is not there", graph.value(*v).name);
            runs.reading.ignored.push(Ignored { name: answer.key.clone(), reason });
        } else {
            judged.push((answer, segment));
        }
    }
    // As they are computed.
    let place = graph.producers();
    judged.sort_by_key(|(a, _)| place.get(&a.value).copied());
    // Codes of an input say what its quantizer does, which is no operator's arithmetic.
    judged.retain(|(a, s)| !(s.ops.is_empty() && quantizes_input(graph, a.value)));
    if judged.is_empty() {
        let why = runs.reading.ignored.iter().map(|i| format!("\n  {}: {}", i.name, i.reason));
        return Err(Error::Usage(format!("nothing can be compared{}", why.collect::<String>())));
    }
    let all: Vec<&Answer> = answers.found.iter().collect();
    let wanted: Vec<ValueId> = judged.iter().map(|(a, _)| a.value).collect();
    let made = runs.run(&all, &wanted, answers.frames)?;
    for (k, (answer, segment)) in judged.iter().enumerate() {
        let of: Vec<&Tensor> = made.iter().map(|m| &m[k]).collect();
        let found = runs.judge(answer, segment, &of, &answers.samples);
        runs.reading.ops.push(found);
    }
    outputs(&mut runs, answers)?;
    runs.reading.conclude(candidates);
    Ok(runs.reading)
}

/// Whether a value is what an input is quantized to.
fn quantizes_input(graph: &Graph, v: ValueId) -> bool {
    let made = graph.nodes().iter().find(|n| n.outputs.contains(&v));
    made.is_some_and(|n| n.op.def().name == "Quantize" && graph.inputs.contains(&n.inputs[0]))
}

/// Judges the outputs of the model by its inputs alone.
fn outputs(runs: &mut Runs, answers: &Answers) -> Result<(), Error> {
    let graph = &runs.candidates.fit[0].graph;
    let outer = |a: &&Answer| graph.inputs.contains(&a.value) || quantizes_input(graph, a.value);
    let inputs: Vec<&Answer> = answers.found.iter().filter(outer).collect();
    let given: HashSet<ValueId> = inputs.iter().map(|a| a.value).collect();
    let ends: HashSet<ValueId> = graph.outputs.iter().map(|v| codes_behind(graph, *v)).collect();
    let shown = answers.found.iter().filter(|a| ends.contains(&a.value) && !given.contains(&a.value));
    let judged: Vec<(&Answer, Segment)> = shown.map(|a| (a, segment(graph, a.value, &given))).collect();
    let judged: Vec<_> = judged.into_iter().filter(|(_, s)| s.missing.is_empty()).collect();
    if judged.is_empty() {
        return Ok(());
    }
    let wanted: Vec<ValueId> = judged.iter().map(|(a, _)| a.value).collect();
    let made = runs.run(&inputs, &wanted, answers.frames)?;
    for (k, (answer, segment)) in judged.iter().enumerate() {
        let of: Vec<&Tensor> = made.iter().map(|m| &m[k]).collect();
        let found = runs.judge(answer, segment, &of, &answers.samples);
        runs.reading.outputs.push(found);
    }
    Ok(())
}

/// The codes that a value stands for, or the value.
pub(super) fn codes_behind(graph: &Graph, v: ValueId) -> ValueId {
    let made = graph.nodes().iter().find(|n| n.outputs.contains(&v) && n.op.def().name == "Dequantize");
    made.map_or(v, |n| n.inputs[0])
}

impl Reading {
    /// What all tensors say together.
    fn conclude(&mut self, candidates: &Candidates) {
        let all = || self.ops.iter().chain(&self.outputs);
        let out: HashSet<&str> = all().flat_map(|j| j.excluded.iter().map(|e| e.profile.as_str())).collect();
        let left = candidates.names().into_iter().filter(|n| !out.contains(n)).map(str::to_owned);
        self.profiles = left.collect();
    }

    /// Elements of operators that can exclude a profile, and those of them that speak against one.
    pub fn votes(&self, profile: &str) -> (u64, u64) {
        let against = |j: &Judged| {
            let e = j.excluded.iter().find(|e| e.profile == profile);
            e.map_or(0, |e| e.mismatches)
        };
        let each = self.ops.iter().filter(|j| !matches!(j.slack, Slack::Open(_)));
        each.fold((0, 0), |(all, no), j| (all + j.elements, no + against(j)))
    }

    /// The first witness against a profile, with what it is a witness of.
    pub fn witness(&self, profile: &str) -> Option<(&Judged, &Excluded)> {
        let all = self.ops.iter().chain(&self.outputs);
        all.filter_map(|j| Some((j, j.excluded.iter().find(|e| e.profile == profile)?))).next()
    }
}
