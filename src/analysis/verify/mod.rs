//! Whether two artefacts give the same codes: two graphs, one on two devices, or one and a folder of what another
//! runtime gave.
//!
//! What is compared, by name: tensors of codes; the f32 that operators on codes make of their sums; and of a fake-quant
//! graph the codes of what its quantizers give. These must be equal. Codes behind a float island come from floats, which
//! may differ between devices: both artefacts get those of the first one, or both those of the dump. Outputs that floats
//! computed have a tolerance. As equal codes of some frames prove nothing of others, what the artefacts say is compared,
//! too: [`definitions`].

mod definitions;
mod dump;
mod islands;
mod tensors;

pub use definitions::{Definitions, Difference, definitions};
pub use dump::Dump;
pub use tensors::has_codes;

use crate::data::Batch;
use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, ValueId};
use crate::tensor::Tensor;
use globset::GlobMatcher;
use islands::{behind_islands, cut_at, with_own};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tensors::{Form, FrameAxis, Layer, Numbers, layers, numbers};

/// What floats may differ by: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatTolerance {
    /// In units of the tensor.
    pub absolute: f64,
    /// A share.
    pub relative: f64,
}

impl Default for FloatTolerance {
    fn default() -> Self {
        FloatTolerance { absolute: 1e-5, relative: 1e-4 }
    }
}

/// How elements of one tensor compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// Name of the tensor.
    pub name: String,
    /// Elements that were compared.
    pub elements: u64,
    /// How many of them differ, or differ by more than the tolerance.
    pub mismatches: u64,
    /// Largest difference: in codes, or of floats.
    pub max_abs: f64,
    /// Largest difference over the expected magnitude, of floats.
    pub max_rel: f64,
    /// The first difference.
    pub first: Option<First>,
}

/// Where two tensors first differ.
#[derive(Clone, Debug, PartialEq)]
pub struct First {
    /// The sample.
    pub sample: String,
    /// Index of the element within it, row-major.
    pub index: usize,
    /// What the first artefact has.
    pub a: f64,
    /// What the second one has.
    pub b: f64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Tensors of codes, and what operators on codes give, in the order of the first artefact.
    pub layers: Vec<Compared>,
    /// Outputs that floats computed.
    pub outputs: Vec<Compared>,
    /// Tensors behind float islands that the second artefact took from the first, or the first from a dump.
    pub injected: Vec<String>,
    /// Tensors of codes that only one of them has.
    pub unmatched: Vec<String>,
    /// What the two say differently.
    pub differences: Vec<Difference>,
    /// Frames that were compared.
    pub frames: usize,
    /// Dispatches of both.
    pub dispatches: u64,
    /// Nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, String)>,
}

impl Verified {
    /// Elements of codes that were compared.
    pub fn elements(&self) -> u64 {
        self.layers.iter().map(|l| l.elements).sum()
    }

    /// Whether something was compared, and nothing differs.
    pub fn consistent(&self) -> bool {
        self.elements() > 0
            && self.differences.is_empty()
            && self.layers.iter().chain(&self.outputs).all(|l| l.mismatches == 0)
    }
}

/// A graph on a device.
#[derive(Debug)]
struct Side {
    engine: Engine,
    layers: Vec<Layer>,
    outputs: Vec<(String, ValueId)>,
    /// Where the frames of what is compared lie.
    frames: BTreeMap<ValueId, FrameAxis>,
}

impl Side {
    fn new(graph: Graph, device: &Device) -> Side {
        let layers = layers(&graph);
        let exact: HashSet<ValueId> = layers.iter().map(|l| l.value).collect();
        let floats = graph.outputs.iter().filter(|v| !exact.contains(v));
        let outputs: Vec<_> = floats.map(|v| (graph.value(*v).name.clone(), *v)).collect();
        let all = layers.iter().map(|l| l.value).chain(outputs.iter().map(|(_, v)| *v));
        let frames = all.filter_map(|v| Some((v, FrameAxis::of(&graph, &graph.value(v).ty)?))).collect();
        Side { engine: Engine::new(graph, device), layers, outputs, frames }
    }

    /// A tensor without what padding gave.
    fn of_frames(&self, v: ValueId, t: &Tensor, frames: usize) -> Tensor {
        self.frames.get(&v).map_or_else(|| t.clone(), |f| f.first(t, frames))
    }

    fn run(&mut self, inputs: &[Tensor], into: &mut Verified) -> Result<BTreeMap<ValueId, Tensor>, Error> {
        let taps: Vec<ValueId> = self.layers.iter().map(|l| l.value).collect();
        let trace = self.engine.run(inputs, &taps)?;
        into.dispatches += trace.dispatches;
        for (node, why) in trace.cpu_ops {
            let op = (node, why.to_owned());
            if !into.cpu_ops.contains(&op) {
                into.cpu_ops.push(op);
            }
        }
        Ok(trace.values)
    }
}

/// When two numbers count as equal.
type Same<'a> = dyn Fn(f64, f64) -> bool + 'a;

/// What the first artefact is compared with.
#[derive(Debug)]
enum Other {
    Graph(Box<Side>),
    Dump(Arc<Dump>),
}

/// Two artefacts while they are compared.
#[derive(Debug)]
pub struct Verifier {
    a: Side,
    b: Other,
    /// Positions of the layers of both that have one name.
    pairs: Vec<(usize, usize)>,
    /// What `b` computes itself of what it takes from `a`: a name, the codes of `a`, those of `b`.
    islands: Vec<(String, ValueId, ValueId)>,
    /// What `b` takes from `a`; of a dump `a` takes what [`Verified::injected`] names.
    injected: Vec<ValueId>,
    tolerance: FloatTolerance,
    found: Verified,
}

impl Verifier {
    /// Two graphs, each on a device; only layers whose names `only` matches.
    ///
    /// # Errors
    /// Graphs with other inputs.
    pub fn graphs(
        (a, device_a): (Graph, &Device),
        (b, device_b): (Graph, &Device),
        only: Option<&GlobMatcher>,
        tolerance: FloatTolerance,
    ) -> Result<Verifier, Error> {
        let list = |g: &Graph| -> Vec<String> {
            g.inputs.iter().map(|v| format!("{}: {}", g.value(*v).name, g.value(*v).ty)).collect()
        };
        if list(&a) != list(&b) {
            let (a, b) = (list(&a).join(", "), list(&b).join(", "));
            return Err(Error::Usage(format!(
                "the first takes {a}, the second {b}: they cannot be compared"
            )));
        }
        let (of_a, of_b) = (layers(&a), layers(&b));
        // From the island of the one into the codes of the other.
        let mut injected = Vec::new();
        let mut cut = Vec::new();
        for v in behind_islands(&b) {
            let Some(there) = of_b.iter().find(|l| l.value == v) else { continue };
            let here = of_a.iter().find(|l| l.name == there.name && l.form.same_codes(&there.form));
            if let Some(here) = here {
                injected.push(here.value);
                cut.push(v);
            }
        }
        let names: Vec<String> = cut.iter().map(|v| b.value(*v).name.clone()).collect();
        let (b, own) = with_own(b, &cut)?;
        let b = cut_at(b, &cut)?;
        let found_in_b = |name: &String| b.find_value(name);
        let islands = names.iter().zip(&injected).zip(own.iter().map(found_in_b));
        let islands = islands.filter_map(|((name, a), b)| Some((name.clone(), *a, b?))).collect();
        let (a, b) = (Side::new(a, device_a), Side::new(b, device_b));
        let found = Verified { injected: names, ..Verified::default() };
        let mut verifier = Verifier::new(a, Other::Graph(Box::new(b)), injected, only, tolerance, found);
        verifier.islands = islands;
        verifier.found.unmatched.retain(|name| !own.contains(name));
        Ok(verifier)
    }

    /// A graph and a folder of tensors whose frames are those that will be run, in order. Codes behind float islands are
    /// taken from the folder where it has them.
    ///
    /// # Errors
    /// A graph that cannot be cut at its islands.
    pub fn with_dump(
        (a, device): (Graph, &Device),
        b: Arc<Dump>,
        only: Option<&GlobMatcher>,
        tolerance: FloatTolerance,
    ) -> Result<Verifier, Error> {
        let there = |v: &ValueId| b.has_codes_of(a.value(*v));
        let cut: Vec<ValueId> = behind_islands(&a).into_iter().filter(there).collect();
        let injected = cut.iter().map(|v| a.value(*v).name.clone()).collect();
        let a = cut_at(a, &cut)?;
        let a = Side::new(a, device);
        let wanted = a.layers.iter().filter(|l| only.is_none_or(|g| g.is_match(&l.name)));
        let differences = wanted.flat_map(|l| b.differences(l)).collect();
        let found = Verified { injected, differences, ..Verified::default() };
        Ok(Verifier::new(a, Other::Dump(b), Vec::new(), only, tolerance, found))
    }

    fn new(
        a: Side,
        b: Other,
        injected: Vec<ValueId>,
        only: Option<&GlobMatcher>,
        tolerance: FloatTolerance,
        mut found: Verified,
    ) -> Verifier {
        let names: Vec<String> = match &b {
            Other::Graph(b) => b.layers.iter().map(|l| l.name.clone()).collect(),
            Other::Dump(d) => d.names().map(str::to_owned).collect(),
        };
        let wanted = |name: &str| only.is_none_or(|g| g.is_match(name));
        let mut pairs = Vec::new();
        for (i, layer) in a.layers.iter().enumerate().filter(|(_, l)| wanted(&l.name)) {
            match names.iter().position(|n| *n == layer.name) {
                Some(j) => pairs.push((i, j)),
                None if found.injected.contains(&layer.name) => {}
                None => found.unmatched.push(layer.name.clone()),
            }
        }
        if let Other::Graph(b) = &b {
            let there = b.layers.iter().filter(|l| wanted(&l.name));
            let alone = there.filter(|l| !a.layers.iter().any(|k| k.name == l.name));
            found.unmatched.extend(alone.map(|l| l.name.clone()));
        }
        found.layers = pairs
            .iter()
            .map(|(i, _)| Compared { name: a.layers[*i].name.clone(), ..Compared::default() })
            .collect();
        Verifier { a, b, pairs, islands: Vec::new(), injected, tolerance, found }
    }

    /// Frames that both can run at once.
    ///
    /// # Errors
    /// A graph of which not even one frame fits its device.
    pub fn batch(&mut self) -> Result<usize, Error> {
        let taps = |s: &Side| s.layers.iter().map(|l| l.value).collect::<Vec<_>>();
        let wanted = taps(&self.a);
        let mut batch = self.a.engine.batch(&wanted)?;
        if let Other::Graph(b) = &mut self.b {
            let wanted = taps(b);
            batch = batch.min(b.engine.batch(&wanted)?);
        }
        Ok(batch)
    }

    /// Compares some frames.
    ///
    /// # Errors
    /// A run that fails, and a dump that has not these frames.
    pub fn compare(&mut self, batch: &Batch) -> Result<(), Error> {
        let count = batch.frames();
        let frames = self.found.frames..self.found.frames + count;
        let mut inputs = batch.inputs.clone();
        if let Other::Dump(d) = &self.b {
            let given = d.injected(self.a.engine.graph(), &self.found.injected, frames.clone(), &inputs)?;
            inputs.extend(given);
        }
        let a = self.a.run(&inputs, &mut self.found)?;
        let b = match &mut self.b {
            Other::Graph(side) => {
                let mut inputs = batch.inputs.clone();
                inputs.extend(self.injected.iter().map(|v| a[v].clone()));
                side.run(&inputs, &mut self.found)?
            }
            Other::Dump(_) => BTreeMap::new(),
        };
        let (here, mut found) = (&self.a, std::mem::take(&mut self.found));
        let add = |into: &mut Compared, v: ValueId, (y, form): (&Tensor, &Form), of: &Form, same: &Same| {
            let x = here.of_frames(v, &a[&v], count);
            let at = Numbers { ids: &batch.ids, shape: x.shape(), frames: here.frames.get(&v).copied() };
            at.compare(into, &numbers(&x, of), &numbers(y, form), same);
        };
        for (slot, (i, j)) in self.pairs.iter().enumerate() {
            let layer = &here.layers[*i];
            let (y, form) = match &self.b {
                Other::Graph(side) => {
                    let other = &side.layers[*j];
                    (side.of_frames(other.value, &b[&other.value], count), other.form.clone())
                }
                Other::Dump(d) => d.layer(here.engine.graph(), layer, frames.clone())?,
            };
            let same: &Same = &|a, b| a.to_bits() == b.to_bits();
            add(&mut found.layers[slot], layer.value, (&y, &form), &layer.form, same);
        }
        let t = self.tolerance;
        for (name, v) in &here.outputs {
            let y = match &self.b {
                Other::Graph(side) => {
                    let Some((_, w)) = side.outputs.iter().find(|(n, _)| n == name) else { continue };
                    side.of_frames(*w, &b[w], count)
                }
                Other::Dump(d) if d.has(name) => d.frames(here.engine.graph(), *v, frames.clone())?,
                Other::Dump(_) => continue,
            };
            let near: &Same =
                &|a, b| a.to_bits() == b.to_bits() || (a - b).abs() <= t.absolute + t.relative * a.abs();
            add(output(&mut found.outputs, name), *v, (&y, &Form::Exact), &Form::Exact, near);
        }
        if let Other::Graph(side) = &self.b {
            // Floats of two devices may lie on two sides of a step.
            let near: &Same = &|a, b| (a - b).abs() <= 1.0;
            let codes = Form::Codes(None);
            for (name, v, w) in self.islands.iter().filter(|(.., w)| b.contains_key(w)) {
                let y = side.of_frames(*w, &b[w], count);
                add(output(&mut found.outputs, name), *v, (&y, &codes), &codes, near);
            }
        }
        found.frames += count;
        self.found = found;
        Ok(())
    }

    /// What was found.
    pub fn finish(self) -> Verified {
        self.found
    }
}

/// What was found of an output so far.
fn output<'a>(all: &'a mut Vec<Compared>, name: &str) -> &'a mut Compared {
    let at = all.iter().position(|o| o.name == name).unwrap_or_else(|| {
        all.push(Compared { name: name.to_owned(), ..Compared::default() });
        all.len() - 1
    });
    &mut all[at]
}
