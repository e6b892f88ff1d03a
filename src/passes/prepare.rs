//! From a float graph to one with quantizers that observe: recognise, fold, and put a quantizer on every tensor between
//! operators that will compute with integers.
//!
//! A group of fused nodes has one quantizer behind it. Operators on codes pass parameters through, so what they produce
//! has none. An operator without an integer form is a float island between quantizers. With high-precision outputs
//! everything behind the last products is a float tail.
//!
//! What lies inside attention - scores and probabilities - has codes of 16 bits where the target has these, unless a rule
//! says otherwise, and so have the tensors inside composite operators (see [`super::internals`]).

mod grids;
mod insert;

use self::grids::grids;
use self::insert::insert;
use super::PassError;
use super::config::{Preset, QuantConfig};
use super::fuse::{self, Groups, Unfused, channel_axis};
use super::internals::{self, Composite};
use super::recognise::{self, Attention, recognise};
use super::rules::{Rules, Target};
use super::split::split;
use crate::graph::{Graph, NodeId, QuantRule, Stage, ValueId};
use crate::ops::fake_quant;
use crate::quant::{Profile, Role, State};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A graph with quantizers, and what there is to say about them.
#[derive(Debug)]
pub struct Prepared {
    /// The graph, in stage `fake-quant`.
    pub graph: Graph,
    /// The tensor of the float graph that each quantizer of a runtime tensor observes, by name.
    pub observed: HashMap<NodeId, String>,
    /// For quantizers of masked attention scores, the tensor before the mask: what lies far below it needs no codes, as
    /// its exponential is zero.
    pub masked: HashMap<NodeId, String>,
    /// Nodes that could be one group and are not.
    pub unfused: Vec<Unfused>,
    /// What a rule asked for and did not get.
    pub forced: Vec<Forced>,
    /// Operators that quantize as one with tensors inside.
    pub composites: Vec<Composite>,
}

/// A type that a rule asked for and legality forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// The node.
    pub node: String,
    /// What was asked.
    pub asked: DType,
    /// What it is instead, and why.
    pub reason: String,
}

/// The float graph that is calibrated: recognised and folded, with the arithmetic of the one that quantizers are put in.
///
/// # Errors
/// A graph of another stage than `float`.
pub fn calibration_graph(graph: Graph) -> Result<Graph, PassError> {
    if graph.stage != Stage::Float {
        return Err(PassError::Stage { got: graph.stage.name(), wanted: Stage::Float.name() });
    }
    fuse::fold_batch_norm(recognise(graph)?)
}

/// Finds the quantizers of what [`calibration_graph`] gives by a configuration and puts them in.
///
/// # Errors
/// Rules that match nothing or ask for what cannot be.
pub fn prepare(graph: &Graph, config: &QuantConfig) -> Result<Prepared, PassError> {
    placed(graph, config, graph, &HashSet::new())
}

/// Both, for a model as it was read: [`calibration_graph`], taken apart where a rule says `split`, and what [`prepare`]
/// makes of it. Rules about nodes that are
/// not in that graph any more are told what became of them.
///
/// # Errors
/// As for the two.
pub fn prepare_model(model: &Graph, config: &QuantConfig) -> Result<(Graph, Prepared), PassError> {
    let (graph, sums) = split(calibration_graph(model.clone())?, config, model)?;
    let prepared = placed(&graph, config, model, &sums)?;
    Ok((graph, prepared))
}

fn placed(
    graph: &Graph,
    config: &QuantConfig,
    model: &Graph,
    sums: &HashSet<NodeId>,
) -> Result<Prepared, PassError> {
    if graph.stage != Stage::Float {
        return Err(PassError::Stage { got: graph.stage.name(), wanted: Stage::Float.name() });
    }
    let profile = config.profile().map_err(|e| PassError::Profile { message: e.to_string() })?;
    let groups = fuse::groups(graph);
    let mut p = Placement::new(graph, config, &groups, model, &profile)?;
    p.heads.extend((0..graph.nodes().len()).filter(|i| sums.contains(&graph.nodes()[*i].id)));
    p.place();
    let forced = p.forced();
    let mut composites = p.attentions();
    let on_codes: HashSet<NodeId> =
        p.seen.iter().filter(|i| !p.float[**i]).map(|i| graph.nodes()[*i].id).collect();
    let (mut prepared, mut observed) = insert(graph.clone(), &p.wanted, &p.uses, &p.rules, config, &profile)?;
    prepared.stage = Stage::FakeQuant;
    let level = config.level();
    let power_of_two = level == 2 || level == 3 || profile.shifts();
    prepared.target = Some(crate::graph::Target { profile, level });
    internals::quantize_parameters(&mut prepared, &on_codes, power_of_two)?;
    let inside = internals::declare(&mut prepared, &on_codes, observer(config), power_of_two)?;
    observed.extend(inside.observed);
    composites.extend(inside.composites);
    // One table, with nothing inside; said all the same, as it may have been written out.
    let gelus = graph.nodes().iter().filter(|n| n.op.def().name == "Gelu" && on_codes.contains(&n.id));
    composites.extend(gelus.map(|n| Composite { kind: "gelu".into(), node: n.id, internals: Vec::new() }));
    composites.sort_by_key(|c| c.node);
    let masked = observed.iter().filter_map(|(id, name)| {
        let before = p.before_mask(graph.find_value(name)?)?;
        Some((*id, graph.value(before).name.clone()))
    });
    let masked = masked.collect();
    Ok(Prepared { graph: prepared.tidied()?, observed, masked, unfused: groups.unfused, forced, composites })
}

/// What finds the ranges of activations.
fn observer(config: &QuantConfig) -> &str {
    config.observer.as_ref().map_or(DEFAULT_OBSERVER, |o| o.0.as_str())
}

/// What finds ranges unless something else is said.
const DEFAULT_OBSERVER: &str = "mix";

/// What is calibrated of a graph that has quantizers already: those without parameters. The first graph is the one to run:
/// its numbers pass those. The others keep their parameters and quantize, since they may stand for a clamp, too: exporters
/// leave a ReLU out where codes begin at zero. The second graph is to be filled.
///
/// # Errors
/// A graph that breaks a rule.
pub fn recalibration(
    mut graph: Graph,
    observer: Option<&str>,
    target: crate::graph::Target,
) -> Result<(Graph, Prepared), PassError> {
    graph.target = Some(target);
    let mut plain = graph.clone();
    let mut observed = HashMap::new();
    for i in 0..graph.nodes().len() {
        let node = &graph.nodes()[i];
        let Some(mut q) = node.quantizer().cloned() else { continue };
        if graph.value(node.inputs[0]).constant.is_none() {
            observed.insert(node.id, graph.value(node.inputs[0]).name.clone());
            if let Some(text) = observer.filter(|_| q.params.is_none()) {
                q.spec.observer = text.to_owned();
                graph.set_op(i, fake_quant(q.clone()));
            }
        }
        q.state = if q.params.is_some() { State::Validation } else { State::Float };
        plain.set_op(i, fake_quant(q));
    }
    plain.verify()?;
    // What an exporter does not know of: the insides of operators on codes.
    let on_codes = internals::on_codes(&graph);
    internals::quantize_parameters(&mut graph, &on_codes, false)?;
    let inside = internals::declare(&mut graph, &on_codes, observer.unwrap_or(DEFAULT_OBSERVER), false)?;
    observed.extend(inside.observed);
    graph.verify()?;
    let composites = inside.composites;
    Ok((
        plain,
        Prepared {
            graph,
            observed,
            masked: HashMap::new(),
            unfused: Vec::new(),
            forced: Vec::new(),
            composites,
        },
    ))
}

/// A quantizer to be: its tensor and what it is.
type Key = (ValueId, DType);

struct Placement<'a> {
    graph: &'a Graph,
    config: &'a QuantConfig,
    rules: Rules<'a>,
    producers: HashMap<ValueId, usize>,
    inner: HashSet<ValueId>,
    anchors: HashMap<ValueId, usize>,
    /// Nodes of groups whose first node computes with integers.
    members: BTreeSet<usize>,
    attention: Vec<Attention>,
    /// Nodes that run in float: islands and the tail.
    float: Vec<bool>,
    /// The last concatenations and means of what products give, and the additions that join a product again: what they take
    /// has 16 bits, where the target has these.
    heads: HashSet<usize>,
    /// Whether the target has activations of 16 bits.
    wide: bool,
    /// Tensors of points that pictures are sampled at, and the number beyond which no point counts.
    grids: HashMap<ValueId, Option<f32>>,
    /// Quantizers to be.
    wanted: BTreeMap<Key, Wanted>,
    /// Which quantizer an input of a node takes.
    uses: Vec<(usize, usize, Key)>,
    queue: Vec<usize>,
    seen: HashSet<usize>,
}

#[derive(Clone, Debug)]
struct Wanted {
    role: Role,
    axis: Option<usize>,
    /// The rule that speaks for it.
    target: Option<Target>,
    /// Whether the rule's settings for weights count.
    weight: bool,
    /// What is known of its numbers.
    bound: Option<Bound>,
}

/// What is known of numbers without looking at them.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// They lie between 0 and this one.
    Positive(f32),
    /// All that lie beyond this one, or below its opposite, mean the same as these.
    Symmetric(f32),
}

impl Wanted {
    /// Of what nothing on codes takes.
    fn output(target: Target) -> Wanted {
        Wanted { role: Role::Output, axis: None, target: Some(target), weight: false, bound: None }
    }
}

/// Whether a node is a concatenation of numbers.
fn is_head(graph: &Graph, i: usize) -> bool {
    let node = &graph.nodes()[i];
    node.op.def().name == "Concat" && graph.value(node.outputs[0]).ty.dtype == DType::F32
}

impl<'a> Placement<'a> {
    fn new(
        graph: &'a Graph,
        config: &'a QuantConfig,
        groups: &Groups,
        model: &Graph,
        profile: &Profile,
    ) -> Result<Self, PassError> {
        let rules = Rules::new(config, graph, model)?;
        let mut p = Placement {
            graph,
            config,
            rules,
            producers: graph.producers(),
            inner: groups.inner(graph),
            anchors: groups.anchors(graph),
            members: BTreeSet::new(),
            attention: recognise::attention(graph),
            float: Vec::new(),
            heads: HashSet::new(),
            wide: profile.activations.contains(&DType::I16),
            grids: HashMap::new(),
            wanted: BTreeMap::new(),
            uses: Vec::new(),
            queue: Vec::new(),
            seen: HashSet::new(),
        };
        let rule_says = |i: usize| p.rules.activation(Target::Node(i)).is_some_and(|r| r.float);
        let islands = graph.nodes().iter().enumerate();
        p.float = islands.map(|(i, n)| n.op.quant_rule().is_float() || rule_says(i)).collect();
        if config.preset != Preset::AllI8 {
            p.tail();
        }
        let index: HashMap<NodeId, usize> =
            graph.nodes().iter().enumerate().map(|(i, n)| (n.id, i)).collect();
        for group in &groups.groups {
            let nodes = group.nodes.iter().map(|id| index[id]);
            // The rest of a group goes with its first node.
            if p.float[index[&group.nodes[0]]] {
                nodes.for_each(|i| p.float[i] = true);
            } else {
                p.members.extend(nodes);
            }
        }
        Ok(p)
    }

    fn rule_of(&self, i: usize) -> QuantRule<'a> {
        self.graph.nodes()[i].op.quant_rule()
    }

    /// Marks what lies behind the last sums - products, means, concatenations and maxima of these - as float, unless a
    /// rule wants it quantized. The rest of a product's group stays with it.
    fn tail(&mut self) {
        let sums = self.sums();
        let mut before_sums: HashSet<ValueId> = HashSet::new();
        for (i, node) in self.graph.nodes().iter().enumerate().rev() {
            let asked = self.rules.activation(Target::Node(i)).is_some_and(|r| r.activation.is_some());
            let before = node.outputs.iter().any(|v| before_sums.contains(v));
            if before || asked || sums.contains(&i) {
                let last = is_head(self.graph, i) || matches!(node.op.quant_rule(), QuantRule::Mean);
                if !before && last && !self.float[i] {
                    self.heads.insert(i);
                }
                before_sums.extend(&node.inputs);
            } else {
                self.float[i] = true;
            }
        }
    }

    /// Products, and means, maxima and concatenations of what products give, by ways on which codes stay what they are
    /// or are added.
    fn sums(&self) -> HashSet<usize> {
        let (mut sums, mut of_products) = (HashSet::new(), HashSet::<ValueId>::new());
        for (i, node) in self.graph.nodes().iter().enumerate() {
            let (rule, name) = (node.op.quant_rule(), node.op.def().name);
            let product = matches!(rule, QuantRule::Gemm { .. });
            let first = node.inputs.first().is_some_and(|v| of_products.contains(v));
            let all = || node.inputs.iter().all(|v| of_products.contains(v));
            let passes = match rule {
                QuantRule::Mean | QuantRule::Codes | QuantRule::Clamp { .. } => first,
                _ => (name == "Add" || is_head(self.graph, i)) && all(),
            };
            if self.float[i] || !(product || passes) {
                continue;
            }
            of_products.extend(&node.outputs);
            let largest = ["MaxPool", "GlobalMaxPool"].contains(&name);
            if product || matches!(rule, QuantRule::Mean) || largest || is_head(self.graph, i) {
                sums.insert(i);
            }
        }
        sums
    }

    fn place(&mut self) {
        self.grids = grids(self.graph, |i| self.is_codes(i) && !self.float[i], |i| self.float[i]);
        for i in 0..self.graph.nodes().len() {
            let computes = self.rule_of(i).computes();
            if computes && !self.float[i] {
                self.queue.push(i);
            }
        }
        // Members of a group compute with integers even where the tail begins with them.
        self.queue.extend(&self.members);
        while let Some(i) = self.queue.pop() {
            self.consume(i);
        }
        // A mean gives numbers of its sums; a concatenation has only codes to give.
        for i in self.heads.clone().into_iter().filter(|i| is_head(self.graph, *i)) {
            let v = self.graph.nodes()[i].outputs[0];
            let asked = self.rules.activation(Target::Node(i)).and_then(|r| r.activation);
            let dtype = asked.map_or_else(|| self.default_dtype(i, Role::Output), |c| c.0);
            self.wanted.insert((v, dtype), Wanted::output(Target::Node(i)));
        }
        self.outputs();
    }

    /// Wants codes for the inputs of a node.
    fn consume(&mut self, i: usize) {
        let rule = self.rule_of(i);
        let node = &self.graph.nodes()[i];
        let member = self.in_group(i);
        if self.seen.contains(&i) || (self.float[i] && !member) || rule.is_float() {
            return;
        }
        self.seen.insert(i);
        let weighs = matches!(rule, QuantRule::Gemm { .. });
        let constants = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Concat"];
        for (input, v) in node.inputs.iter().enumerate() {
            let value = self.graph.value(*v);
            if value.ty.dtype != DType::F32 || self.inner.contains(v) || (weighs && input >= 2) {
                continue;
            }
            if value.constant.is_some() {
                let bias = member && self.inner_input(i);
                if weighs && input == 1 {
                    self.weight(i, input, *v);
                } else if weighs || (constants.contains(&node.op.def().name) && !bias) || self.is_codes(i) {
                    self.want(i, input, *v, Role::Constant);
                }
                continue;
            }
            if matches!(rule, QuantRule::Codes | QuantRule::Clamp { .. }) && input > 0 {
                continue;
            }
            self.want(i, input, *v, if self.grids.contains_key(v) { Role::Grid } else { Role::Activation });
        }
    }

    /// Whether a node is part of a group whose product computes with integers.
    fn in_group(&self, i: usize) -> bool {
        self.members.contains(&i)
    }

    /// Whether a node takes an inner tensor of its group.
    fn inner_input(&self, i: usize) -> bool {
        self.graph.nodes()[i].inputs.iter().any(|v| self.inner.contains(v))
    }

    fn is_codes(&self, i: usize) -> bool {
        matches!(self.rule_of(i), QuantRule::Codes | QuantRule::Clamp { .. }) && !self.inner_input(i)
    }

    fn weight(&mut self, i: usize, input: usize, v: ValueId) {
        let rank = self.graph.value(v).ty.rank();
        let dtype = self.rules.weight(i).and_then(|r| r.weight).map_or(DType::I8, |c| c.0);
        let axis = channel_axis(&self.graph.nodes()[i], rank);
        let wanted =
            Wanted { role: Role::Weight, axis, target: Some(Target::Node(i)), weight: true, bound: None };
        self.wanted.entry((v, dtype)).or_insert(wanted);
        self.uses.push((i, input, (v, dtype)));
    }

    /// Wants codes of a tensor for an input of a node. What passes codes through wants them of its own input.
    fn want(&mut self, i: usize, input: usize, v: ValueId, role: Role) {
        if let Some(p) = self.producers.get(&v).copied()
            && self.is_codes(p)
            && !self.float[p]
        {
            self.queue.push(p);
            return;
        }
        let (target, role) = if self.graph.value(v).constant.is_some() {
            (Target::Constant(v), Role::Constant)
        } else if let Some(p) = self.producers.get(&v) {
            (Target::Node(self.anchors.get(&v).copied().unwrap_or(*p)), role)
        } else {
            (Target::Input(v), if role == Role::Grid { role } else { Role::Input })
        };
        let inside = self.inside_attention(v);
        let role = if inside.is_some() { Role::Tap } else { role };
        let here = self.rules.activation(Target::Node(i)).and_then(|r| r.input.get(input));
        let there = self.rules.activation(target).and_then(|r| r.activation);
        let dtype = here.copied().or(there).map_or_else(|| self.default_dtype(i, role), |c| c.0);
        let bound = match self.grids.get(&v) {
            Some(grid) => grid.map(Bound::Symmetric),
            None => inside.flatten().map(Bound::Positive),
        };
        let wanted = Wanted { role, axis: None, target: Some(target), weight: false, bound };
        self.wanted.entry((v, dtype)).or_insert(wanted);
        self.uses.push((i, input, (v, dtype)));
    }

    /// Whether a tensor lies inside attention that computes with integers, and what bounds it there.
    fn inside_attention(&self, v: ValueId) -> Option<Option<f32>> {
        let mut all = self.attention.iter().filter(|a| !self.float[a.softmax]);
        all.find_map(|a| {
            if a.probabilities == v { Some(Some(1.0)) } else { a.scores.contains(&v).then_some(None) }
        })
    }

    /// The tensor that attention scores are before masks are added to them, or take their place.
    fn before_mask(&self, scores: ValueId) -> Option<ValueId> {
        let attention = self.attention.iter().find(|a| a.scores.contains(&scores))?;
        let mut at = scores;
        loop {
            let node = &self.graph.nodes()[*self.producers.get(&at)?];
            let masks = ["Add", "Sub", "Where"].contains(&node.op.def().name);
            match node.inputs.iter().find(|v| attention.scores.contains(v)) {
                Some(before) if masks => at = *before,
                _ => return (at != scores).then_some(at),
            }
        }
    }

    fn attentions(&self) -> Vec<Composite> {
        let with_codes = |v: &&ValueId| self.wanted.iter().any(|((w, _), q)| w == *v && q.role == Role::Tap);
        let all = self.attention.iter().filter(|a| !self.float[a.softmax]).map(|a| {
            let inside = a.scores.iter().chain(std::iter::once(&a.probabilities)).filter(with_codes);
            let internals = inside.map(|v| self.graph.value(*v).name.clone()).collect();
            Composite { kind: "attention".into(), node: self.graph.nodes()[a.softmax].id, internals }
        });
        all.filter(|c| !c.internals.is_empty()).collect()
    }

    fn default_dtype(&self, consumer: usize, role: Role) -> DType {
        match self.config.preset {
            _ if self.wide && (matches!(role, Role::Grid | Role::Tap) || self.heads.contains(&consumer)) => {
                DType::I16
            }
            Preset::Default | Preset::AllI8 => DType::I8,
            Preset::AllI16 => DType::I16,
            Preset::GemmI8 if matches!(self.rule_of(consumer), QuantRule::Gemm { .. }) => DType::I8,
            Preset::GemmI8 => DType::I16,
        }
    }

    /// Quantizes outputs of the graph where the preset or a rule says so.
    fn outputs(&mut self) {
        for v in &self.graph.outputs {
            let Some(p) = self.producers.get(v).copied() else { continue };
            let target = Target::Node(self.anchors.get(v).copied().unwrap_or(p));
            let asked = self.rules.activation(target).and_then(|r| r.activation).map(|c| c.0);
            let dtype = asked.or((self.config.preset == Preset::AllI8).then_some(DType::I8));
            let has = self.wanted.range((*v, DType::F32)..).next().is_some_and(|((w, _), _)| w == v);
            let island = self.float[p] && !self.in_group(p);
            if let Some(dtype) = dtype
                && !has
                && !island
                && self.graph.value(*v).ty.dtype == DType::F32
            {
                if self.is_codes(p) {
                    self.queue.push(p);
                    while let Some(i) = self.queue.pop() {
                        self.consume(i);
                    }
                } else {
                    self.wanted.insert((*v, dtype), Wanted::output(target));
                }
            }
        }
    }

    /// Types that rules ask of tensors without a quantizer.
    fn forced(&self) -> Vec<Forced> {
        let nodes = self.graph.nodes().iter().enumerate();
        let asked = nodes.filter_map(|(i, n)| {
            let asked = self.rules.activation(Target::Node(i))?.activation?.0;
            let v = n.outputs.first()?;
            let spoken =
                self.anchors.iter().any(|(out, a)| *a == i && self.wanted.contains_key(&(*out, asked)));
            if spoken || self.wanted.contains_key(&(*v, asked)) {
                return None;
            }
            let reason = if self.inner.contains(v) {
                "inside a fused group, which keeps the accumulator's precision; name the group's first node"
                    .into()
            } else if let Some(first) = self.anchors.get(v).filter(|first| **first != i) {
                format!(
                    "the last of a fused group, for which its first node speaks: name {}",
                    self.graph.nodes()[*first].label()
                )
            } else if self.is_codes(i) {
                "codes pass through with the type of the tensor before it".to_owned()
            } else if self.float[i] {
                "runs in float".to_owned()
            } else {
                "nothing takes its output as codes".to_owned()
            };
            Some(Forced { node: n.label(), asked, reason })
        });
        asked.collect()
    }
}
