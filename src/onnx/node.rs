//! One node: folded, evaluated or made an operator, or refused with everything that is wrong with it.

use super::attributes;
use super::constant::{Constant, NoTensor};
use super::fold::{self, Known};
use super::importer::{Built, Importer, State, fits, unique};
use super::index::operator;
use super::problem::ProblemKind;
use super::proto::NodeProto;
use crate::graph::attrs::{AttrValue, Input, SymInt};
use crate::graph::{Attrs, Op, OpDef, OpError, QuantRule, Reader, Source};
use crate::names::near;
use crate::ops;
use crate::tensor::{Tensor, TensorType, element_count};
use std::sync::Arc;

/// Elements up to which a folded tensor may be larger than what it is computed from.
const FOLDED_GROWTH: usize = 1 << 20;

/// Elements up to which a quantizer of a constant is also computed.
const QUANTIZED_KNOWN: usize = 1 << 10;

/// Whether an operator stays in the graph where its inputs are constant, too.
fn is_quantizer(op: &dyn Op) -> bool {
    matches!(op.quant_rule(), QuantRule::Quantize(_) | QuantRule::Dequantize(_))
}

/// An input: its name and, unless what produces it is broken, what is known of it.
pub(super) type Given = (String, Option<Known>);

/// A node while it is read.
pub(super) struct Site<'n> {
    node: &'n NodeProto,
    operator: String,
    pub inputs: Vec<Option<Given>>,
    pub outputs: &'n [String],
}

/// An attribute that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    pub name: String,
    /// `None` where it could not be read.
    pub value: Option<AttrValue>,
    /// What its value may be; `None` for an attribute that the operator does not have.
    pub supported: Option<String>,
}

/// What is wrong with a node, and what is left of its attributes.
struct Refused {
    problems: Vec<ProblemKind>,
    attrs: Attrs,
    aside: Vec<Aside>,
}

impl Site<'_> {
    /// The name of input `i`.
    pub(super) fn name(&self, i: usize) -> Option<&str> {
        Some(self.inputs.get(i)?.as_ref()?.0.as_str())
    }

    /// What is known of input `i`.
    pub(super) fn known(&self, i: usize) -> Option<&Known> {
        self.inputs.get(i)?.as_ref()?.1.as_ref()
    }

    /// Inputs of which nothing is known.
    pub(super) fn unknown(&self) -> Vec<usize> {
        let broken = |i: &usize| matches!(self.inputs[*i], Some((_, None)));
        (0..self.inputs.len()).filter(broken).collect()
    }

    /// Outputs, trailing ones without a name not counted.
    pub(super) fn named(&self) -> usize {
        self.outputs.iter().rposition(|o| !o.is_empty()).map_or(0, |i| i + 1)
    }
}

/// An operator with what it takes at run time.
struct Ready {
    op: Arc<dyn Op>,
    /// Indices of the inputs that are left to it.
    taken: Vec<usize>,
    outputs: Vec<TensorType>,
}

/// Reads a node's attributes by `attempt`, which is told which attributes there are and whether inputs may be looked at.
/// A wrong attribute is put aside and the rest is read without it, so that every one is found; anything else that is
/// wrong only then may follow from what was put aside, and is not a problem.
fn judge<T>(
    mut attrs: Attrs,
    mut problems: Vec<ProblemKind>,
    mut attempt: impl FnMut(&Attrs, bool) -> (Reader, Result<T, Vec<ProblemKind>>),
) -> Result<T, Box<Refused>> {
    let form = |p: &ProblemKind| match p {
        ProblemKind::AttributeForm { name, .. } => name.clone(),
        _ => String::new(),
    };
    let unreadable = |p| Aside { name: form(p), value: None, supported: None };
    let mut aside: Vec<Aside> = problems.iter().map(unreadable).collect();
    let mut inputs = true;
    loop {
        let (reader, result) = attempt(&attrs, inputs);
        let kinds = match result {
            Err(kinds) => kinds,
            Ok(read) if problems.is_empty() && reader.unread().is_empty() => return Ok(read),
            Ok(_) => Vec::new(),
        };
        if let [ProblemKind::Op(e)] = kinds.as_slice()
            && let Some(at) = culprit(e, &attrs)
        {
            let (name, value) = attrs.0.remove(at);
            // What other attributes say of the inputs depends on it.
            inputs &= !matches!(name.as_str(), "axis" | "axes");
            let supported = match e {
                OpError::Attribute { supported, .. } => supported.clone(),
                _ => "an integer".to_owned(),
            };
            aside.push(Aside { name, value: Some(value), supported: Some(supported) });
            problems.extend(kinds);
            continue;
        }
        if problems.is_empty() {
            let follows = |k: &ProblemKind| matches!(k, ProblemKind::Op(OpError::UnknownInput { .. }));
            problems.extend(kinds.into_iter().filter(|k| !follows(k)));
        }
        problems.extend(unread(&reader));
        for (name, value) in reader.unread() {
            attrs.0.retain(|(n, _)| n != name);
            aside.push(Aside { name: name.to_owned(), value: Some(value.clone()), supported: None });
        }
        return Err(Box::new(Refused { problems, attrs, aside }));
    }
}

/// The attributes that the operator does not have.
fn unread(r: &Reader) -> Vec<ProblemKind> {
    let unread = r.unread().into_iter().map(|(name, value)| ProblemKind::UnknownAttribute {
        name: name.to_owned(),
        value: value.to_string(),
        operator: r.op_type().to_owned(),
    });
    unread.collect()
}

/// The attribute that an error is about.
fn culprit(e: &OpError, attrs: &Attrs) -> Option<usize> {
    let says = |value: &AttrValue, axis: i64| match value {
        AttrValue::Int(v) => *v == axis,
        AttrValue::Ints(v) => v.contains(&SymInt::Int(axis)),
        _ => false,
    };
    attrs.0.iter().position(|(n, v)| match e {
        OpError::Attribute { name, .. } => n == name,
        OpError::Axis { axis, .. } => matches!(n.as_str(), "axis" | "axes") && says(v, *axis),
        _ => false,
    })
}

impl Importer<'_> {
    pub(super) fn try_node(&mut self, node: &NodeProto, outputs: &[String]) -> Result<(), Vec<ProblemKind>> {
        let operator = operator(node);
        if self.functions.contains(&operator) {
            return Err(vec![ProblemKind::Subgraph("is a function of the model; supported: operators")]);
        }
        if operator == "Constant" {
            let (c, problems) = attributes::constant(node, self.folder);
            if let ([o], Some(c)) = (outputs, c) {
                self.put(o, State::Is(Known { ty: c.ty(), constant: Some(c) }));
            }
            return if problems.is_empty() { Ok(()) } else { Err(problems) };
        }
        if operator == "If" {
            let mut problems = attributes::branches(node, self.folder);
            if problems.iter().all(|p| matches!(p, ProblemKind::UnknownAttribute { .. })) {
                problems.extend(self.inline_if(node, outputs).err());
            }
            return if problems.is_empty() { Ok(()) } else { Err(problems) };
        }
        if node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
            return Err(vec![ProblemKind::Subgraph(
                "has a subgraph; supported: `If` with a known condition",
            )]);
        }
        let def = ops::by_onnx(&operator);
        if def.is_none() && !fold::knows(&operator) {
            return Err(vec![self.unsupported(&operator)]);
        }
        let site = Site { node, operator, inputs: self.inputs(node), outputs };
        let (attrs, problems) = attributes::read(node, self.folder);
        if problems.is_empty() && self.folded(&site, &attrs)? {
            return Ok(());
        }
        match def {
            Some(def) => self.operator(&site, def, attrs, problems),
            None => self.only_folded(&site, attrs, problems),
        }
    }

    fn inputs(&self, node: &NodeProto) -> Vec<Option<Given>> {
        let one = |name: &String| {
            let name = self.resolve(name);
            let known = match self.env.get(&name) {
                Some(State::Is(k)) => Some(k.clone()),
                Some(State::Broken) | None => None,
            };
            (name, known)
        };
        node.input.iter().map(|n| (!n.is_empty()).then(|| one(n))).collect()
    }

    fn unsupported(&self, operator: &str) -> ProblemKind {
        let known = ops::OPS.iter().chain(ops::FOREIGN).flat_map(|d| d.onnx.iter().copied());
        let near = near(operator, known);
        ProblemKind::Operator { operator: operator.to_owned(), opset: self.opset, near }
    }

    pub(super) fn reader(
        &self,
        site: &Site,
        attrs: &Attrs,
        inputs: Vec<Option<Input>>,
        outputs: usize,
    ) -> Reader {
        Reader::new(Source::Onnx(self.opset), &site.operator, attrs.clone(), inputs, outputs)
    }

    /// An operator that is computed here or not at all, and was not.
    fn only_folded(
        &mut self,
        site: &Site,
        attrs: Attrs,
        problems: Vec<ProblemKind>,
    ) -> Result<(), Vec<ProblemKind>> {
        judge(attrs, problems, |attrs, _| {
            let mut r = self.reader(site, attrs, Vec::new(), site.named());
            let read = fold::read_attributes(&site.operator, &mut r).map_err(|e| vec![e.into()]);
            (r, read)
        })
        .map_err(|refused| refused.problems)?;
        if !site.unknown().is_empty() {
            return Err(Vec::new());
        }
        let runtime =
            site.inputs.iter().flatten().find(|(_, k)| k.as_ref().is_some_and(|k| k.constant.is_none()));
        Err(vec![match runtime {
            Some((input, _)) => {
                ProblemKind::OnlyFolded { operator: site.operator.clone(), input: input.clone() }
            }
            None => self.unsupported(&site.operator),
        }])
    }

    /// Most elements that a tensor computed here from the site's inputs may have.
    fn limit(&self, site: &Site) -> usize {
        let known = (0..site.inputs.len()).filter_map(|i| site.known(i)?.constant.as_ref());
        let taken: usize = known.map(Constant::len).sum();
        taken.max(FOLDED_GROWTH).min(self.budget)
    }

    /// Shape arithmetic.
    fn folded(&mut self, site: &Site, attrs: &Attrs) -> Result<bool, Vec<ProblemKind>> {
        if !fold::knows(&site.operator) || !site.unknown().is_empty() {
            return Ok(false);
        }
        let limit = self.limit(site);
        let inputs: Vec<Option<Known>> = (0..site.inputs.len()).map(|i| site.known(i).cloned()).collect();
        let outputs = site.outputs.len();
        let mut r = self.reader(site, attrs, Vec::new(), outputs);
        let mut call = fold::Call { r: &mut r, inputs: &inputs, limit };
        let Some(values) = fold::fold(&site.operator, &mut call).filter(|v| v.len() >= outputs) else {
            return Ok(false);
        };
        let unread = unread(&r);
        if !unread.is_empty() {
            return Err(unread);
        }
        for (name, c) in site.outputs.iter().zip(values) {
            self.budget = self.budget.saturating_sub(c.len());
            self.put(name, State::Is(Known { ty: c.ty(), constant: Some(c) }));
        }
        Ok(true)
    }

    fn operator(
        &mut self,
        site: &Site,
        def: &'static OpDef,
        attrs: Attrs,
        problems: Vec<ProblemKind>,
    ) -> Result<(), Vec<ProblemKind>> {
        let ready = judge(attrs, problems, |attrs, inputs| {
            let given = 0..site.inputs.len();
            let unknown = if inputs {
                site.unknown()
            } else {
                given.clone().filter(|i| site.inputs[*i].is_some()).collect()
            };
            let seen = |i: usize| {
                let k = site.known(i).filter(|_| inputs)?;
                Some(Input { ty: k.ty.clone(), known: k.constant.as_ref().map(Constant::known) })
            };
            let r = self.reader(site, attrs, given.map(seen).collect(), site.named());
            let mut r = r.with_unknown(unknown);
            let ready = self.ready(site, def, &mut r);
            (r, ready)
        });
        let ready = match ready {
            Ok(ready) => ready,
            Err(r) => return Err(self.doubted(site, def, r.attrs, r.aside, r.problems)),
        };
        let names: Vec<String> =
            ready.taken.iter().filter_map(|i| site.inputs[*i].as_ref()).map(|(n, _)| n.clone()).collect();
        let values = self.evaluated(site, &ready, &names).map_err(|p| vec![p])?;
        let kept = is_quantizer(ready.op.as_ref()) || names.iter().any(|n| self.quantized.contains(n));
        if kept || values.is_none() {
            self.build(site, ready.op, names, &ready.outputs[..site.named()]);
        }
        for (name, c) in site.outputs.iter().zip(values.into_iter().flatten()) {
            if kept {
                self.quantized.insert(name.clone());
            }
            self.put(name, State::Is(Known { ty: c.ty(), constant: Some(c) }));
        }
        Ok(())
    }

    /// The operator that a node is, as far as its inputs are known. Nothing is said where only that is missing.
    fn ready(&mut self, site: &Site, def: &'static OpDef, r: &mut Reader) -> Result<Ready, Vec<ProblemKind>> {
        let op = (def.read)(r).map_err(|e| vec![e.into()])?;
        if !r.unread().is_empty() {
            // Shapes that do not fit may be what an attribute under a wrong name was to mend.
            return Err(Vec::new());
        }
        let (mut taken, mut problems, mut hole) = (Vec::new(), Vec::new(), None);
        for (i, input) in site.inputs.iter().enumerate().filter(|(i, _)| !r.is_consumed(*i)) {
            match (input, hole) {
                (None, _) => hole = hole.or(Some(i)),
                (Some(_), Some(at)) => return Err(vec![ProblemKind::Hole(at)]),
                (Some((name, known)), None) => {
                    if let Some(c) = known.as_ref().and_then(|k| k.constant.as_ref()) {
                        problems.extend(self.runtime_tensor(name, c, i).err());
                    }
                    taken.push(i);
                }
            }
        }
        let types: Option<Vec<TensorType>> = taken.iter().map(|i| Some(site.known(*i)?.ty.clone())).collect();
        let Some(types) = types else { return Err(problems) };
        match op.infer(&types) {
            Err(e) => problems.push(e.into()),
            Ok(outputs) => {
                let (expected, got) = (outputs.len(), site.named());
                if got > expected {
                    problems.push(ProblemKind::Outputs { expected, got });
                } else if let Some(t) = outputs.iter().find(|t| !fits(t)) {
                    problems.push(OpError::TooLarge { shape: t.to_string() }.into());
                } else if problems.is_empty() {
                    return Ok(Ready { op, taken, outputs });
                }
            }
        }
        Err(problems)
    }

    /// A constant that a node takes at run time: it must be a tensor.
    pub(super) fn runtime_tensor(
        &mut self,
        name: &str,
        c: &Constant,
        input: usize,
    ) -> Result<(), ProblemKind> {
        if self.tensors.contains_key(name) {
            return Ok(());
        }
        let t = c.tensor(name).map_err(|e| match e {
            NoTensor::DependsOnBatch => ProblemKind::DependsOnBatch { input, tensor: name.to_owned() },
            NoTensor::Range(p) => p.into(),
        })?;
        self.tensors.insert(name.to_owned(), t);
        Ok(())
    }

    /// The tensor of a constant, for the graph.
    pub(super) fn tensor(&mut self, name: &str, c: &Constant) -> Result<Tensor, ProblemKind> {
        self.runtime_tensor(name, c, 0)?;
        Ok(self.tensors[name].clone())
    }

    /// The outputs of an operator whose inputs are all constant, where they are not too large. Of quantizers those that
    /// may have to be known as attributes of others.
    fn evaluated(
        &mut self,
        site: &Site,
        ready: &Ready,
        names: &[String],
    ) -> Result<Option<Vec<Constant>>, ProblemKind> {
        let constant = |i: &usize| site.known(*i).is_some_and(|k| k.constant.is_some());
        if !ready.taken.iter().all(constant) {
            return Ok(None);
        }
        let sizes: Option<Vec<usize>> = ready.outputs.iter().map(|t| element_count(&t.dims()?)).collect();
        let total: Option<usize> = sizes.map(|s| s.iter().sum());
        let most = if is_quantizer(ready.op.as_ref()) { QUANTIZED_KNOWN } else { self.limit(site) };
        let Some(total) = total.filter(|n| *n <= most) else { return Ok(None) };
        self.budget = self.budget.saturating_sub(total);
        let tensors: Vec<Tensor> = names.iter().map(|n| self.tensors[n].clone()).collect();
        let values = ready.op.eval(&self.scratch, &tensors)?;
        Ok(Some(values.into_iter().map(Constant::Tensor).collect()))
    }

    fn build(&mut self, site: &Site, op: Arc<dyn Op>, inputs: Vec<String>, types: &[TensorType]) {
        let first = site.outputs.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
        let given = if site.node.name().is_empty() { first } else { site.node.name() };
        let name = unique(given, |n| self.node_names.contains(n));
        self.node_names.insert(name.clone());
        let mut outputs = Vec::new();
        for (i, (o, ty)) in site.outputs.iter().zip(types).enumerate() {
            if o.is_empty() || self.cut.contains(o.as_str()) {
                // Nobody can ask for it, but it needs a name.
                outputs.push(self.fresh(&format!("{name}:{i}")));
            } else {
                outputs.push(o.clone());
                self.put(o, State::Is(Known { ty: ty.clone(), constant: None }));
            }
        }
        let source = format!("{} ({})", site.node.name(), site.operator);
        self.nodes.push(Built { name, source, op, inputs, outputs });
    }
}
