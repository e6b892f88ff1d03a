//! Which rule of a configuration touches which node.

use super::PassError;
use super::config::{Kind, QuantConfig, RoleName, Rule};
use crate::graph::{Graph, QuantRule, ValueId};
use globset::GlobBuilder;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// What a rule touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A node and its output, by index.
    Node(usize),
    /// An input of the graph.
    Input(ValueId),
    /// A constant that is no weight.
    Constant(ValueId),
}

/// The rule that counts for each target, and what it is about there.
#[derive(Debug, Default)]
pub(super) struct Rules<'c> {
    first: HashMap<Target, (&'c Rule, Kind)>,
}

impl<'c> Rules<'c> {
    /// Matches all rules. `model` is what the graph was made from.
    pub(super) fn new(config: &'c QuantConfig, graph: &Graph, model: &Graph) -> Result<Rules<'c>, PassError> {
        let mut out = Rules::default();
        for (i, rule) in config.rule.iter().enumerate() {
            let found = targets(graph, rule, i + 1)?;
            // What was taken apart may have no node of its name left.
            if found.is_empty() && !rule.split {
                return Err(unmatched(graph, model, rule, i + 1)?);
            }
            for (target, kind) in found {
                out.first.entry(target).or_insert((rule, kind));
            }
        }
        Ok(out)
    }

    /// The rule for the weights of a node.
    pub(super) fn weight(&self, node: usize) -> Option<&'c Rule> {
        self.of(Target::Node(node), Kind::Activation)
    }

    /// The rule for what else a target has.
    pub(super) fn activation(&self, target: Target) -> Option<&'c Rule> {
        self.of(target, Kind::Weight)
    }

    fn of(&self, target: Target, other: Kind) -> Option<&'c Rule> {
        self.first.get(&target).filter(|(_, kind)| *kind != other).map(|(rule, _)| *rule)
    }
}

/// What there is to say of a rule that matches nothing.
pub(super) fn unmatched(
    graph: &Graph,
    model: &Graph,
    rule: &Rule,
    index: usize,
) -> Result<PassError, PassError> {
    let near = near(graph, model, rule);
    let fused = taken_in(graph, model, &targets(model, rule, index)?);
    Ok(PassError::Unmatched { index, rule: rule.selector(), fused, near })
}

pub(super) fn targets(graph: &Graph, rule: &Rule, index: usize) -> Result<Vec<(Target, Kind)>, PassError> {
    let bad = |message: String| PassError::Rule { index, message };
    if let Some(path) = &rule.sensitivity {
        return from_table(graph, rule, path).map_err(bad);
    }
    let found: Vec<Target> = if let Some(pattern) = &rule.name {
        let glob = GlobBuilder::new(pattern).build().map_err(|e| bad(e.to_string()))?.compile_matcher();
        let nodes = graph.nodes().iter().enumerate().filter(|(_, n)| glob.is_match(&n.name));
        let inputs = graph.inputs.iter().filter(|v| glob.is_match(&graph.value(**v).name));
        nodes.map(|(i, _)| Target::Node(i)).chain(inputs.map(|v| Target::Input(*v))).collect()
    } else if let Some(op) = &rule.op {
        let nodes = graph.nodes().iter().enumerate();
        nodes.filter(|(_, n)| n.op.def().name == op).map(|(i, _)| Target::Node(i)).collect()
    } else {
        rule.role.map(|role| of_role(graph, role)).unwrap_or_default()
    };
    Ok(found.into_iter().map(|t| (t, Kind::Both)).collect())
}

/// The nodes of a graph that compute what these nodes of the model did, found by the tensors that both have.
fn taken_in(graph: &Graph, model: &Graph, found: &[(Target, Kind)]) -> Vec<String> {
    let (producers, users) = (graph.producers(), model.users());
    let values = (0..).map(ValueId).zip(graph.values());
    let made: HashMap<&str, usize> =
        values.filter_map(|(id, v)| Some((v.name.as_str(), *producers.get(&id)?))).collect();
    let nodes = found.iter().filter_map(|(t, _)| if let Target::Node(i) = t { Some(*i) } else { None });
    let (mut open, mut seen) = (nodes.collect::<Vec<_>>(), HashSet::new());
    let mut out = BTreeSet::new();
    while let Some(i) = open.pop() {
        for v in &model.nodes()[i].outputs {
            match made.get(model.value(*v).name.as_str()) {
                Some(node) => drop(out.insert(*node)),
                None => open.extend(users.get(v).into_iter().flatten().filter(|i| seen.insert(**i))),
            }
        }
    }
    out.into_iter().map(|i| graph.nodes()[i].label()).collect()
}

fn near(graph: &Graph, model: &Graph, rule: &Rule) -> Vec<String> {
    let wanted = rule.name.as_deref().or(rule.op.as_deref()).unwrap_or_default();
    let mut names: BTreeSet<&str> = match (&rule.name, &rule.op) {
        (Some(_), _) => graph.nodes().iter().map(|n| n.name.as_str()).collect(),
        _ => graph.op_counts().into_keys().chain(model.op_counts().into_keys()).collect(),
    };
    names.remove(wanted);
    // Reports name tensors, rules nodes.
    let tensor = rule.name.as_deref().and_then(|name| graph.find_value(name));
    let node = tensor.and_then(|v| graph.producers().get(&v).copied());
    if let Some(node) = node {
        return vec![graph.nodes()[node].name.clone()];
    }
    let folded: Vec<String> =
        names.iter().filter(|n| n.eq_ignore_ascii_case(wanted)).map(|n| (*n).to_owned()).collect();
    if folded.is_empty() { crate::names::near(wanted, names.into_iter()) } else { folded }
}

/// The nodes behind which a value comes to be, back to the nearest products, and the inputs on the way.
fn back_to_gemm(graph: &Graph, from: ValueId) -> (Vec<usize>, Vec<ValueId>) {
    let producers = graph.producers();
    let (mut nodes, mut inputs, mut open) = (Vec::new(), Vec::new(), vec![from]);
    let mut seen = HashSet::new();
    while let Some(v) = open.pop() {
        if !seen.insert(v) || graph.value(v).constant.is_some() {
            continue;
        }
        let Some(i) = producers.get(&v) else {
            inputs.push(v);
            continue;
        };
        nodes.push(*i);
        let node = &graph.nodes()[*i];
        if !matches!(node.op.quant_rule(), QuantRule::Gemm { .. }) {
            open.extend(&node.inputs);
        }
    }
    (nodes, inputs)
}

fn of_role(graph: &Graph, role: RoleName) -> Vec<Target> {
    let producers = graph.producers();
    let behind = |op: &str, input: usize| -> Vec<(Vec<usize>, Vec<ValueId>)> {
        let nodes = graph.nodes().iter().filter(|n| n.op.def().name == op);
        nodes.filter_map(|n| n.inputs.get(input)).map(|v| back_to_gemm(graph, *v)).collect()
    };
    // Products count where one is on the way; what lies between it and the operator goes with it.
    let gemms = |op: &str| -> Vec<Target> {
        let is_gemm = |i: &usize| matches!(graph.nodes()[*i].op.quant_rule(), QuantRule::Gemm { .. });
        let found = behind(op, 0).into_iter().filter(|(nodes, _)| nodes.iter().any(is_gemm));
        found.flat_map(|(nodes, _)| nodes).map(Target::Node).collect()
    };
    match role {
        RoleName::Output => {
            graph.outputs.iter().filter_map(|v| producers.get(v)).map(|i| Target::Node(*i)).collect()
        }
        RoleName::Constant => {
            let values = (0..).map(ValueId).zip(graph.values());
            values.filter(|(_, v)| v.constant.is_some()).map(|(id, _)| Target::Constant(id)).collect()
        }
        RoleName::Grid => {
            let found = behind("GridSample", 1);
            let nodes = found.iter().flat_map(|(n, _)| n).map(|i| Target::Node(*i));
            nodes.chain(found.iter().flat_map(|(_, v)| v).map(|v| Target::Input(*v))).collect()
        }
        RoleName::GemmBeforeSoftmax => [gemms("Softmax"), gemms("LogSoftmax")].concat(),
        RoleName::GemmBeforeLayernorm => gemms("LayerNormalization"),
    }
}

/// A row of a sensitivity table.
#[derive(Debug, Deserialize)]
struct Row {
    op_name: String,
    sensitive_type: String,
    quant_dtype: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Table {
    rows: Vec<Row>,
}

/// The first rows of a table, worst first: k = ceil(rows * ratio) of all, of which those of the kind and of another
/// type than the rule sets count.
fn from_table(graph: &Graph, rule: &Rule, path: &Path) -> Result<Vec<(Target, Kind)>, String> {
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    let table: Table = serde_json::from_str(&text).map_err(|e| fail(&e))?;
    let rows = table.rows.len();
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let k = rule.top_k.unwrap_or_else(|| (rows as f64 * rule.ratio.unwrap_or(0.0)).ceil() as usize).min(rows);
    let mut out = Vec::new();
    for row in &table.rows[..k] {
        let kind = match row.sensitive_type.as_str() {
            "activation" => Kind::Activation,
            "weight" => Kind::Weight,
            other => return Err(fail(&format!("sensitive_type {other:?}; supported: activation, weight"))),
        };
        let wanted = if kind == Kind::Weight { rule.weight } else { rule.activation };
        let already = wanted.is_some_and(|w| row.quant_dtype.as_deref() == Some(w.0.name()));
        if already || (rule.kind != Kind::Both && rule.kind != kind) {
            continue;
        }
        let node = graph.nodes().iter().position(|n| n.name == row.op_name);
        let node = node.ok_or_else(|| fail(&format!("no node is called {:?}", row.op_name)))?;
        out.push((Target::Node(node), kind));
    }
    Ok(out)
}
