//! What two artefacts say: operators, their attributes and parameters, tables, weights, and the target.
//!
//! Codes that are equal on some frames may differ on others, where a rounding is another one or a weight is. Nodes are
//! told apart by name. What only one of the two has is not compared.

use super::tensors::layers;
use crate::graph::{AttrValue, Attrs, Graph, Node, ValueId};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor};
use globset::GlobMatcher;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Attributes that are the target's arithmetic, and what follows from it.
const OF_PROFILE: [&str; 4] = ["accumulator", "bound", "requantize", "rounding"];

/// Something that two artefacts say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The node, or the tensor whose parameters differ; `target` for the target.
    pub node: String,
    /// What of it: an attribute, an input.
    pub what: String,
    /// What the first artefact says.
    pub a: String,
    /// What the second one says.
    pub b: String,
}

/// How definitions are compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Definitions<'a> {
    /// Only of tensors whose names match.
    pub only: Option<&'a GlobMatcher>,
    /// One of the two was simulated from a fake-quant graph, which does not say what was preserved in floats.
    pub simulated: bool,
    /// The first one runs as another target on purpose: the arithmetic may be another one.
    pub other_profile: bool,
}

/// What two graphs say differently. Where not both are on codes, parameters of tensors that both have are all that can be
/// compared.
pub fn definitions(a: &Graph, b: &Graph, how: Definitions) -> Vec<Difference> {
    if !a.stage.is_on_codes() || !b.stage.is_on_codes() {
        return parameters(a, b, how);
    }
    let (of_a, of_b) = (Named::new(a), Named::new(b));
    let mut out = Vec::new();
    if !how.other_profile {
        out.extend(targets(a, b));
    }
    for x in a.nodes().iter().filter(|n| of_a.wanted(n, how.only)) {
        if let Some(y) = of_b.same_as(&of_a, x) {
            out.extend(Pair { a: &of_a, b: &of_b, x, y, how }.differences());
        }
    }
    out
}

fn targets(a: &Graph, b: &Graph) -> Option<Difference> {
    let (x, y) = (a.target.as_ref().map(|t| &t.profile), b.target.as_ref().map(|t| &t.profile));
    let same = match (x, y) {
        (Some(x), Some(y)) => x.name == y.name && x.same_arithmetic(y),
        (x, y) => x.is_none() && y.is_none(),
    };
    let name = |p: Option<&crate::quant::Profile>| p.map_or("none".to_owned(), |p| p.name.clone());
    let (node, what) = ("target".to_owned(), "profile".to_owned());
    let (mut b, a) = (name(y), name(x));
    if a == b {
        b.push_str(" with other arithmetic");
    }
    (!same).then_some(Difference { node, what, a, b })
}

/// A graph by names.
struct Named<'a> {
    graph: &'a Graph,
    nodes: HashMap<&'a str, &'a Node>,
    producers: HashMap<ValueId, usize>,
}

impl<'a> Named<'a> {
    fn new(graph: &'a Graph) -> Named<'a> {
        let nodes = graph.nodes().iter().map(|n| (n.name.as_str(), n)).collect();
        Named { graph, nodes, producers: graph.producers() }
    }

    fn wanted(&self, node: &Node, only: Option<&GlobMatcher>) -> bool {
        only.is_none_or(|g| node.outputs.iter().any(|v| g.is_match(&self.graph.value(*v).name)))
    }

    /// The node of this name; or, for one that the other graph has under no name, the one that makes the tensor.
    fn same_as(&self, other: &Named, node: &Node) -> Option<&'a Node> {
        if let Some(found) = self.nodes.get(node.name.as_str()) {
            return Some(found);
        }
        let tensor = self.graph.find_value(&other.graph.value(*node.outputs.first()?).name)?;
        let made = &self.graph.nodes()[*self.producers.get(&tensor)?];
        (!other.nodes.contains_key(made.name.as_str())).then_some(made)
    }

    /// Who makes a value.
    fn from(&self, v: ValueId) -> Option<&'a Node> {
        self.producers.get(&v).map(|i| &self.graph.nodes()[*i])
    }
}

/// Two nodes that should be one.
struct Pair<'a> {
    a: &'a Named<'a>,
    b: &'a Named<'a>,
    x: &'a Node,
    y: &'a Node,
    how: Definitions<'a>,
}

impl Pair<'_> {
    fn say(&self, what: impl Into<String>, a: impl Into<String>, b: impl Into<String>) -> Difference {
        Difference { node: self.x.name.clone(), what: what.into(), a: a.into(), b: b.into() }
    }

    fn differences(&self) -> Vec<Difference> {
        let (x, y) = (self.x, self.y);
        let (kind_a, kind_b) = (kind(x), kind(y));
        if kind_a != kind_b {
            if self.how.simulated && x.op.def().name != y.op.def().name {
                return Vec::new();
            }
            return vec![self.say("operator", kind_a, kind_b)];
        }
        let mut out = self.attributes();
        if x.inputs.len() != y.inputs.len() {
            out.push(self.say("inputs", x.inputs.len().to_string(), y.inputs.len().to_string()));
            return out;
        }
        out.extend((0..x.inputs.len()).filter_map(|i| self.input(i)));
        out
    }

    fn attributes(&self) -> Vec<Difference> {
        let (a, b) = (by_name(self.x.op.attrs()), by_name(self.y.op.attrs()));
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let asked = |name: &&String| !(self.how.other_profile && OF_PROFILE.contains(&name.as_str()));
        let mut out = Vec::new();
        for name in names.into_iter().filter(asked) {
            let (x, y) = (a.get(name), b.get(name));
            // By bits, in which a NaN equals itself.
            if format!("{x:?}") == format!("{y:?}") {
                continue;
            }
            let (at, x, y) = shown(x, y);
            out.push(self.say(format!("{name}{at}"), x, y));
        }
        out
    }

    fn input(&self, i: usize) -> Option<Difference> {
        let (v, w) = (self.x.inputs[i], self.y.inputs[i]);
        let (a, b) = (self.a.graph.value(v), self.b.graph.value(w));
        let what = format!("input {i}, {}", a.name);
        match (&a.constant, &b.constant) {
            (Some(s), Some(t)) => {
                let (at, s, t) = constants(s, t)?;
                Some(self.say(format!("{what}{at}"), s, t))
            }
            (Some(_), None) => Some(self.say(what, "a constant", b.name.clone())),
            (None, Some(_)) => Some(self.say(what, a.name.clone(), "a constant")),
            (None, None) => {
                // Names of tensors change where codes go in and come out; nodes keep theirs.
                let (from_a, from_b) = (self.a.from(v)?, self.b.from(w)?);
                let known = self.b.nodes.contains_key(from_a.name.as_str())
                    && self.a.nodes.contains_key(from_b.name.as_str());
                let place = |n: &Node, v: ValueId| n.outputs.iter().position(|o| *o == v);
                let same = from_a.name == from_b.name && place(from_a, v) == place(from_b, w);
                (known && !same).then(|| self.say(what, from_a.label(), from_b.label()))
            }
        }
    }
}

fn kind(node: &Node) -> String {
    match node.op.integer_of() {
        Some((op, _)) => format!("{} on codes", op.def().name),
        None => node.op.def().name.to_owned(),
    }
}

fn by_name(attrs: Attrs) -> BTreeMap<String, AttrValue> {
    attrs.0.into_iter().collect()
}

/// Where two attributes differ first, and what is there.
fn shown(a: Option<&AttrValue>, b: Option<&AttrValue>) -> (String, String, String) {
    let first = match (a, b) {
        (Some(AttrValue::Floats(x)), Some(AttrValue::Floats(y))) if x.len() == y.len() => {
            let at = x.iter().zip(y).position(|(x, y)| x.to_bits() != y.to_bits());
            at.map(|i| (i, x[i].to_string(), y[i].to_string())).filter(|_| x.len() > 1)
        }
        (Some(AttrValue::Ints(x)), Some(AttrValue::Ints(y))) if x.len() == y.len() => {
            let at = x.iter().zip(y).position(|(x, y)| x != y);
            at.map(|i| (i, x[i].to_string(), y[i].to_string())).filter(|_| x.len() > 1)
        }
        _ => None,
    };
    if let Some((i, a, b)) = first {
        return (format!("[{i}]"), a, b);
    }
    let text = |v: Option<&AttrValue>| v.map_or("not given".to_owned(), ToString::to_string);
    (String::new(), text(a), text(b))
}

/// Where two constants differ first, and what is there; `None` for equal ones.
fn constants(a: &Tensor, b: &Tensor) -> Option<(String, String, String)> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Some((String::new(), a.ty().to_string(), b.ty().to_string()));
    }
    if a.bytes() == b.bytes() {
        return None;
    }
    let size = a.dtype().size_bytes();
    let at = a.bytes().chunks(size).zip(b.bytes().chunks(size)).position(|(x, y)| x != y)?;
    Some((format!(" [{at}]"), a.number(at).to_string(), b.number(at).to_string()))
}

/// What tensors of one name stand for, where a graph has quantizers or codes.
fn parameters(a: &Graph, b: &Graph, how: Definitions) -> Vec<Difference> {
    let (of_a, of_b) = (params(a), params(b));
    let mut out = Vec::new();
    for (name, here) in of_a.iter().filter(|(name, _)| how.only.is_none_or(|g| g.is_match(name))) {
        let Some(there) = of_b.get(name) else { continue };
        // A tensor may have a quantizer for each of those that take it.
        if here.iter().any(|p| there.iter().any(|q| p.same_codes(q))) {
            continue;
        }
        let (Some(p), Some(q)) = (here.first(), there.first()) else { continue };
        let mut say = |what: String, a: String, b: String| {
            out.push(Difference { node: name.clone(), what, a, b });
        };
        if p.dtype() != q.dtype() {
            say("dtype".to_owned(), p.dtype().to_string(), q.dtype().to_string());
        }
        if p.axis() != q.axis() {
            say("axis".to_owned(), format!("{:?}", p.axis()), format!("{:?}", q.axis()));
        }
        let floats = |p: &QParams| AttrValue::Floats(p.scales().to_vec());
        if p.scales() != q.scales() {
            let (at, a, b) = shown(Some(&floats(p)), Some(&floats(q)));
            say(format!("scale{at}"), a, b);
        }
        if p.zero_points() != q.zero_points() {
            let ints = |p: &QParams| Attrs::new().ints("zero", p.zero_points().iter().map(|z| i64::from(*z)));
            let (x, y) = (ints(p), ints(q));
            let (at, a, b) = shown(x.0.first().map(|(_, v)| v), y.0.first().map(|(_, v)| v));
            say(format!("zero_point{at}"), a, b);
        }
    }
    out
}

/// Parameters by the name of the tensor, constants included.
fn params(graph: &Graph) -> BTreeMap<String, Vec<QParams>> {
    let mut out: BTreeMap<String, Vec<QParams>> = BTreeMap::new();
    for layer in layers(graph) {
        if let Some(p) = layer.form.params() {
            out.entry(layer.name.clone()).or_default().push(p.clone());
        }
    }
    for node in graph.nodes() {
        for (i, v) in node.inputs.iter().enumerate() {
            let value = graph.value(*v);
            let own = node.quantizer().filter(|q| q.spec.owner.is_none()).and_then(|q| q.params.as_ref());
            let takes = node.op.takes(i).filter(|p| p.dtype() == value.ty.dtype);
            if let Some(p) =
                own.or(takes).filter(|_| value.constant.is_some() && value.ty.dtype != DType::I32)
            {
                out.entry(value.name.clone()).or_default().push(p.clone());
            }
        }
    }
    out
}
