//! Scales as JSON in the forms of other tools: written from the quantizers of a graph, and read for one that is to be
//! calibrated. Tensors go by their names in the ONNX model.

mod aimet;
mod onnxruntime;

use crate::graph::{Graph, ValueId};
use crate::names;
use crate::ops::fake_quant;
use crate::quant::{Origin, QParams, Quantizer, Range, Role, Scheme, State};
use crate::tensor::DType;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// A form of files.
#[derive(Debug)]
pub struct Form {
    /// Its name on the command line.
    pub name: &'static str,
    /// What reads it, in a line.
    pub about: &'static str,
    /// Whether a JSON object is of this form.
    is: fn(&Map<String, Value>) -> bool,
    read: fn(&Map<String, Value>) -> Result<Tensors, String>,
    /// The file; what the form cannot say goes to the second list.
    write: fn(&[Entry<'_>], &mut Vec<LeftOut>) -> Value,
}

/// Every form, sorted by name.
pub static FORMS: &[&Form] = &[&aimet::FORM, &onnxruntime::FORM];

/// What a file says of tensors, by name.
type Tensors = BTreeMap<String, Given>;

/// What a file says of a tensor.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    /// A range of which ONNX Runtime makes scale and zero point.
    Range(Range),
    /// Steps of a number of bits: one, or one for each channel.
    Steps { bits: u32, channels: Vec<Channel> },
    /// Something that no quantizer can have, with the reason. Only a tensor with a quantizer makes it an error.
    Unfit(String),
}

/// Steps of a channel: scale * (offset + i) for i from 0 on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Channel {
    scale: f32,
    offset: i32,
    /// Whether there is one number less than the bits have codes.
    narrow: bool,
}

/// A quantizer's tensor, and its parameters.
#[derive(Debug)]
struct Entry<'g> {
    name: String,
    constant: bool,
    params: &'g QParams,
    /// What the `Relu` or `Clip` that makes the tensor takes, where nothing else takes it.
    before_clamp: Option<String>,
}

/// A quantizer that a file does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its tensor.
    pub tensor: String,
    /// Why.
    pub reason: &'static str,
}

/// What a file holds, and what it does not.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub file: Value,
    /// Tensors in it.
    pub tensors: usize,
    /// Quantizers that are not.
    pub left_out: Vec<LeftOut>,
}

/// The scales of a graph's quantizers in a form.
pub fn write(graph: &Graph, form: &Form) -> Written {
    let mut left_out = Vec::new();
    let entries = entries(graph, &mut left_out);
    let before = left_out.len();
    let file = (form.write)(&entries, &mut left_out);
    Written { file, tensors: entries.len() - (left_out.len() - before), left_out }
}

fn entries<'g>(graph: &'g Graph, left_out: &mut Vec<LeftOut>) -> Vec<Entry<'g>> {
    let names = onnx_names(graph);
    let (producers, users) = (graph.producers(), graph.users());
    let before_clamp = |v: ValueId| -> Option<String> {
        let node = &graph.nodes()[*producers.get(&v)?];
        let input = *node.inputs.first()?;
        let alone = users[&input].len() == 1 && !graph.outputs.contains(&input);
        (alone && ["Relu", "Clip"].contains(&node.op.def().name)).then(|| names[&input].clone())
    };
    let mut out: Vec<Entry> = Vec::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for node in graph.nodes() {
        let Some(q) = node.quantizer() else { continue };
        let Some(params) = &q.params else { continue };
        let name = names[&node.inputs[0]].clone();
        let reason = match (q.state, q.spec.owner) {
            (State::Float, _) => Some("it is set to let numbers pass"),
            (_, Some(_)) => Some("it lies inside a composite operator, where the ONNX model has no tensor"),
            _ => None,
        };
        if let Some(reason) = reason {
            left_out.push(LeftOut { tensor: name, reason });
            continue;
        }
        let constant = graph.value(node.inputs[0]).constant.is_some();
        let before_clamp = before_clamp(node.inputs[0]);
        let entry = Entry { name: name.clone(), constant, params, before_clamp };
        let Some(i) = at.get(&name).copied() else {
            at.insert(name, out.len());
            out.push(entry);
            continue;
        };
        if out[i].params != params {
            let codes = |p: &QParams| i64::from(p.codes().1) - i64::from(p.codes().0);
            if codes(params) > codes(out[i].params) {
                out[i] = entry;
            }
            left_out.push(LeftOut {
                tensor: name,
                reason: "the tensor has another quantizer, which is in the file",
            });
        }
    }
    out
}

/// The name of each value as the ONNX model has it.
fn onnx_names(graph: &Graph) -> HashMap<ValueId, String> {
    let values = (0..).map(ValueId).zip(graph.values());
    let mut out: HashMap<ValueId, &str> = values.map(|(id, v)| (id, v.name.as_str())).collect();
    for node in graph.nodes().iter().filter(|n| n.quantizer().is_some()) {
        // The quantizer of an output took its name.
        if graph.outputs.contains(&node.outputs[0]) {
            out.insert(node.inputs[0], &graph.value(node.outputs[0]).name);
        }
    }
    // What import and folding put behind the name of a constant.
    let plain = |name: &str| {
        let name = name.strip_suffix(".folded").unwrap_or(name);
        name.strip_suffix("/numbers").unwrap_or(name).to_owned()
    };
    out.into_iter().map(|(id, name)| (id, plain(name))).collect()
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// The name of its form.
    pub form: &'static str,
    tensors: Tensors,
}

/// What became of a file's tensors.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Quantizers that have their scale from the file.
    pub quantizers: usize,
    /// Tensors of the file that the graph has and does not quantize.
    pub idle: Vec<String>,
    /// What should be known of tensors that it does.
    pub warnings: Vec<String>,
}

impl Ranges {
    /// Reads a file, whose form is told by its contents.
    ///
    /// # Errors
    /// A file that cannot be read or is of no form, or says what cannot be.
    pub fn load(path: &Path) -> Result<Ranges, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
        Ranges::parse(&text).map_err(|e| wrong(&e))
    }

    fn parse(text: &str) -> Result<Ranges, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
        let known = value.as_object().and_then(|o| FORMS.iter().find(|f| (f.is)(o)).map(|f| (o, f)));
        let (object, form) = known.ok_or_else(|| {
            let forms: Vec<String> = FORMS.iter().map(|f| format!("{} ({})", f.name, f.about)).collect();
            format!("holds no scales in a form that is known: {}", forms.join(", "))
        })?;
        Ok(Ranges { form: form.name, tensors: (form.read)(object)? })
    }

    /// Gives quantizers of a graph the parameters that the file has for their tensors. `loaded` is the model as it was
    /// read, whose names count, too: a file may well say more than is quantized.
    ///
    /// # Errors
    /// Names of no tensor, and parameters that a quantizer cannot have.
    pub fn apply(&self, graph: &mut Graph, loaded: &Graph) -> Result<Applied, String> {
        let mut out = Applied::default();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let (all, producers) = (onnx_names(graph), graph.producers());
        for i in 0..graph.nodes().len() {
            let node = &graph.nodes()[i];
            let Some(mut q) = node.quantizer().cloned() else { continue };
            let Some((name, given)) = self.tensors.get_key_value(&all[&node.inputs[0]]) else { continue };
            let channels = q.spec.axis.and_then(|a| graph.value(node.inputs[0]).ty.shape.get(a)?.fixed());
            let wrong = |e: String| format!("tensor {name:?}: {e}");
            let params = given.params(&q, channels).map_err(wrong)?;
            used.insert(name);
            if let Some(fixed) = q.params.as_ref().filter(|_| is_bounded(graph, &producers, i)) {
                if *fixed != params {
                    let scale = fixed.scales()[0];
                    out.warnings.push(format!(
                        "{name}: keeps scale {scale:?}, which its operator fixes; what the file says of it is not taken"
                    ));
                }
                continue;
            }
            out.warnings.extend(given.warning(q.spec.dtype).map(|w| format!("{name}: {w}")));
            q.spec.scheme = scheme(&params);
            q.spec.observer = "fixed".to_owned();
            let mut q = Quantizer::with_params(q.spec, params, Origin::Fixed);
            q.state = State::Calibration;
            graph.set_op(i, fake_quant(q));
            out.quantizers += 1;
        }
        let own = [loaded, graph].into_iter().flat_map(Graph::values).map(|v| v.name.clone());
        let known: BTreeSet<String> = own.chain(all.into_values()).collect();
        let rest = self.tensors.keys().filter(|n| !used.contains(n.as_str()));
        let (idle, unknown): (Vec<&String>, Vec<&String>) = rest.partition(|n| known.contains(*n));
        if !unknown.is_empty() {
            return Err(unknown_names(&unknown, &known));
        }
        out.idle = idle.into_iter().cloned().collect();
        Ok(out)
    }
}

/// Whether the numbers of a quantizer lie where its operator bounds them, such as probabilities: the integer form computes
/// with the scale of that bound.
fn is_bounded(graph: &Graph, producers: &HashMap<ValueId, usize>, quantizer: usize) -> bool {
    let node = &graph.nodes()[quantizer];
    let Some(q) = node.quantizer().filter(|q| q.spec.role == Role::Tap) else { return false };
    let makes = producers.get(&node.inputs[0]).map(|i| graph.nodes()[*i].op.def().name);
    q.spec.owner.is_some() || makes == Some("Softmax")
}

fn unknown_names(unknown: &[&String], known: &BTreeSet<String>) -> String {
    const NAMED: usize = 5;
    let one = |name: &&String| {
        let near = names::near(name, known.iter().map(String::as_str));
        let near = if near.is_empty() { String::new() } else { format!(" (near: {})", near.join(", ")) };
        format!("{name:?}{near}")
    };
    let named: Vec<String> = unknown.iter().take(NAMED).map(one).collect();
    let more = unknown.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("the model has no tensor {}{more}: is the file of another model?", named.join(", "))
}

impl Given {
    /// What should be known of a range that tells nothing of the tensor.
    fn warning(&self, dtype: DType) -> Option<String> {
        match self {
            Given::Range(r) if onnxruntime::is_zero(*r, dtype) => {
                Some("its range in the file is zero: scale 1".into())
            }
            Given::Range(r) if r.low == r.high => {
                Some(format!("its range in the file is the number {:?} alone", r.low))
            }
            _ => None,
        }
    }

    /// As parameters of a quantizer, whose axis has this many indices.
    fn params(&self, q: &Quantizer, channels: Option<usize>) -> Result<QParams, String> {
        let spec = &q.spec;
        let params = match self {
            Given::Unfit(reason) => return Err(reason.clone()),
            Given::Range(range) => {
                let (scale, zero_point) = onnxruntime::scale(*range, spec.dtype);
                QParams::per_tensor(spec.dtype, scale, zero_point)
            }
            Given::Steps { bits, channels: steps } => {
                let axis = spec.axis.filter(|_| channels == Some(steps.len()));
                if steps.len() > 1 && Some(steps.len()) != channels {
                    let has = channels.map_or("one scale".to_owned(), |n| format!("{n} channels"));
                    return Err(format!("{} encodings where its quantizer has {has}", steps.len()));
                }
                let dtype = with_bits(spec.dtype, *bits)
                    .ok_or_else(|| format!("bitwidth {bits} is not supported: 4, 8 or 16"))?;
                let narrow = steps.iter().all(|c| c.narrow);
                let (low, _) = dtype.limits().unwrap_or_default();
                // A channel of fewer codes than the others has the same steps, so that nothing is lost.
                let low = low.saturating_add(i32::from(narrow));
                let zero_points = steps.iter().map(|c| low.saturating_sub(c.offset)).collect();
                let scales = steps.iter().map(|c| c.scale).collect();
                QParams::new(dtype, narrow, scales, zero_points, axis)
            }
        };
        params.map_err(|e| e.to_string())
    }
}

/// The type of codes of this many bits, signed as another one is.
fn with_bits(dtype: DType, bits: u32) -> Option<DType> {
    let signed = dtype.limits().is_none_or(|(low, _)| low < 0);
    Some(match (bits, signed) {
        (4, true) => DType::I4,
        (8, true) => DType::I8,
        (16, true) => DType::I16,
        (4, false) => DType::U4,
        (8, false) => DType::U8,
        (16, false) => DType::U16,
        _ => return None,
    })
}

/// Whether all zero points lie in the middle of the codes.
fn is_symmetric(params: &QParams) -> bool {
    let (low, high) = params.codes();
    let middle = (i64::from(low) + i64::from(high) + 1).div_euclid(2);
    params.zero_points().iter().all(|z| i64::from(*z) == middle)
}

fn scheme(params: &QParams) -> Scheme {
    match (is_symmetric(params), params.narrow()) {
        (true, true) => Scheme::SymmetricNarrow,
        (true, false) => Scheme::Symmetric,
        (false, _) => Scheme::Asymmetric,
    }
}
