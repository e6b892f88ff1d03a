//! Who produces which name, what is needed for the wanted outputs, and in which order.

use super::problem::{ProblemKind, TensorProblem};
use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

/// What produces a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Producer {
    Node(usize),
    Initializer(usize),
    Sparse,
    Input(usize),
}

/// The names of one graph.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub graph: &'a GraphProto,
    producers: HashMap<&'a str, Producer>,
    duplicates: HashSet<&'a str>,
}

/// What the wanted names need.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// Nodes in an order in which producers come first.
    pub nodes: Vec<usize>,
    /// Indices of initializers.
    pub initializers: BTreeSet<usize>,
    /// Indices of inputs.
    pub inputs: BTreeSet<usize>,
    /// Every name that something needed uses.
    pub used: HashSet<String>,
    /// Names at which the walk was told to stop.
    pub stopped_at: HashSet<String>,
    /// Place and problem.
    pub problems: Vec<(String, ProblemKind)>,
}

/// Name and operator for messages.
pub(super) fn label(node: &NodeProto) -> String {
    let name = if node.name().is_empty() {
        node.output.iter().map(String::as_str).find(|o| !o.is_empty()).unwrap_or("?")
    } else {
        node.name()
    };
    format!("{name} ({})", operator(node))
}

/// `Type`, or `domain:Type` outside the default domain.
pub(super) fn operator(node: &NodeProto) -> String {
    match node.domain() {
        "" | "ai.onnx" => node.op_type().to_owned(),
        domain => format!("{domain}:{}", node.op_type()),
    }
}

fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a: &AttributeProto| a.g.iter().chain(&a.graphs))
}

/// Names that a node takes, those that its subgraphs take from outside included.
fn uses<'a>(node: &'a NodeProto, out: &mut Vec<&'a str>) {
    out.extend(node.input.iter().map(String::as_str).filter(|n| !n.is_empty()));
    for g in subgraphs(node) {
        let mut inner = Vec::new();
        g.node.iter().for_each(|n| uses(n, &mut inner));
        inner.extend(g.output.iter().map(|o| o.name()));
        let own: HashSet<&str> = g
            .node
            .iter()
            .flat_map(|n| n.output.iter().map(String::as_str))
            .chain(g.initializer.iter().map(TensorProto::name))
            .chain(g.input.iter().map(|i| i.name()))
            .collect();
        out.extend(inner.into_iter().filter(|n| !own.contains(n)));
    }
}

impl<'a> Index<'a> {
    pub(super) fn new(graph: &'a GraphProto) -> Index<'a> {
        let mut index = Index { graph, producers: HashMap::new(), duplicates: HashSet::new() };
        for (i, t) in graph.initializer.iter().enumerate() {
            index.put(t.name(), Producer::Initializer(i));
        }
        for t in &graph.sparse_initializer {
            index.put(t.values.as_ref().map_or("", |v| v.name()), Producer::Sparse);
        }
        for (i, v) in graph.input.iter().enumerate() {
            // Before IR version 4 initializers were listed as inputs, too.
            if matches!(index.producers.get(v.name()), Some(Producer::Initializer(_) | Producer::Sparse)) {
                continue;
            }
            index.put(v.name(), Producer::Input(i));
        }
        for (i, n) in graph.node.iter().enumerate() {
            for o in n.output.iter().filter(|o| !o.is_empty()) {
                index.put(o, Producer::Node(i));
            }
        }
        index
    }

    fn put(&mut self, name: &'a str, p: Producer) {
        if self.producers.insert(name, p).is_some() {
            self.duplicates.insert(name);
        }
    }

    pub(super) fn producer(&self, name: &str) -> Option<Producer> {
        self.producers.get(name).copied()
    }

    /// Every name.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.producers.keys().copied()
    }

    /// Walks back from the `wanted` names to inputs, initializers, and the names in `stop`. Names of an outer graph, by `outside`, are not problems.
    pub(super) fn needed(
        &self,
        wanted: &[&'a str],
        stop: &HashSet<&str>,
        outside: &dyn Fn(&str) -> bool,
    ) -> Needed {
        let mut out = Needed::default();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut nodes: BTreeSet<usize> = BTreeSet::new();
        let mut stack: Vec<(&str, Option<usize>)> = wanted.iter().map(|w| (*w, None)).collect();
        while let Some((name, user)) = stack.pop() {
            if !seen.insert(name) {
                continue;
            }
            if stop.contains(name) {
                out.stopped_at.insert(name.to_owned());
                continue;
            }
            let place = || user.map_or_else(|| "model outputs".to_owned(), |i| label(&self.graph.node[i]));
            if self.duplicates.contains(name) {
                out.problems.push((place(), ProblemKind::Duplicate(name.to_owned())));
            }
            match self.producer(name) {
                Some(Producer::Initializer(i)) => {
                    out.initializers.insert(i);
                }
                Some(Producer::Input(i)) => {
                    out.inputs.insert(i);
                }
                Some(Producer::Sparse) => {
                    let problem = TensorProblem::Form { tensor: name.to_owned(), form: "sparse" };
                    out.problems.push(("model".to_owned(), problem.into()));
                }
                Some(Producer::Node(i)) => {
                    if nodes.insert(i) {
                        let mut used = Vec::new();
                        uses(&self.graph.node[i], &mut used);
                        stack.extend(used.into_iter().map(|n| (n, Some(i))));
                    }
                }
                None if outside(name) => {}
                None => out.problems.push((place(), ProblemKind::NoProducer(name.to_owned()))),
            }
        }
        self.sort(&nodes, stop, &mut out);
        out.used = seen.into_iter().map(str::to_owned).collect();
        out
    }

    /// Orders the nodes, in file order where that is free. What is left over needs itself.
    fn sort(&self, nodes: &BTreeSet<usize>, stop: &HashSet<&str>, out: &mut Needed) {
        let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut waits: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        for &i in nodes {
            let mut used = Vec::new();
            uses(&self.graph.node[i], &mut used);
            let before: BTreeSet<usize> = used
                .into_iter()
                .filter(|n| !stop.contains(n))
                .filter_map(|n| match self.producer(n) {
                    Some(Producer::Node(p)) if nodes.contains(&p) => Some(p),
                    _ => None,
                })
                .collect();
            for p in &before {
                users.entry(*p).or_default().push(i);
            }
            waits.insert(i, before);
        }
        let mut ready: BinaryHeap<Reverse<usize>> =
            waits.iter().filter(|(_, w)| w.is_empty()).map(|(i, _)| Reverse(*i)).collect();
        while let Some(Reverse(i)) = ready.pop() {
            out.nodes.push(i);
            waits.remove(&i);
            for user in users.remove(&i).unwrap_or_default() {
                if let Some(w) = waits.get_mut(&user)
                    && w.remove(&i)
                    && w.is_empty()
                {
                    ready.push(Reverse(user));
                }
            }
        }
        if let Some(first) = waits.keys().min() {
            out.problems.push(("model".to_owned(), ProblemKind::Cycle(self.cycle(*first, &waits))));
        }
    }

    /// One cycle among nodes that wait for one another.
    fn cycle(&self, from: usize, waits: &HashMap<usize, BTreeSet<usize>>) -> String {
        let mut path = vec![from];
        loop {
            // Every node left over waits for one that is left over.
            let last = path[path.len() - 1];
            let Some(next) = waits.get(&last).and_then(|w| w.iter().find(|p| waits.contains_key(p))) else {
                break;
            };
            if let Some(start) = path.iter().position(|i| i == next) {
                path.drain(..start);
                break;
            }
            path.push(*next);
        }
        path.reverse();
        path.push(path[0]);
        let names: Vec<String> = path.iter().map(|i| label(&self.graph.node[*i])).collect();
        names.join(" -> ")
    }
}
