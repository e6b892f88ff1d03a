//! The check report: what of a model is worth a look before and after calibration.

mod findings;
mod sections;

use super::statistics::Statistics;
use crate::graph::{Graph, Node, QuantRule, ValueId};
use crate::passes::fuse::Unfused;
use crate::passes::prepare::Forced;
use crate::quant::{Quantizer, Range};
use std::collections::HashMap;
use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Results will be wrong, or cannot be had.
    Error,
    /// Accuracy may suffer.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// Its name in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that found it.
    pub rule: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The node.
    pub node: String,
    /// What is found, and what to do.
    pub message: String,
}

/// A section of the report: a table.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// Rows.
    pub rows: Vec<Vec<Cell>>,
}

/// What a table holds at a place.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A name, a type, a reason.
    Text(String),
    /// How many, or which.
    Count(usize),
    /// A scale.
    Number(f32),
    /// Nothing that there would be a name or number for.
    Empty,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Cell {
        Cell::Count(count)
    }
}

impl From<f32> for Cell {
    fn from(number: f32) -> Cell {
        Cell::Number(number)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(maybe: Option<T>) -> Cell {
        maybe.map_or(Cell::Empty, Into::into)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Text(text) => f.write_str(text),
            Cell::Count(n) => write!(f, "{n}"),
            Cell::Number(x) => write!(f, "{x:?}"),
            Cell::Empty => f.write_str("-"),
        }
    }
}

/// The report.
#[derive(Clone, Debug)]
pub struct Report {
    /// All sections but the graph itself.
    pub sections: Vec<Section>,
    /// What is found, the gravest first.
    pub findings: Vec<Finding>,
}

/// What is known beside the graph.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Groups that could be and are not.
    pub unfused: &'a [Unfused],
    /// What rules asked for in vain.
    pub forced: &'a [Forced],
    /// Summaries of the tensors.
    pub statistics: Option<&'a Statistics>,
    /// Whether the graph is one that others would evaluate, so that all states must fit.
    pub finished: bool,
}

/// Checks a graph.
///
/// # Panics
/// A graph that does not verify.
pub fn check(graph: &Graph, known: Known) -> Report {
    let layers = graph.clone().without_internals().expect("a verified graph");
    let c = Checker::new(&layers, known);
    let mut outputs = c.outputs();
    outputs.rows.extend(sections::internals(graph));
    let sections =
        vec![c.unfused(), c.shared(), c.dtypes(true), c.dtypes(false), outputs, c.weights(), c.unusual()];
    let mut findings = Vec::new();
    c.double_quantization(&mut findings);
    c.float_inputs(&mut findings);
    c.low_precision_outputs(&mut findings);
    c.shared_scales(&mut findings);
    c.inputs_of_the_graph(&mut findings);
    c.mixed_ranges(&mut findings);
    c.spread_constants(&mut findings);
    c.parts(&mut findings);
    c.steep(&mut findings);
    c.fixed_ranges(&mut findings);
    c.float_normalisations(&mut findings);
    findings::states(graph, known.finished, &mut findings);
    for f in known.forced {
        findings.push(Finding {
            rule: "rule-without-effect",
            severity: Severity::Warning,
            node: f.node.clone(),
            message: format!("{} was asked for: {}", f.asked, f.reason),
        });
    }
    findings.sort_by(|a, b| (a.severity, a.rule).cmp(&(b.severity, b.rule)));
    Report { sections, findings }
}

struct Checker<'a> {
    graph: &'a Graph,
    known: Known<'a>,
    producers: HashMap<ValueId, usize>,
    users: HashMap<ValueId, Vec<usize>>,
    /// Type of the codes that each tensor stands for, where it is quantized: behind quantizers and what passes codes on.
    codes: HashMap<ValueId, usize>,
}

impl<'a> Checker<'a> {
    fn new(graph: &'a Graph, known: Known<'a>) -> Self {
        let producers = graph.producers();
        let mut codes: HashMap<ValueId, usize> = HashMap::new();
        for (i, n) in graph.nodes().iter().enumerate() {
            let from = match n.op.quant_rule() {
                QuantRule::Quantizer(_) => Some(i),
                QuantRule::Codes | QuantRule::Clamp { .. } => {
                    n.inputs.first().and_then(|v| codes.get(v)).copied()
                }
                _ => None,
            };
            if let Some(q) = from {
                codes.extend(n.outputs.iter().map(|v| (*v, q)));
            }
        }
        Checker { graph, known, producers, users: graph.users(), codes }
    }

    fn node(&self, i: usize) -> &'a Node {
        &self.graph.nodes()[i]
    }

    fn name(&self, v: ValueId) -> &'a str {
        &self.graph.value(v).name
    }

    /// The quantizer whose codes a tensor holds.
    fn quantizer(&self, v: ValueId) -> Option<&'a Quantizer> {
        self.codes.get(&v).and_then(|i| self.node(*i).quantizer())
    }

    /// The range of a tensor: as observed, of a constant, else as its quantizer can say.
    fn range(&self, v: ValueId) -> Option<Range> {
        let value = self.graph.value(v);
        if let Some(x) = value.constant.as_ref().and_then(|t| t.as_f32()) {
            let (low, high) =
                x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
            return Range::new(low, high).ok();
        }
        let names = [self.name(v).trim_end_matches("/raw"), self.name(v).trim_end_matches("/quantized")];
        let seen = self.known.statistics.and_then(|s| names.iter().find_map(|n| s.tensors.get(*n)));
        if let Some(range) = seen.and_then(|s| s.range()) {
            return Some(range);
        }
        let q = self.producers.get(&v).and_then(|i| self.node(*i).quantizer())?;
        let step = q.params.as_ref().filter(|p| p.scales().len() == 1)?;
        let (low, high) = step.codes();
        Range::new(step.step(0).dequantize(low), step.step(0).dequantize(high)).ok()
    }

    /// The range of what a tensor was made from: before its quantizer, and before what only gives it another shape.
    fn source_range(&self, v: ValueId) -> Option<Range> {
        let producer = self.producers.get(&v).map(|i| self.node(*i));
        match producer.map(|n| (n, n.op.quant_rule())) {
            Some((n, QuantRule::Quantizer(_))) => self.source_range(n.inputs[0]).or_else(|| self.range(v)),
            Some((n, QuantRule::Codes)) => self.range(v).or_else(|| self.source_range(n.inputs[0])),
            _ => self.range(v),
        }
    }
}
