//! One walk over the needed nodes: what is known is folded, the rest becomes operators, problems are collected.

use super::constant::Constant;
use super::fold::Known;
use super::index::{Index, Needed, label, operator};
use super::problem::{Problem, ProblemKind};
use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, GraphProto, NodeProto};
use super::tensors::{self, Folder};
use crate::graph::{Op, Scratch};
use crate::tensor::{MAX_RANK, Tensor, TensorType, element_count};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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
    pub(super) opset: i64,
    pub(super) folder: &'a Folder,
    /// Domain and type of the model's own functions.
    pub(super) functions: &'a HashSet<String>,
    /// Names that are inputs because of a cut.
    pub(super) cut: &'a HashSet<&'a str>,
    /// Names of the outermost graph.
    outer: HashSet<String>,
    pub(super) env: HashMap<String, State>,
    /// Names of inlined subgraphs, and what they are called outside.
    scope: HashMap<String, String>,
    /// Names that stand for another runtime tensor.
    alias: HashMap<String, String>,
    pub nodes: Vec<Built>,
    pub problems: Vec<Problem>,
    pub(super) node_names: HashSet<String>,
    /// Names whose value is known although a node produces it, because it stems from a quantizer.
    pub(super) quantized: HashSet<String>,
    /// Constants that a node takes, as tensors.
    pub(super) tensors: HashMap<String, Tensor>,
    pub(super) budget: usize,
    pub(super) scratch: Scratch,
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
            quantized: HashSet::new(),
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

    /// An input whose type cannot be had, and why.
    pub(super) fn refuse_input(&mut self, name: &str, kinds: Vec<ProblemKind>) {
        self.put_input(name, None);
        for kind in kinds {
            self.problem(format!("input {name:?}"), kind);
        }
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
            // Some have a type in spite of it.
            let untyped = |o: &&String| !matches!(self.env.get(*o), Some(State::Is(_)));
            let untyped: Vec<String> = outputs.iter().filter(untyped).cloned().collect();
            self.broken(&untyped);
        }
    }

    /// A tensor name that nothing has.
    pub(super) fn fresh(&mut self, name: &str) -> String {
        let name =
            unique(name, |n| self.outer.contains(n) || self.env.contains_key(n) || self.cut.contains(n));
        self.outer.insert(name.clone());
        name
    }

    /// Puts the branch that the condition selects in place of the node.
    pub(super) fn inline_if(&mut self, node: &NodeProto, outputs: &[String]) -> Result<(), ProblemKind> {
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
pub(super) fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
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
