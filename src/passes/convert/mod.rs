//! From a fake-quant graph to one on codes.
//!
//! A tensor behind a quantizer becomes codes. A product, the addition and the clamp that follow it and the quantizer of
//! what comes of them are one operator on codes; so are other operators that have an integer form, with the clamp and the
//! quantizer behind them; functions of one number are tables. Operators that pass codes through do so. What is left runs in f32 between `Dequantize` and
//! `Quantize`: a float island, which is listed with its reason. A product that no quantizer follows gives numbers: f32 of
//! its sums times the scales.

pub(super) mod border;
mod bound;
mod constants;
pub(super) mod group;
mod tables;

use super::export::export;
use super::{PassError, from_qdq};
use crate::graph::{
    AttrValue, CodeOutput, CodeParams, Graph, Node, NodeId, Op, OpError, QuantRule, Stage, Target, Value,
    ValueId,
};
use crate::ops::{bound_of, dequantize, has_table, identity, integer, quantize, sharing_groups};
use crate::quant::{Profile, QParams, Role};
use crate::tensor::{DType, TensorType};
use border::{with_quantizers, with_taps};
use constants::{constant_codes, numbers_of};
use group::{Chain, End, chain};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Another target than the one that the graph was calibrated for.
    pub profile: Option<Profile>,
    /// Names of nodes that stay as they are, in f32 between quantizers.
    pub preserve: HashSet<NodeId>,
}

/// An operator that runs in f32 although it computes on what has quantizers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatIsland {
    /// Its name.
    pub node: String,
    /// The operator.
    pub op: &'static str,
    /// Why.
    pub reason: String,
}

/// What sums of products may come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccumulatorBound {
    /// The operator on codes, by name.
    pub node: String,
    /// What no sum exceeds in magnitude: of |w| times the largest |x|, the bias, and what saturation may add to it.
    pub bound: u64,
    /// Bits of the accumulator, sign included.
    pub bits: u32,
    /// Bits of it that no sum needs.
    pub headroom_bits: u32,
    /// Elements of the bias that did not fit 32 bits.
    pub saturated_bias: usize,
}

/// A graph on codes, and what there is to say of it.
#[derive(Debug)]
pub struct Converted {
    /// The graph, in stage `quantized`.
    pub graph: Graph,
    /// Operators in f32.
    pub islands: Vec<FloatIsland>,
    /// Of each product.
    pub accumulators: Vec<AccumulatorBound>,
}

/// Converts a graph all of whose quantizers have parameters.
///
/// # Errors
/// A graph of another stage, quantizers without parameters, and what the profile cannot do.
pub fn convert(graph: &Graph, options: &ConvertOptions) -> Result<Converted, PassError> {
    if ![Stage::FakeQuant, Stage::Export].contains(&graph.stage) {
        return Err(PassError::Stage { got: graph.stage.name(), wanted: Stage::FakeQuant.name() });
    }
    let profile = target(graph, options)?;
    let mut c = Conversion::new(graph, options, profile)?;
    for i in 0..c.from.nodes().len() {
        c.node(i)?;
    }
    c.finish()
}

/// What runs in place of a fake-quant graph: at level 4 every operator is its integer form, at level 3 those are that
/// `export` replaces. Others run as they are.
///
/// # Errors
/// As [`convert`].
pub fn simulation(graph: Graph) -> Result<Graph, PassError> {
    let level = graph.target.as_ref().map_or(0, |t| t.level);
    match (graph.stage, level) {
        (Stage::FakeQuant | Stage::Export, 4) => Ok(convert(&graph, &ConvertOptions::default())?.graph),
        (Stage::FakeQuant, 3) => Ok(export(&graph, None)?.graph),
        _ => Ok(graph),
    }
}

/// [`simulation`] with tensors under the names that they have in the fake-quant graph, as numbers: what their codes stand
/// for.
///
/// # Errors
/// As [`convert`].
pub fn simulated(graph: Graph) -> Result<Graph, PassError> {
    let stage = graph.stage;
    let mut out = simulation(graph)?;
    if out.stage == stage || !out.stage.is_on_codes() {
        return Ok(out);
    }
    let mut codes: Vec<(ValueId, QParams)> = out.code_params().into_iter().collect();
    codes.sort_by_key(|(v, _)| *v);
    for (v, params) in codes {
        let name = out.value(v).name.clone();
        if params.scales().len() != 1 || name.ends_with("/codes") {
            continue;
        }
        let spare = out.fresh_value(&format!("{name}/codes"));
        out.rename_value(v, spare);
        let node = out.fresh_node(&format!("{name}/dequantize"));
        let made = out.add_node(node.clone(), None, dequantize(params), &[v], &[name]);
        made.map_err(|error| PassError::Op { node, error })?;
    }
    out.verify()?;
    Ok(out)
}

/// A graph on codes as another target would compute it: with its own parameters, and that target's arithmetic.
///
/// # Errors
/// A graph that has no operators on codes.
pub fn as_profile(mut graph: Graph, profile: &Profile) -> Result<Graph, PassError> {
    if !graph.stage.is_on_codes() {
        return Err(PassError::Stage { got: graph.stage.name(), wanted: Stage::Quantized.name() });
    }
    for i in 0..graph.nodes().len() {
        let node = &graph.nodes()[i];
        let Some((op, params)) = node.op.integer_of() else { continue };
        let mut params = CodeParams { arithmetic: profile.arithmetic(op.def().name), ..params.clone() };
        let inputs: Vec<&Value> = node.inputs.iter().map(|v| graph.value(*v)).collect();
        params.bound = bound_of(op.as_ref(), &params, &inputs).map_err(|error| refused(node, error))?;
        let op = integer(Arc::clone(op), params);
        graph.set_op(i, op);
    }
    graph.verify()?;
    Ok(graph)
}

/// The profile to convert for.
fn target(graph: &Graph, options: &ConvertOptions) -> Result<Profile, PassError> {
    let fail = |message: String| Err(PassError::Profile { message });
    let profile = match (&options.profile, &graph.target) {
        (Some(asked), Some(t)) if t.level == 4 && *asked != t.profile => {
            return fail(format!(
                "it was calibrated at level 4, which is exact for target {} alone: calibrate for {} instead",
                t.profile.name, asked.name
            ));
        }
        (Some(asked), _) => asked.clone(),
        (None, Some(t)) => t.profile.clone(),
        (None, None) => Profile::default(),
    };
    if let Some(op) = profile.named_ops().find(|op| crate::ops::by_name(op).is_none()) {
        return fail(format!("profile {}: op.{op}: there is no such operator", profile.name));
    }
    check_types(graph, &profile)?;
    Ok(profile)
}

/// Whether a target has the types of all quantizers of a graph.
///
/// # Errors
/// The first quantizer of another type.
pub fn check_types(graph: &Graph, profile: &Profile) -> Result<(), PassError> {
    for node in graph.nodes() {
        let Some(q) = node.quantizer().filter(|q| q.spec.owner.is_none()) else { continue };
        let allowed = match q.spec.role {
            Role::Weight => &profile.weights,
            Role::Tap | Role::Constant => continue,
            _ => &profile.activations,
        };
        if !allowed.contains(&q.spec.dtype) {
            let names: Vec<&str> = allowed.iter().map(|d| d.name()).collect();
            let message = format!(
                "{}: {} codes; target {} has {}",
                node.name,
                q.spec.dtype,
                profile.name,
                names.join(", ")
            );
            return Err(PassError::Profile { message });
        }
    }
    Ok(())
}

/// A value of the old graph as codes: the value of the new one, and what they stand for.
type Coded = (ValueId, QParams);

struct Conversion<'a> {
    options: &'a ConvertOptions,
    profile: Profile,
    /// Without what lies inside composite operators.
    from: Graph,
    users: HashMap<ValueId, Vec<usize>>,
    /// Parameters of the taps inside each composite operator, in order.
    internals: HashMap<NodeId, Vec<QParams>>,
    /// Composite operators with a tap that needs data and got none.
    unknown: HashSet<NodeId>,
    to: Graph,
    codes: HashMap<ValueId, Coded>,
    numbers: HashMap<ValueId, ValueId>,
    /// Nodes that are part of a chain that ends at a later node, which makes it.
    absorbed: HashSet<usize>,
    /// Chains by the node at which they are made.
    pending: BTreeMap<usize, Vec<Chain>>,
    islands: Vec<FloatIsland>,
    accumulators: Vec<AccumulatorBound>,
}

fn refused(node: &Node, error: OpError) -> PassError {
    PassError::Op { node: node.label(), error }
}

impl<'a> Conversion<'a> {
    fn new(graph: &Graph, options: &'a ConvertOptions, profile: Profile) -> Result<Self, PassError> {
        let mut internals: HashMap<NodeId, Vec<QParams>> = HashMap::new();
        let mut unfit = Vec::new();
        let mut unknown = HashSet::new();
        let given: HashSet<NodeId> = graph.nodes().iter().map(|n| n.id).collect();
        let graph = with_taps(graph)?;
        for node in graph.nodes() {
            let Some(q) = node.quantizer() else { continue };
            let here = given.contains(&node.id);
            let params = if here { q.active() } else { q.params.as_ref() };
            match (params, q.spec.owner) {
                (Some(params), Some(owner)) => {
                    internals.entry(NodeId(owner)).or_default().push(params.clone());
                }
                (Some(_), None) => {}
                (None, Some(owner)) if !here => {
                    unknown.insert(NodeId(owner));
                }
                (None, _) => unfit.push(node.name.clone()),
            }
        }
        if !unfit.is_empty() {
            return Err(PassError::Unfit { quantizers: unfit });
        }
        let from = with_quantizers(graph.clone().without_internals()?)?;
        let mut to = Graph::new(graph.name.clone());
        to.stage = Stage::Quantized;
        let level = graph.target.as_ref().map_or(1, |t| t.level);
        to.target = Some(Target { profile: profile.clone(), level });
        let mut c = Conversion {
            options,
            profile,
            users: from.users(),
            from,
            internals,
            unknown,
            to,
            codes: HashMap::new(),
            numbers: HashMap::new(),
            absorbed: HashSet::new(),
            pending: BTreeMap::new(),
            islands: Vec::new(),
            accumulators: Vec::new(),
        };
        for v in c.from.inputs.clone() {
            let value = c.from.value(v).clone();
            let new = c.to.add_input(value.name, value.ty);
            c.numbers.insert(v, new);
        }
        Ok(c)
    }

    fn finish(mut self) -> Result<Converted, PassError> {
        for v in self.from.outputs.clone() {
            let new = self.number(v)?;
            let name = self.from.value(v).name.clone();
            if self.to.value(new).name != name {
                if let Some(other) = self.to.find_value(&name) {
                    let spare = self.to.fresh_value(&format!("{name}/codes"));
                    self.to.rename_value(other, spare);
                }
                self.to.rename_value(new, name);
            }
            self.to.outputs.push(new);
        }
        self.to.outputs.dedup();
        Ok(Converted { graph: self.to.tidied()?, islands: self.islands, accumulators: self.accumulators })
    }

    /// Adds a node to the new graph, its one output under a name like `output`.
    fn add(
        &mut self,
        like: &Node,
        name: &str,
        op: Arc<dyn Op>,
        inputs: &[ValueId],
        outputs: &[String],
    ) -> Result<Vec<ValueId>, PassError> {
        let name = self.to.fresh_node(name);
        let outputs: Vec<String> = outputs.iter().map(|o| self.to.fresh_value(o)).collect();
        self.to.add_node(name, like.source.clone(), op, inputs, &outputs).map_err(|e| refused(like, e))
    }

    /// A tensor as numbers in the new graph.
    fn number(&mut self, v: ValueId) -> Result<ValueId, PassError> {
        if let Some(new) = self.numbers.get(&v) {
            return Ok(*new);
        }
        let value = self.from.value(v).clone();
        let new = if let Some(tensor) = value.constant {
            let name = self.to.fresh_value(&value.name);
            self.to.add_constant(name, tensor)
        } else {
            let (codes, params) = self.codes[&v].clone();
            if let Some(tensor) = self.to.value(codes).constant.clone() {
                // Of weights, which may have several scales.
                let name = self.to.fresh_value(&value.name);
                let new = self.to.add_constant(name, numbers_of(&tensor, &params));
                self.numbers.insert(v, new);
                return Ok(new);
            }
            let name = self.to.fresh_node(&format!("{}/dequantize", value.name));
            let out = self.to.fresh_value(&format!("{}/dequantized", value.name));
            let made = self.to.add_node(name.clone(), None, dequantize(params), &[codes], &[out]);
            made.map_err(|error| PassError::Op { node: name, error })?[0]
        };
        self.numbers.insert(v, new);
        Ok(new)
    }

    fn node(&mut self, i: usize) -> Result<(), PassError> {
        for chain in self.pending.remove(&i).unwrap_or_default() {
            self.emit(&chain)?;
        }
        if self.absorbed.contains(&i) {
            return Ok(());
        }
        let node = self.from.nodes()[i].clone();
        if node.quantizer().is_some() {
            return self.quantizer(&node);
        }
        if self.on_the_border(i)? || self.exported(&node)? {
            return Ok(());
        }
        match self.why_not(&node) {
            None => match node.op.quant_rule() {
                QuantRule::Codes | QuantRule::Clamp { .. } => self.on_codes(&node),
                _ if node.op.def().name == "Concat" => self.concat(&node),
                _ => self.start(i),
            },
            Some(reason) => self.in_numbers(&node, reason),
        }
    }

    /// Where the model takes codes or gives codes, what they stand for is known without computing: `false` for all other
    /// nodes.
    fn on_the_border(&mut self, i: usize) -> Result<bool, PassError> {
        let params = from_qdq::constant_params(&self.from, i).filter(|p| p.scales().len() == 1);
        let Some(params) = params else { return Ok(false) };
        let node = &self.from.nodes()[i];
        let (x, y) = (node.inputs[0], node.outputs[0]);
        if matches!(node.op.quant_rule(), QuantRule::Dequantize(_)) {
            let codes = self.number(x)?;
            self.codes.insert(y, (codes, params));
            return Ok(true);
        }
        match self.codes.get(&x) {
            Some((codes, old)) if old.same_codes(&params) => {
                self.numbers.insert(y, *codes);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// What `export` put in, and what comes with codes: copied. `false` for all other nodes.
    fn exported(&mut self, node: &Node) -> Result<bool, PassError> {
        let y = node.outputs[0];
        match node.op.def().name {
            "Quantize" => {
                let params = node.op.codes().and_then(|c| c.params().cloned());
                let known = self
                    .codes
                    .get(&node.inputs[0])
                    .filter(|(_, p)| params.as_ref().is_some_and(|q| p.same_codes(q)));
                if let Some((codes, _)) = known {
                    self.numbers.insert(y, *codes);
                    return Ok(true);
                }
            }
            "Dequantize" => {
                if let Some(params) = node.op.takes(0).cloned() {
                    let codes = self.number(node.inputs[0])?;
                    self.codes.insert(y, (codes, params));
                    return Ok(true);
                }
            }
            _ if node.op.codes().is_some() => {}
            _ => return Ok(false),
        }
        let inputs = node.inputs.iter().map(|v| self.number(*v)).collect::<Result<Vec<_>, _>>()?;
        // Under the name of what they stand for, as other codes are.
        let name = self.from.value(y).name.as_str();
        let name = name.strip_suffix("/codes").unwrap_or(name).to_owned();
        let made = self.add(node, &node.name, Arc::clone(&node.op), &inputs, &[name])?[0];
        self.numbers.insert(y, made);
        Ok(true)
    }

    /// Why a node runs in f32; `None` where it does not.
    fn why_not(&self, node: &Node) -> Option<String> {
        let coded = |v: &ValueId| self.codes.contains_key(v);
        if self.options.preserve.contains(&node.id) {
            return Some("it is preserved".to_owned());
        }
        let rule = node.op.quant_rule();
        let first = node.inputs.first().is_some_and(coded);
        match rule {
            QuantRule::Codes | QuantRule::Clamp { .. } if first => None,
            QuantRule::Codes | QuantRule::Clamp { .. } => Some("its input has no quantizer".to_owned()),
            QuantRule::Gemm { .. } if !node.op.has_integer_form() => Some(no_form(node)),
            QuantRule::Gemm { .. } => {
                let both = node.inputs[..2].iter().all(coded);
                let bias = node.inputs.get(2).is_none_or(|b| self.from.value(*b).constant.is_some());
                if !both {
                    Some("an input has no quantizer".to_owned())
                } else if !bias {
                    Some("its bias is no constant".to_owned())
                } else if node.inputs.get(2).is_some_and(|b| !self.is_per_channel(node, *b)) {
                    Some("its bias is not one number a channel".to_owned())
                } else {
                    self.weights_with_several_scales(node)
                }
            }
            QuantRule::Compute | QuantRule::Mean => {
                let f32s = node.inputs.iter().filter(|v| self.from.value(**v).ty.dtype == DType::F32);
                let concat = node.op.def().name == "Concat";
                let table = || {
                    self.codes
                        .get(&node.inputs[0])
                        .is_some_and(|(_, p)| has_table(node.op.as_ref(), p.dtype()))
                };
                if !concat && !node.op.has_integer_form() && first && !table() {
                    Some(no_form(node))
                } else if self.unknown.contains(&node.id) {
                    Some("what it computes inside was not observed: calibrate the model first".to_owned())
                } else if !f32s.clone().all(coded) {
                    Some("an input has no quantizer".to_owned())
                } else if !matches!(rule, QuantRule::Mean) && self.ends(node).is_empty() {
                    Some("no quantizer follows it".to_owned())
                } else {
                    None
                }
            }
            _ => Some(no_form(node)),
        }
    }

    /// Whether a bias has one number, or one for each channel; `Gemm` takes a whole matrix.
    fn is_per_channel(&self, node: &Node, bias: ValueId) -> bool {
        let dims = |v: ValueId| self.from.value(v).ty.clone().shape;
        let count = self.from.value(bias).ty.elements().and_then(|n| n.fixed());
        let w = dims(node.inputs[1]);
        let channels = super::fuse::channel_axis(node, w.len()).and_then(|a| w[a].fixed());
        let channels = channels.map(|n| n * sharing_groups(node.op.as_ref()));
        let last = dims(bias).last().and_then(|d| d.fixed()).unwrap_or(1);
        count == Some(1) || (count == channels && Some(last) == channels)
    }

    /// Scales along an axis that sums run over.
    fn weights_with_several_scales(&self, node: &Node) -> Option<String> {
        let (_, p) = &self.codes[&node.inputs[1]];
        let rank = self.from.value(node.inputs[1]).ty.rank();
        let channel = super::fuse::channel_axis(node, rank);
        (p.axis().is_some() && p.axis() != channel)
            .then(|| "its weights have scales along an axis that is summed over".to_owned())
    }

    /// The quantizers right behind a node, or behind a clamp that follows it.
    fn ends(&self, node: &Node) -> Vec<End> {
        group::ends(&self.from, &self.users, node.outputs[0])
    }

    /// A quantizer whose tensor nobody made codes of yet.
    fn quantizer(&mut self, node: &Node) -> Result<(), PassError> {
        let (x, y) = (node.inputs[0], node.outputs[0]);
        if self.codes.contains_key(&y) {
            return Ok(());
        }
        let params = node.quantizer().and_then(|q| q.params.clone()).expect("checked before");
        let value = self.from.value(x).clone();
        if let Some(tensor) = &value.constant {
            let codes = constant_codes(tensor, &params).map_err(|e| refused(node, e))?;
            let name = self.to.fresh_value(&value.name);
            let new = self.to.add_constant(name, codes);
            self.codes.insert(y, (new, params));
            return Ok(());
        }
        if params.scales().len() != 1 {
            // Codes of several scales have a meaning where sums keep them apart, in weights.
            return self.in_numbers(node, "it has several scales".to_owned());
        }
        if let Some((codes, old)) = self.codes.get(&x).cloned() {
            let new = if old.same_codes(&params) {
                codes
            } else {
                self.requantize(node, &value.name, codes, old, &params)?
            };
            self.codes.insert(y, (new, params));
            return Ok(());
        }
        let number = self.number(x)?;
        let out = format!("{}/codes", value.name);
        let made = self.add(node, &node.name, quantize(params.clone()), &[number], &[out])?;
        self.codes.insert(y, (made[0], params));
        Ok(())
    }

    /// An operator that passes codes through, or clamps them.
    fn on_codes(&mut self, node: &Node) -> Result<(), PassError> {
        let (codes, params) = self.codes[&node.inputs[0]].clone();
        if let QuantRule::Clamp { low, high } = node.op.quant_rule() {
            let mut p = CodeParams::new([params.clone()], params.clone(), Vec::new());
            p.output = clamped(&params, low, high);
            p.arithmetic = self.profile.arithmetic("Identity");
            let name = self.from.value(node.outputs[0]).name.clone();
            let made = self.add(node, &node.name, integer(identity(), p), &[codes], &[name])?;
            self.codes.insert(node.outputs[0], (made[0], params));
            return Ok(());
        }
        let mut inputs = vec![codes];
        for v in &node.inputs[1..] {
            inputs.push(self.number(*v)?);
        }
        let types: Vec<_> = inputs.iter().map(|v| self.to.value(*v).ty.clone()).collect();
        let Some(op) = for_codes(node, &params, &types) else {
            return self.in_numbers(node, "it takes no codes of this type".to_owned());
        };
        let names: Vec<String> = node.outputs.iter().map(|v| self.from.value(*v).name.clone()).collect();
        let made = self.add(node, &node.name, op, &inputs, &names)?;
        for (old, new) in node.outputs.iter().zip(made) {
            // Indices beside them are numbers.
            if self.from.value(*old).ty.dtype == DType::F32 {
                self.codes.insert(*old, (new, params.clone()));
            } else {
                self.numbers.insert(*old, new);
            }
        }
        Ok(())
    }

    /// Inputs requantized to the parameters of the output, then moved.
    fn concat(&mut self, node: &Node) -> Result<(), PassError> {
        for end in self.ends(node) {
            let mut inputs = Vec::new();
            for v in &node.inputs {
                let (codes, old) = self.codes[v].clone();
                let name = self.from.value(*v).name.clone();
                inputs.push(if old.same_codes(&end.params) {
                    codes
                } else {
                    self.requantize(node, &name, codes, old, &end.params)?
                });
            }
            let name = self.from.value(node.outputs[0]).name.clone();
            let made = self.add(node, &node.name, Arc::clone(&node.op), &inputs, &[name])?[0];
            let params = end.params.clone();
            let made = match end.clamp {
                None => made,
                Some((low, high)) => {
                    let mut p = CodeParams::new([params.clone()], params.clone(), Vec::new());
                    p.output = clamped(&params, low, high);
                    p.arithmetic = self.profile.arithmetic("Identity");
                    let name = format!("{}/clamped", node.name);
                    self.add(node, &name, integer(identity(), p), &[made], std::slice::from_ref(&name))?[0]
                }
            };
            self.codes.insert(end.value, (made, params));
            self.absorbed.extend(end.nodes);
        }
        Ok(())
    }

    /// A node in f32, as it is.
    fn in_numbers(&mut self, node: &Node, reason: String) -> Result<(), PassError> {
        let on_codes = node.inputs.iter().any(|v| self.codes.contains_key(v));
        let floats =
            node.inputs.iter().chain(&node.outputs).any(|v| self.from.value(*v).ty.dtype == DType::F32);
        let constant = node.inputs.iter().all(|v| self.from.value(*v).constant.is_some());
        if floats && !constant {
            let reason = if on_codes { reason } else { format!("{reason}: it takes numbers") };
            self.islands.push(FloatIsland { node: node.name.clone(), op: node.op.def().name, reason });
        }
        let inputs = node.inputs.iter().map(|v| self.number(*v)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = node.outputs.iter().map(|v| self.from.value(*v).name.clone()).collect();
        let made = self.add(node, &node.name, Arc::clone(&node.op), &inputs, &names)?;
        self.numbers.extend(node.outputs.iter().copied().zip(made));
        Ok(())
    }

    /// The chains that begin with a node, each made where its last node is.
    fn start(&mut self, i: usize) -> Result<(), PassError> {
        let coded = |v: &ValueId| self.codes.get(v).map(|(_, p)| p.clone());
        for chain in chain(&self.from, &self.users, i, &coded, &self.options.preserve) {
            self.absorbed.extend(chain.members.iter().copied());
            if chain.last == i {
                self.emit(&chain)?;
            } else {
                self.pending.entry(chain.last).or_default().push(chain);
            }
        }
        Ok(())
    }

    /// The operator on codes of a chain.
    fn emit(&mut self, chain: &Chain) -> Result<(), PassError> {
        let node = self.from.nodes()[chain.first].clone();
        let arithmetic = self.profile.arithmetic(node.op.def().name);
        let gemm = matches!(node.op.quant_rule(), QuantRule::Gemm { .. });
        let mut inputs = Vec::new();
        let mut of_inputs = Vec::new();
        let count = if gemm { 2 } else { node.inputs.len() };
        for v in &node.inputs[..count] {
            if let Some((codes, params)) = self.codes.get(v).cloned() {
                inputs.push(codes);
                of_inputs.push(Some(params));
            } else {
                inputs.push(self.number(*v)?);
                of_inputs.push(None);
            }
        }
        let mut params = CodeParams {
            inputs: of_inputs,
            output: match &chain.end {
                None => CodeOutput::Real,
                Some(end) => match end.clamp {
                    Some((low, high)) => clamped(&end.params, low, high),
                    None => CodeOutput::codes(end.params.clone()),
                },
            },
            internals: self.internals.get(&node.id).cloned().unwrap_or_default(),
            addend: None,
            bound: 0,
            arithmetic,
        };
        if gemm {
            self.bias(&node, chain, &mut params, &mut inputs)?;
        }
        if let Some(addend) = chain.addend {
            let (codes, p) = self.codes[&addend].clone();
            inputs.push(codes);
            params.addend = Some(p);
        }
        let tail = chain.end.as_ref().map_or(chain.output, |e| e.tensor);
        let name = self.from.value(tail).name.clone();
        let made = if node.op.has_integer_form() {
            self.add(&node, &node.name, integer(Arc::clone(&node.op), params), &inputs, &[name])?[0]
        } else {
            self.function(&node, &node.op, params, inputs[0], &[node.name.clone(), name])?
        };
        match &chain.end {
            None => {
                self.numbers.insert(chain.output, made);
            }
            Some(end) => {
                self.codes.insert(end.value, (made, end.params.clone()));
            }
        }
        Ok(())
    }
}

fn no_form(node: &Node) -> String {
    format!("{} has no integer form here", node.op.def().name)
}

/// Codes between those of two numbers.
pub(super) fn clamped(params: &QParams, low: f32, high: f32) -> CodeOutput {
    let (least, most) = params.codes();
    let step = params.step(0);
    let (low, high) = (step.quantize(low).max(least), step.quantize(high).min(most));
    CodeOutput::Codes { params: params.clone(), low: low.min(high), high }
}

/// An operator that passes codes through, for codes of these parameters.
fn for_codes(node: &Node, params: &QParams, types: &[TensorType]) -> Option<Arc<dyn Op>> {
    let mut op = Arc::clone(&node.op);
    if node.op.def().name == "Pad" || node.op.def().name == "Resize" {
        // What lies outside is a number in their attributes: of `Pad` one of the tensor's type, of `Resize` always a float.
        let mut attrs = node.op.attrs();
        for (name, v) in &mut attrs.0 {
            match (name.as_str(), &*v) {
                ("value", AttrValue::Float(x)) => {
                    *v = AttrValue::Int(params.step(0).quantize(*x).into());
                }
                ("extrapolation_value", AttrValue::Float(x)) => {
                    *v = AttrValue::Float(params.step(0).quantize(*x) as f32);
                }
                _ => {}
            }
        }
        op = crate::ops::build(node.op.def().name, attrs, types).ok()?;
    }
    op.infer(types).is_ok().then_some(op)
}
