//! One walk over the needed nodes: what is known is folded, the rest becomes operators, problems are collected.

use super::attributes;
use super::constant::{Constant, NoTensor};
use super::fold::{self, Known};
use super::index::{Index, Needed, label, operator};
use super::problem::{Problem, ProblemKind};
use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, GraphProto, NodeProto};
use super::tensors::{self, Folder};
use crate::error::near;
use crate::graph::attrs::Input;
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch, Source};
use crate::ops;
use crate::tensor::{MAX_RANK, Tensor, TensorType, element_count};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Elements up to which a folded tensor may be larger than what it is computed from.
const FOLDED_GROWTH: usize = 1 << 20;
/// Elements of all folded tensors together.
const FOLDED_TOTAL: usize = 1 << 27;

/// What is known of a name.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing, because of a problem already reported.
    Broken,
    /// Its type, and perhaps its value.
    Is(Known),
}

/// A node of the graph to be.
#[derive(Debug)]
pub(super) struct Built {
    pub name: String,
    pub source: String,
    pub op: Arc<dyn Op>,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Importer<'a> {
    opset: i64,
    folder: &'a Folder,
    /// Domain and type of the model's own functions.
    functions: &'a HashSet<String>,
    /// Names that are inputs because of a cut.
    cut: &'a HashSet<&'a str>,
    /// Names of the outermost graph.
    outer: HashSet<String>,
    env: HashMap<String, State>,
    /// Names of inlined subgraphs, and what they are called outside.
    scope: HashMap<String, String>,
    /// Names that stand for another runtime tensor.
    alias: HashMap<String, String>,
    pub nodes: Vec<Built>,
    pub problems: Vec<Problem>,
    node_names: HashSet<String>,
    /// Constants that a node takes, as tensors.
    tensors: HashMap<String, Tensor>,
    budget: usize,
    scratch: Scratch,
}

/// A node while it is read.
struct Site<'n> {
    node: &'n NodeProto,
    operator: String,
    inputs: Vec<Option<(String, Known)>>,
    outputs: Vec<String>,
}

impl<'a> Importer<'a> {
    pub(super) fn new(
        opset: i64,
        folder: &'a Folder,
        functions: &'a HashSet<String>,
        cut: &'a HashSet<&'a str>,
        outer: HashSet<String>,
    ) -> Self {
        Importer {
            opset,
            folder,
            functions,
            cut,
            outer,
            env: HashMap::new(),
            scope: HashMap::new(),
            alias: HashMap::new(),
            nodes: Vec::new(),
            problems: Vec::new(),
            node_names: HashSet::new(),
            tensors: HashMap::new(),
            budget: FOLDED_TOTAL,
            scratch: Scratch::new(),
        }
    }

    pub(super) fn problem(&mut self, place: impl Into<String>, kind: impl Into<ProblemKind>) {
        self.problems.push(Problem { place: place.into(), kind: kind.into() });
    }

    /// The name under which `name` is known.
    pub(super) fn resolve(&self, name: &str) -> String {
        let outside = self.scope.get(name).map_or(name, String::as_str);
        self.alias.get(outside).map_or(outside, String::as_str).to_owned()
    }

    pub(super) fn state(&self, name: &str) -> Option<&State> {
        self.env.get(&self.resolve(name))
    }

    pub(super) fn put(&mut self, name: &str, state: State) {
        if !name.is_empty() && !self.cut.contains(name) {
            self.env.insert(name.to_owned(), state);
        }
    }

    pub(super) fn put_input(&mut self, name: &str, ty: Option<TensorType>) {
        let state = ty.map_or(State::Broken, |ty| State::Is(Known { ty, constant: None }));
        self.env.insert(name.to_owned(), state);
    }

    /// Reads the initializers and nodes that are needed.
    pub(super) fn walk(&mut self, graph: &GraphProto, needed: Needed) {
        for (place, kind) in needed.problems {
            self.problem(place, kind);
        }
        for i in needed.initializers {
            let t = &graph.initializer[i];
            let state = match tensors::read(t, self.folder) {
                Ok(c) => State::Is(Known { ty: c.ty(), constant: Some(c) }),
                Err(p) => {
                    self.problem("model", p);
                    State::Broken
                }
            };
            let name = self.resolve(t.name());
            self.put(&name, state);
        }
        for i in needed.nodes {
            self.node(&graph.node[i], &needed.used);
        }
    }

    fn broken(&mut self, outputs: &[String]) {
        for o in outputs {
            self.put(o, State::Broken);
        }
    }

    fn node(&mut self, node: &NodeProto, used: &HashSet<String>) {
        let mut named = node.output.as_slice();
        // An optional output that nobody uses, such as Dropout's mask, is as good as not named. The number of Split's
        // outputs says how it splits.
        while let [first @ .., last] = named
            && !first.is_empty()
            && !used.contains(last)
            && operator(node) != "Split"
        {
            named = first;
        }
        let outputs: Vec<String> = named.iter().map(|o| self.resolve(o)).collect();
        if let Err(kinds) = self.try_node(node, &outputs) {
            for kind in kinds {
                self.problem(label(node), kind);
            }
            self.broken(&outputs);
        }
    }

    fn try_node(&mut self, node: &NodeProto, outputs: &[String]) -> Result<(), Vec<ProblemKind>> {
        let operator = operator(node);
        if self.functions.contains(&operator) {
            return Err(vec![ProblemKind::Subgraph("is a function of the model; supported: operators")]);
        }
        if operator == "Constant" {
            let c = attributes::constant(node, self.folder).map_err(|p| vec![p])?;
            if let [o] = outputs {
                self.put(o, State::Is(Known { ty: c.ty(), constant: Some(c) }));
            }
            return Ok(());
        }
        if operator == "If" {
            return self.inline_if(node, outputs).map_err(|p| vec![p]);
        }
        if node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
            return Err(vec![ProblemKind::Subgraph(
                "has a subgraph; supported: `If` with a known condition",
            )]);
        }
        let def = ops::by_onnx(&operator);
        let Some(inputs) = self.inputs(node) else {
            // What feeds it is reported already; whether it is supported is still worth saying.
            self.broken(outputs);
            return if def.is_none() && !fold::knows(&operator) {
                Err(vec![self.unsupported(&operator)])
            } else {
                Ok(())
            };
        };
        let site = Site { node, operator, inputs, outputs: outputs.to_vec() };
        let attrs = attributes::read(node, self.folder)?;
        if self.folded(&site, &attrs)? {
            return Ok(());
        }
        match def {
            Some(def) => self.operator(&site, def, attrs),
            None => Err(vec![self.not_folded(&site)]),
        }
    }

    /// What is known of the inputs; `None` when one is broken.
    fn inputs(&self, node: &NodeProto) -> Option<Vec<Option<(String, Known)>>> {
        let one = |name: &String| {
            if name.is_empty() {
                return Some(None);
            }
            let name = self.resolve(name);
            match self.env.get(&name) {
                Some(State::Is(k)) => Some(Some((name, k.clone()))),
                Some(State::Broken) | None => None,
            }
        };
        node.input.iter().map(one).collect()
    }

    fn unsupported(&self, operator: &str) -> ProblemKind {
        let known = ops::OPS.iter().flat_map(|d| d.onnx.iter().copied());
        let near = near(operator, known);
        ProblemKind::Operator { operator: operator.to_owned(), opset: self.opset, near }
    }

    fn not_folded(&self, site: &Site) -> ProblemKind {
        let runtime = site.inputs.iter().flatten().find(|(_, k)| k.constant.is_none());
        match runtime {
            Some((input, _)) if fold::knows(&site.operator) => {
                ProblemKind::OnlyFolded { operator: site.operator.clone(), input: input.clone() }
            }
            _ => self.unsupported(&site.operator),
        }
    }

    /// Most elements that a tensor computed here from these inputs may have.
    fn limit(&self, inputs: &[Option<(String, Known)>]) -> usize {
        let constants = inputs.iter().flatten().filter_map(|(_, k)| k.constant.as_ref());
        let taken: usize = constants.map(Constant::len).sum();
        taken.max(FOLDED_GROWTH).min(self.budget)
    }

    /// Shape arithmetic.
    fn folded(&mut self, site: &Site, attrs: &Attrs) -> Result<bool, Vec<ProblemKind>> {
        if !fold::knows(&site.operator) {
            return Ok(false);
        }
        let source = Source::Onnx(self.opset);
        let outputs = site.outputs.len();
        let mut r = Reader::new(source, &site.operator, attrs.clone(), Vec::new(), outputs);
        let limit = self.limit(&site.inputs);
        let inputs: Vec<Option<Known>> =
            site.inputs.iter().map(|i| i.as_ref().map(|(_, k)| k.clone())).collect();
        let mut call = fold::Call { r: &mut r, inputs: &inputs, limit };
        let Some(values) = fold::fold(&site.operator, &mut call) else { return Ok(false) };
        if values.len() < outputs {
            return Ok(false);
        }
        known_attributes(&r, &site.operator)?;
        for (name, c) in site.outputs.iter().zip(values) {
            self.budget = self.budget.saturating_sub(c.len());
            self.put(name, State::Is(Known { ty: c.ty(), constant: Some(c) }));
        }
        Ok(true)
    }

    fn operator(&mut self, site: &Site, def: &'static OpDef, attrs: Attrs) -> Result<(), Vec<ProblemKind>> {
        let one = |p: ProblemKind| vec![p];
        let seen = |i: &Option<(String, Known)>| {
            let (_, k) = i.as_ref()?;
            Some(Input { ty: k.ty.clone(), known: k.constant.as_ref().map(Constant::known) })
        };
        let inputs: Vec<Option<Input>> = site.inputs.iter().map(seen).collect();
        let named = site.outputs.iter().rposition(|o| !o.is_empty()).map_or(0, |i| i + 1);
        let source = Source::Onnx(self.opset);
        let mut r = Reader::new(source, &site.operator, attrs, inputs, named);
        let op = (def.read)(&mut r).map_err(|e| one(e.into()))?;
        known_attributes(&r, &site.operator)?;

        let mut taken: Vec<(&str, &Known)> = Vec::new();
        let mut hole = None;
        for (i, input) in site.inputs.iter().enumerate().filter(|(i, _)| !r.is_consumed(*i)) {
            match (input, hole) {
                (None, _) => hole = hole.or(Some(i)),
                (Some(_), Some(at)) => return Err(one(ProblemKind::Hole(at))),
                (Some((name, k)), None) => {
                    if let Some(c) = &k.constant {
                        self.runtime_tensor(name, c, i).map_err(one)?;
                    }
                    taken.push((name, k));
                }
            }
        }
        let types: Vec<TensorType> = taken.iter().map(|(_, k)| k.ty.clone()).collect();
        let out = op.infer(&types).map_err(|e| one(e.into()))?;
        if named > out.len() {
            return Err(one(ProblemKind::Outputs { expected: out.len(), got: named }));
        }
        if let Some(t) = out.iter().find(|t| !fits(t)) {
            return Err(one(OpError::TooLarge { shape: t.to_string() }.into()));
        }
        let names: Vec<String> = taken.iter().map(|(n, _)| (*n).to_owned()).collect();
        if taken.iter().all(|(_, k)| k.constant.is_some())
            && let Some(values) = self.evaluated(op.as_ref(), &names, &out, &site.inputs).map_err(one)?
        {
            for (name, c) in site.outputs.iter().zip(values) {
                self.put(name, State::Is(Known { ty: c.ty(), constant: Some(c) }));
            }
            return Ok(());
        }
        self.build(site, op, names, &out[..named]);
        Ok(())
    }

    /// A constant that a node takes at run time: it must be a tensor.
    fn runtime_tensor(&mut self, name: &str, c: &Constant, input: usize) -> Result<(), ProblemKind> {
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

    /// The outputs of an operator whose inputs are all constant, where they are not too large.
    fn evaluated(
        &mut self,
        op: &dyn Op,
        inputs: &[String],
        out: &[TensorType],
        given: &[Option<(String, Known)>],
    ) -> Result<Option<Vec<Constant>>, ProblemKind> {
        let sizes: Option<Vec<usize>> = out.iter().map(|t| element_count(&t.dims()?)).collect();
        let total: Option<usize> = sizes.map(|s| s.iter().sum());
        let Some(total) = total.filter(|n| *n <= self.limit(given)) else { return Ok(None) };
        self.budget -= total;
        let tensors: Vec<Tensor> = inputs.iter().map(|n| self.tensors[n].clone()).collect();
        let values = op.eval(&self.scratch, &tensors)?;
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

    /// A tensor name that nothing has.
    fn fresh(&mut self, name: &str) -> String {
        let name =
            unique(name, |n| self.outer.contains(n) || self.env.contains_key(n) || self.cut.contains(n));
        self.outer.insert(name.clone());
        name
    }

    /// Puts the branch that the condition selects in place of the node.
    fn inline_if(&mut self, node: &NodeProto, outputs: &[String]) -> Result<(), ProblemKind> {
        let unknown = ProblemKind::Subgraph("is supported where its condition is known at import");
        let [condition] = node.input.as_slice() else { return Err(unknown) };
        let condition = match self.state(condition) {
            None | Some(State::Broken) => {
                self.broken(outputs);
                return Ok(());
            }
            Some(State::Is(k)) => k.constant.as_ref().and_then(Constant::ints).and_then(|v| v.concrete()),
        };
        let taken = match condition.as_deref() {
            Some([0]) => "else_branch",
            Some([_]) => "then_branch",
            _ => return Err(unknown),
        };
        let is_branch = |a: &&AttributeProto| {
            a.name() == taken && a.r#type.is_none_or(|t| t == AttributeType::Graph as i32)
        };
        let branch = node.attribute.iter().find(is_branch).and_then(|a| a.g.as_ref());
        let branch = branch.ok_or(ProblemKind::Subgraph("has no graph for the branch that is taken"))?;
        if branch.output.len() < outputs.len() {
            return Err(ProblemKind::Outputs { expected: branch.output.len(), got: outputs.len() });
        }
        let index = Index::new(branch);
        let wanted: Vec<&str> = branch.output.iter().map(|o| o.name()).collect();
        let needed = index.needed(&wanted, &HashSet::new(), &|n| self.state(n).is_some());
        let saved = self.scope.clone();
        self.enter(branch, outputs);
        self.walk(branch, needed);
        let inner: Vec<String> = wanted.iter().map(|w| self.resolve(w)).collect();
        self.scope = saved;
        for (outer, inner) in outputs.iter().zip(inner).filter(|(o, i)| o != &i) {
            let state = self.env.get(&inner).cloned().unwrap_or(State::Broken);
            if matches!(&state, State::Is(k) if k.constant.is_none()) {
                self.alias.insert(outer.clone(), inner);
            } else {
                self.put(outer, state);
            }
        }
        Ok(())
    }

    /// Names of a subgraph: its outputs are called as the node's, others get a name that is free.
    fn enter(&mut self, branch: &GraphProto, outputs: &[String]) {
        let mut named: HashMap<&str, &String> = HashMap::new();
        for (inner, outer) in branch.output.iter().zip(outputs).filter(|(_, o)| !o.is_empty()) {
            named.entry(inner.name()).or_insert(outer);
        }
        let own = branch.node.iter().flat_map(|n| &n.output).map(String::as_str);
        let own = own.chain(branch.initializer.iter().map(|t| t.name()));
        for name in own.filter(|n| !n.is_empty()) {
            let outside = match named.get(name) {
                Some(outer) => (*outer).clone(),
                None => self.fresh(name),
            };
            self.scope.insert(name.to_owned(), outside);
        }
    }
}

/// `name`, or `name#2` and so on where that is taken.
fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let base = if name.is_empty() { "unnamed" } else { name };
    if !taken(base) {
        return base.to_owned();
    }
    let mut i = 2u64;
    loop {
        let candidate = format!("{base}#{i}");
        if !taken(&candidate) {
            return candidate;
        }
        i += 1;
    }
}

/// Rank and elements, N counted as 1.
pub(super) fn fits(t: &TensorType) -> bool {
    let dims: Option<Vec<usize>> = t.shape.iter().map(|d| d.at(1)).collect();
    t.rank() <= MAX_RANK && dims.is_some_and(|d| element_count(&d).is_some())
}

fn known_attributes(r: &Reader, operator: &str) -> Result<(), Vec<ProblemKind>> {
    let unread = r.unread().into_iter().map(|(name, value)| ProblemKind::UnknownAttribute {
        name: name.to_owned(),
        value: value.to_string(),
        operator: operator.to_owned(),
    });
    let unread: Vec<ProblemKind> = unread.collect();
    if unread.is_empty() { Ok(()) } else { Err(unread) }
}
