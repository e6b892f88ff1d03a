//! Whether two artefacts give the same codes: two graphs, one on two devices, or one and a folder of what another
//! runtime gave.
//!
//! What is compared, by name: tensors of codes; the f32 that operators on codes make of their sums; and of a fake-quant
//! graph the codes of what its quantizers give. These must be equal. Codes behind a float island come from floats, which
//! may differ between devices: both artefacts get those of the first one, or both those of the dump. Outputs that floats computed have a tolerance.

use crate::data::dump::{DumpReader, Kind};
use crate::data::{Batch, DataError};
use crate::error::Error;
use crate::exec::{Engine, ExecError};
use crate::gpu::Device;
use crate::graph::{CodeOutput, Graph, Stage, ValueId};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor};
use globset::GlobMatcher;
use std::collections::{BTreeMap, HashSet};

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

    /// Whether something was compared and nothing differs.
    pub fn consistent(&self) -> bool {
        self.elements() > 0 && self.layers.iter().chain(&self.outputs).all(|l| l.mismatches == 0)
    }
}

/// A tensor to compare, and what its elements are.
#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// Codes of these parameters; `None` for sums.
    Codes(Option<QParams>),
    /// f32 that must be equal.
    Exact,
    /// f32 that a quantizer gave.
    Quantized(QParams),
}

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    value: ValueId,
    form: Form,
}

/// The tensors of a graph that are compared.
fn layers(graph: &Graph) -> Vec<Layer> {
    let params = graph.code_params();
    let mut out = Vec::new();
    for node in graph.nodes() {
        if let Some(q) = node.quantizer() {
            let x = graph.value(node.inputs[0]);
            let fits = x.constant.is_none() && q.quantizes() && q.spec.owner.is_none();
            if let Some(p) = q.params.clone().filter(|p| fits && p.scales().len() == 1) {
                // As `convert` names them, where the tensor keeps its own name.
                let input = graph.inputs.contains(&node.inputs[0]);
                let name = if input { format!("{}/codes", x.name) } else { x.name.clone() };
                out.push(Layer { name, value: node.outputs[0], form: Form::Quantized(p) });
            }
            continue;
        }
        for v in &node.outputs {
            let value = graph.value(*v);
            let form = match (node.op.codes(), params.get(v)) {
                (Some(CodeOutput::Real), _) => Form::Exact,
                (Some(CodeOutput::Sums), _) => Form::Codes(None),
                (_, Some(p)) => Form::Codes(Some(p.clone())),
                _ => continue,
            };
            out.push(Layer { name: value.name.clone(), value: *v, form });
        }
    }
    out
}

/// Tensors of codes that come from floats which the graph computes.
fn behind_islands(graph: &Graph) -> Vec<ValueId> {
    let from_inputs = |v: &ValueId| graph.inputs.contains(v);
    let quantizes = graph.nodes().iter().filter(|n| n.op.def().name == "Quantize");
    quantizes.filter(|n| !from_inputs(&n.inputs[0])).map(|n| n.outputs[0]).collect()
}

/// A graph that computes these codes once more, under names of their own.
fn with_own(mut graph: Graph, values: &[ValueId]) -> Result<(Graph, Vec<String>), Error> {
    let mut own = Vec::new();
    for v in values {
        let Some(node) = graph.nodes().iter().find(|n| n.outputs.contains(v)).cloned() else { continue };
        let name = graph.fresh_value(&format!("{}/own", graph.value(*v).name));
        let twin = graph.fresh_node(&format!("{}/own", node.name));
        let made = graph.add_node(twin, None, node.op.clone(), &node.inputs, std::slice::from_ref(&name));
        let inputs = String::new();
        made.map_err(|error| ExecError::Op { node: node.label(), inputs, error })?;
        own.push(name);
    }
    Ok((graph, own))
}

/// A graph that takes these values, with everything that is compared: what lies before a value is kept for its own sake.
fn cut_at(mut graph: Graph, values: &[ValueId]) -> Result<Graph, Error> {
    if values.is_empty() {
        return Ok(graph);
    }
    for layer in layers(&graph) {
        if !values.contains(&layer.value) && !graph.outputs.contains(&layer.value) {
            graph.outputs.push(layer.value);
        }
    }
    Ok(graph.cut_at(values).map_err(ExecError::from)?)
}

/// A graph on a device.
#[derive(Debug)]
struct Side {
    engine: Engine,
    layers: Vec<Layer>,
    outputs: Vec<(String, ValueId)>,
}

impl Side {
    fn new(graph: Graph, device: &Device) -> Side {
        let layers = layers(&graph);
        let exact: HashSet<ValueId> = layers.iter().map(|l| l.value).collect();
        let floats = graph.outputs.iter().filter(|v| !exact.contains(v));
        let outputs = floats.map(|v| (graph.value(*v).name.clone(), *v)).collect();
        Side { engine: Engine::new(graph, device), layers, outputs }
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

/// What the first artefact is compared with.
#[derive(Debug)]
enum Other {
    Graph(Box<Side>),
    Dump(Box<DumpReader>),
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
            let here = of_a.iter().find(|l| l.name == there.name && same_form(&l.form, &there.form));
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
        b: DumpReader,
        only: Option<&GlobMatcher>,
        tolerance: FloatTolerance,
    ) -> Result<Verifier, Error> {
        let there = |v: &ValueId| {
            let value = a.value(*v);
            let info = b.info(&value.name);
            info.is_some_and(|i| i.kind == Kind::Codes && i.dtype == value.ty.dtype.name())
        };
        let cut: Vec<ValueId> = behind_islands(&a).into_iter().filter(there).collect();
        let injected = cut.iter().map(|v| a.value(*v).name.clone()).collect();
        let a = cut_at(a, &cut)?;
        let found = Verified { injected, ..Verified::default() };
        let a = Side::new(a, device);
        Ok(Verifier::new(a, Other::Dump(Box::new(b)), Vec::new(), only, tolerance, found))
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
        let first = self.found.frames;
        let mut inputs = batch.inputs.clone();
        if let Other::Dump(d) = &self.b {
            let rows = batch.inputs.first().and_then(|t| t.shape().first().copied());
            for name in &self.found.injected {
                let frames = d.frames(name, first..first + batch.frames())?;
                inputs.push(filled(&frames, rows.unwrap_or(batch.frames())));
            }
        }
        let a = self.a.run(&inputs, &mut self.found)?;
        let b = match &mut self.b {
            Other::Graph(side) => {
                let mut inputs = batch.inputs.clone();
                inputs.extend(self.injected.iter().map(|v| a[v].clone()));
                Some(side.run(&inputs, &mut self.found)?)
            }
            Other::Dump(_) => None,
        };
        for (slot, (i, j)) in self.pairs.iter().enumerate() {
            let layer = &self.a.layers[*i];
            let x = batch.without_padding(&a[&layer.value]);
            let (y, form) = match (&self.b, &b) {
                (Other::Graph(side), Some(values)) => {
                    let other = &side.layers[*j];
                    (batch.without_padding(&values[&other.value]), other.form.clone())
                }
                (Other::Dump(d), _) => dumped(d, &layer.name, first..first + batch.frames(), &layer.form)?,
                (Other::Graph(_), None) => unreachable!("a graph was run"),
            };
            let (x, y) = (numbers(&x, &layer.form), numbers(&y, &form));
            add(&mut self.found.layers[slot], &batch.ids, &x, &y, |a, b| a.to_bits() == b.to_bits());
        }
        let t = self.tolerance;
        for (name, v) in &self.a.outputs {
            let y = match (&self.b, &b) {
                (Other::Graph(side), Some(values)) => {
                    let Some((_, w)) = side.outputs.iter().find(|(n, _)| n == name) else { continue };
                    batch.without_padding(&values[w])
                }
                (Other::Dump(d), _) if d.names().any(|n| n == name) => {
                    d.frames(name, first..first + batch.frames())?
                }
                _ => continue,
            };
            let near = |a: f64, b: f64| {
                a.to_bits() == b.to_bits() || (a - b).abs() <= t.absolute + t.relative * a.abs()
            };
            let x = batch.without_padding(&a[v]);
            let (x, y) = (numbers(&x, &Form::Exact), numbers(&y, &Form::Exact));
            add(output(&mut self.found.outputs, name), &batch.ids, &x, &y, near);
        }
        for (name, v, w) in self.islands.iter().filter_map(|(n, v, w)| Some((n, v, b.as_ref()?.get(w)?))) {
            let (x, y) = (batch.without_padding(&a[v]), batch.without_padding(w));
            let (x, y) = (numbers(&x, &Form::Codes(None)), numbers(&y, &Form::Codes(None)));
            // Floats of two devices may lie on two sides of a step.
            let near = |a: f64, b: f64| (a - b).abs() <= 1.0;
            add(output(&mut self.found.outputs, name), &batch.ids, &x, &y, near);
        }
        self.found.frames += batch.frames();
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

/// Rows of a tensor, the first one again until there are so many.
fn filled(t: &Tensor, rows: usize) -> Tensor {
    let have = t.shape().first().copied().unwrap_or(0);
    if have == 0 || have >= rows {
        return t.clone();
    }
    let mut shape = t.shape().to_vec();
    shape[0] = rows;
    let (bytes, row) = (t.bytes(), t.bytes().len() / have);
    let more = (have..rows).flat_map(|_| bytes[..row].iter());
    let all: Vec<u8> = bytes.iter().chain(more).copied().collect();
    Tensor::from_bytes(t.dtype(), &shape, &all).expect("rows of a tensor are a tensor")
}

/// Whether codes of both mean the same.
fn same_form(a: &Form, b: &Form) -> bool {
    match (a, b) {
        (Form::Codes(Some(p)), Form::Codes(Some(q))) => {
            p.dtype() == q.dtype() && p.scales() == q.scales() && p.zero_points() == q.zero_points()
        }
        _ => false,
    }
}

/// Frames of a dump, and what their elements are.
fn dumped(
    d: &DumpReader,
    name: &str,
    frames: std::ops::Range<usize>,
    form: &Form,
) -> Result<(Tensor, Form), DataError> {
    let t = d.frames(name, frames)?;
    let codes = match d.info(name).map(|i| i.kind) {
        Some(kind) => kind == Kind::Codes,
        None => t.dtype() != DType::F32,
    };
    let params = match form {
        Form::Codes(p) => p.clone(),
        Form::Quantized(p) => Some(p.clone()),
        Form::Exact => None,
    };
    Ok(match params {
        _ if codes => (t, Form::Codes(None)),
        Some(p) => (t, Form::Quantized(p)),
        None => (t, Form::Exact),
    })
}

/// Codes, or floats that must be equal, as f64: exact for both.
fn numbers(t: &Tensor, form: &Form) -> Vec<f64> {
    match form {
        Form::Quantized(p) => {
            let step = p.step(0);
            let exact = |x: &f32| f64::from(step.quantize_exact(f64::from(*x)));
            t.as_f32().unwrap_or(&[]).iter().map(exact).collect()
        }
        _ => (0..t.len()).map(|i| t.number(i)).collect(),
    }
}

fn add(into: &mut Compared, ids: &[String], a: &[f64], b: &[f64], same: impl Fn(f64, f64) -> bool) {
    let frame = (a.len() / ids.len().max(1)).max(1);
    if a.len() != b.len() {
        // Another shape: nothing of it is the same.
        into.elements += a.len() as u64;
        into.mismatches += a.len().max(1) as u64;
        into.max_abs = f64::INFINITY;
        return;
    }
    into.elements += a.len() as u64;
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        let off = (x - y).abs();
        if off > into.max_abs || off.is_nan() {
            into.max_abs = off;
        }
        if off > 0.0 && *x != 0.0 {
            into.max_rel = into.max_rel.max(off / x.abs());
        }
        if !same(*x, *y) {
            into.mismatches += 1;
            if into.first.is_none() {
                let sample = ids.get(i / frame).cloned().unwrap_or_default();
                into.first = Some(First { sample, index: i % frame, a: *x, b: *y });
            }
        }
    }
}

/// Whether a graph can be compared at all.
pub fn has_codes(graph: &Graph) -> bool {
    graph.stage != Stage::Float && !layers(graph).is_empty()
}
