//! Replaces operators by their integer forms where these compute something else than rounding once what the operator gives:
//! functions by tables, softmax, normalisations and division by what targets do. Each replacement lies between `Quantize` and
//! `Dequantize` and can be made alone; all other nodes, and all quantizers, stay as they are.

use super::PassError;
use super::convert::border::with_taps;
use super::convert::clamped;
use super::convert::group::ends;
use crate::graph::{CodeOutput, CodeParams, Graph, Node, NodeId, OpError, QuantRule, Stage, ValueId};
use crate::ops::{TableError, dequantize, has_table, integer, quantize, table, table_error};
use crate::quant::{Profile, QParams};
use crate::tensor::{DType, TensorType};
use globset::GlobMatcher;
use std::collections::HashMap;
use std::sync::Arc;

/// A node that was replaced.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// The node in its place.
    pub by: NodeId,
    /// What that is: `table` or `integer`.
    pub rule: &'static str,
    /// How far a table is from the function.
    pub error: Option<TableError>,
}

/// A node that could not be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// Why.
    pub reason: String,
}

/// A graph with replacements.
#[derive(Debug)]
pub struct Exported {
    /// In stage `export`.
    pub graph: Graph,
    /// What was replaced, in order.
    pub replaced: Vec<Replaced>,
    /// What would have been.
    pub kept: Vec<Kept>,
}

fn types(graph: &Graph, node: &Node) -> Vec<TensorType> {
    node.inputs.iter().map(|v| graph.value(*v).ty.clone()).collect()
}

/// Whether the integer form of a node is more than its sums, rounded once.
fn is_replaceable(graph: &Graph, node: &Node) -> bool {
    let inside = || node.op.internals(&types(graph, node)).is_ok_and(|i| !i.taps.is_empty());
    matches!(node.op.quant_rule(), QuantRule::Compute) && (node.op.exact(0.0).is_some() || inside())
}

/// Replaces what can be, or what a pattern on names of nodes finds.
///
/// # Errors
/// A graph of another stage, quantizers without parameters, a pattern that finds nothing that can be replaced.
pub fn export(graph: &Graph, only: Option<&GlobMatcher>) -> Result<Exported, PassError> {
    if graph.stage != Stage::FakeQuant {
        return Err(PassError::Stage { got: graph.stage.name(), wanted: Stage::FakeQuant.name() });
    }
    let quantizers = graph.nodes().iter().filter_map(|n| Some((n, n.quantizer()?)));
    let unfit = quantizers.filter(|(_, q)| q.active().is_none() && q.spec.owner.is_none());
    let unfit: Vec<String> = unfit.map(|(n, _)| n.name.clone()).collect();
    if !unfit.is_empty() {
        return Err(PassError::Unfit { quantizers: unfit });
    }
    let needed = graph.needed_nodes(graph.outputs.iter().copied());
    let nodes =
        graph.nodes().iter().enumerate().filter(|(i, n)| needed.contains(i) && is_replaceable(graph, n));
    let all: Vec<&Node> = nodes.map(|(_, n)| n).collect();
    let asked = |n: &&&Node| only.is_none_or(|glob| glob.is_match(&n.name));
    let wanted: Vec<NodeId> = all.iter().filter(asked).map(|n| n.id).collect();
    if let (Some(glob), true) = (only, wanted.is_empty()) {
        let names: Vec<&str> = all.iter().map(|n| n.name.as_str()).take(20).collect();
        let there = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let message =
            format!("--only {} finds nothing that can be replaced; such operators are {there}", glob.glob());
        return Err(PassError::Export { message });
    }
    let mut work = Work {
        profile: graph.target.as_ref().map_or_else(Profile::default, |t| t.profile.clone()),
        internals: internals(graph)?,
        graph: graph.clone(),
    };
    let (mut replaced, mut kept) = (Vec::new(), Vec::new());
    for id in wanted {
        let node = graph.node(id).expect("it is there");
        let (name, op) = (node.name.clone(), node.op.def().name);
        match work.replace(node)? {
            Ok(done) => replaced.push(done),
            Err(reason) => kept.push(Kept { node: name, op, reason }),
        }
    }
    if let (Some(glob), true, Some(Kept { node, op, reason })) = (only, replaced.is_empty(), kept.first()) {
        let more = if kept.len() > 1 { format!(" and {} more", kept.len() - 1) } else { String::new() };
        let message = format!("--only {}: nothing was replaced: {node} ({op}){more}: {reason}", glob.glob());
        return Err(PassError::Export { message });
    }
    let mut graph = work.graph.tidied()?;
    graph.stage = Stage::Export;
    graph.verify()?;
    Ok(Exported { graph, replaced, kept })
}

/// Parameters of what lies inside composite operators, in order; `None` where one was not observed.
fn internals(graph: &Graph) -> Result<HashMap<NodeId, Option<Vec<QParams>>>, PassError> {
    let mut out: HashMap<NodeId, Option<Vec<QParams>>> = HashMap::new();
    for node in with_taps(graph)?.nodes() {
        let Some((q, owner)) = node.quantizer().and_then(|q| Some((q, q.spec.owner?))) else { continue };
        let all = out.entry(NodeId(owner)).or_insert_with(|| Some(Vec::new()));
        match (&q.params, &mut *all) {
            (Some(p), Some(list)) => list.push(p.clone()),
            _ => *all = None,
        }
    }
    Ok(out)
}

struct Work {
    graph: Graph,
    profile: Profile,
    internals: HashMap<NodeId, Option<Vec<QParams>>>,
}

impl Work {
    /// The parameters of what a value holds, where a quantizer gives it, or what passes codes through behind one.
    fn params(&self, mut v: ValueId) -> Option<QParams> {
        loop {
            let node = self.graph.nodes().iter().find(|n| n.outputs.contains(&v))?;
            match node.op.quant_rule() {
                QuantRule::Quantizer(q) => return q.active().filter(|p| p.scales().len() == 1).cloned(),
                QuantRule::Codes => v = *node.inputs.first()?,
                _ => return None,
            }
        }
    }

    /// Replaces a node, or says why not.
    fn replace(&mut self, node: &Node) -> Result<Result<Replaced, String>, PassError> {
        let wrong = |error: OpError| PassError::Op { node: node.label(), error };
        // What lies inside composite operators takes their tensors, too.
        let needed = self.graph.needed_nodes(self.graph.outputs.iter().copied());
        let mut users = self.graph.users();
        users.values_mut().for_each(|all| all.retain(|i| needed.contains(i)));
        let ends = ends(&self.graph, &users, node.outputs[0]);
        let Some(end) = ends.first() else { return Ok(Err("no quantizer follows it".to_owned())) };
        if !ends.iter().all(|e| e.params.same_codes(&end.params)) {
            return Ok(Err("quantizers with several scales follow it".to_owned()));
        }
        let mut inputs = Vec::new();
        // As it is now: a replacement before it stands where its inputs came from.
        let now = self.graph.node(node.id).expect("it is there").clone();
        for v in &now.inputs {
            let f32 = self.graph.value(*v).ty.dtype == DType::F32;
            match self.params(*v).filter(|_| f32) {
                None if f32 => return Ok(Err("an input has no quantizer of one scale".to_owned())),
                params => inputs.push(params),
            }
        }
        let internals = match self.internals.get(&node.id) {
            None => Vec::new(),
            Some(Some(all)) => all.clone(),
            Some(None) => return Ok(Err("what it computes inside was not observed".to_owned())),
        };
        let output = match end.clamp {
            Some((low, high)) => clamped(&end.params, low, high),
            None => CodeOutput::codes(end.params.clone()),
        };
        let arithmetic = self.profile.arithmetic(node.op.def().name);
        let params = CodeParams { inputs, output, internals, addend: None, bound: 0, arithmetic };
        let first = params.inputs.first().and_then(Option::as_ref).map(QParams::dtype);
        let as_table = !node.op.has_integer_form() && first.is_some_and(|d| has_table(node.op.as_ref(), d));
        let error = as_table.then(|| table_error(node.op.as_ref(), &params)).transpose().map_err(wrong)?;
        if !as_table && !node.op.has_integer_form() {
            return Ok(Err(format!("{} has no integer form here", node.op.def().name)));
        }
        let mut at = self.graph.nodes().iter().position(|n| n.id == node.id).expect("it is there");
        let mut codes = Vec::new();
        for (v, p) in now.inputs.iter().zip(&params.inputs) {
            codes.push(match p {
                None => *v,
                Some(p) => {
                    let name = self.graph.value(*v).name.clone();
                    let (name, out) = (format!("{name}/quantize"), format!("{name}/codes"));
                    let made = self.insert(at, &name, quantize(p.clone()), &[*v], &out).map_err(wrong)?;
                    at += 1;
                    made
                }
            });
        }
        let op = if as_table {
            let (op, entries) = table(node.op.as_ref(), &params).map_err(wrong)?.expect("it has one");
            codes.push(self.graph.new_constant(&format!("{}/table", node.name), entries));
            op
        } else {
            integer(Arc::clone(&node.op), params)
        };
        // What takes its place has its name.
        let tensor = self.graph.value(end.tensor).name.clone();
        let spare = self.graph.fresh_value(&format!("{tensor}/before"));
        self.graph.rename_value(end.tensor, spare);
        let out = format!("{tensor}/codes");
        let made = self.insert(at, &format!("{}/replaced", node.name), op, &codes, &out).map_err(wrong)?;
        let by = self.graph.nodes()[at].id;
        let number = dequantize(end.params.clone());
        let name = format!("{tensor}/dequantize");
        let number = self.insert(at + 1, &name, number, &[made], &tensor).map_err(wrong)?;
        for i in 0..self.graph.nodes().len() {
            self.graph.replace_input(i, end.tensor, number);
        }
        let rule = if as_table { "table" } else { "integer" };
        Ok(Ok(Replaced { node: node.name.clone(), op: node.op.def().name, by, rule, error }))
    }

    fn insert(
        &mut self,
        at: usize,
        name: &str,
        op: Arc<dyn crate::graph::Op>,
        inputs: &[ValueId],
        output: &str,
    ) -> Result<ValueId, OpError> {
        let (name, output) = (self.graph.fresh_node(name), self.graph.fresh_value(output));
        Ok(self.graph.insert_node(at, &name, op, inputs, &[output])?[0])
    }
}
