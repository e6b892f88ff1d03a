//! The check report: what of a model is worth a look before and after calibration.

use super::statistics::Statistics;
use crate::graph::{Graph, Node, QuantRule, ValueId};
use crate::passes::fuse::{self, Unfused};
use crate::passes::prepare::Forced;
use crate::quant::{Origin, Quantizer, Range, Role, State};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    pub rows: Vec<Vec<String>>,
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
}

/// Checks a graph.
pub fn check(graph: &Graph, known: Known) -> Report {
    let c = Checker::new(graph, known);
    let sections =
        vec![c.unfused(), c.shared(), c.dtypes(true), c.dtypes(false), c.outputs(), c.weights(), c.unusual()];
    let mut findings = Vec::new();
    c.double_quantization(&mut findings);
    c.float_inputs(&mut findings);
    c.low_precision_outputs(&mut findings);
    c.shared_scales(&mut findings);
    c.inputs_of_the_graph(&mut findings);
    c.mixed_ranges(&mut findings);
    c.parts(&mut findings);
    c.steep(&mut findings);
    c.states(&mut findings);
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

/// How many of a quantizer's levels a range uses.
fn levels(q: &Quantizer, range: Range, whole: f32) -> f32 {
    let (low, high) = q.spec.dtype.limits().unwrap_or((0, 0));
    #[allow(clippy::cast_precision_loss, reason = "codes of 16 bits")]
    let half = (high - low) as f32 / 2.0;
    half * range.absmax() / whole
}

impl<'a> Checker<'a> {
    fn new(graph: &'a Graph, known: Known<'a>) -> Self {
        let producers = graph.producers();
        let mut codes: HashMap<ValueId, usize> = HashMap::new();
        for (i, n) in graph.nodes().iter().enumerate() {
            let from = match n.op.quant_rule() {
                QuantRule::Quantizer(_) => Some(i),
                QuantRule::Codes | QuantRule::Clamp => n.inputs.first().and_then(|v| codes.get(v)).copied(),
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

    fn unfused(&self) -> Section {
        let groups = fuse::groups(self.graph);
        let all = if self.known.unfused.is_empty() { &groups.unfused } else { self.known.unfused };
        let label = |id| self.graph.node(id).map_or_else(|| format!("{id}"), Node::label);
        let rows = all.iter().map(|u| {
            let members: Vec<String> = u.nodes.iter().map(|id| label(*id)).collect();
            vec![members.join(" + "), u.reason.text().to_owned()]
        });
        Section {
            key: "unfused",
            title: "1. Fusable groups that are not fused",
            header: vec!["members", "reason"],
            rows: rows.collect(),
        }
    }

    /// Constants that several nodes compute with, modules that are called more than once, and what nobody uses.
    fn shared(&self) -> Section {
        let mut rows = Vec::new();
        for (id, value) in (0..).map(ValueId).zip(self.graph.values()) {
            let through = |i: &usize| {
                let n = self.node(*i);
                match n.quantizer() {
                    Some(_) => self.users.get(&n.outputs[0]).cloned().unwrap_or_default(),
                    None => vec![*i],
                }
            };
            let takers: BTreeSet<usize> =
                self.users.get(&id).map(|l| l.iter().flat_map(through).collect()).unwrap_or_default();
            let computes =
                |i: &&usize| !matches!(self.node(**i).op.quant_rule(), QuantRule::Codes | QuantRule::Float);
            let takers: Vec<String> =
                takers.iter().filter(computes).map(|i| self.node(*i).name.clone()).collect();
            if value.constant.is_some()
                && takers.len() > 1
                && value.ty.elements().is_some_and(|d| d.fixed() > Some(1))
            {
                rows.push(vec!["shared constant".to_owned(), value.name.clone(), takers.join(", ")]);
            }
            if value.constant.is_none() && !self.users.contains_key(&id) && self.graph.inputs.contains(&id) {
                rows.push(vec!["unused input".to_owned(), value.name.clone(), String::new()]);
            }
        }
        let names: BTreeSet<&str> = self.graph.nodes().iter().map(|n| n.name.as_str()).collect();
        for name in &names {
            // Exporters call a module's second use x_1.
            let scope = name.rsplit_once('/').map_or(*name, |(scope, _)| scope);
            if let Some((first, n)) = scope.rsplit_once('_')
                && n.parse::<u32>().is_ok()
                && names.iter().any(|other| other.rsplit_once('/').is_some_and(|(s, _)| s == first))
                && !first.is_empty()
            {
                rows.push(vec!["module called again".to_owned(), first.to_owned(), (*name).to_owned()]);
            }
        }
        Section {
            key: "shared",
            title: "2. Shared and unused nodes",
            header: vec!["kind", "name", "used by"],
            rows,
        }
    }

    /// The type that a tensor is computed with.
    fn dtype(&self, v: ValueId) -> &'static str {
        match self.quantizer(v) {
            Some(q) if q.state != State::Float => q.spec.dtype.name(),
            _ => self.graph.value(v).ty.dtype.name(),
        }
    }

    /// The type of what a node leaves: that of the quantizer behind its group, or of the tensor.
    fn output_dtype(&self, v: ValueId) -> &'static str {
        let behind = self.users.get(&v).into_iter().flatten().find_map(|i| self.node(*i).quantizer());
        behind.map_or_else(|| self.dtype(v), |q| q.spec.dtype.name())
    }

    fn dtypes(&self, inputs: bool) -> Section {
        let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for n in self.graph.nodes().iter().filter(|n| n.quantizer().is_none()) {
            let types: Vec<&str> = if inputs {
                let constants = |v: &&ValueId| self.graph.value(**v).constant.is_none();
                n.inputs.iter().filter(constants).map(|v| self.dtype(*v)).collect()
            } else {
                n.outputs.iter().map(|v| self.output_dtype(*v)).collect()
            };
            for t in types {
                *counts.entry((n.op.def().name, t.to_owned())).or_insert(0) += 1;
            }
        }
        let columns = ["f32", "i4", "i8", "i16", "u8", "i32"];
        let ops: BTreeSet<&str> = counts.keys().map(|(op, _)| *op).collect();
        let rows = ops.into_iter().map(|op| {
            let count = |t: &&str| counts.get(&(op, (*t).to_owned())).copied().unwrap_or(0).to_string();
            std::iter::once(op.to_owned()).chain(columns.iter().map(count)).collect()
        });
        let (key, title) = if inputs {
            ("input_dtypes", "3. Types of inputs by operator")
        } else {
            ("output_dtypes", "4. Types of outputs by operator")
        };
        Section {
            key,
            title,
            header: std::iter::once("operator").chain(columns).collect(),
            rows: rows.collect(),
        }
    }

    fn outputs(&self) -> Section {
        let nodes = self.graph.nodes().iter().filter(|n| n.quantizer().is_none());
        let rows = nodes.filter_map(|n| {
            let v = *n.outputs.first()?;
            let behind = self.users.get(&v).into_iter().flatten().find_map(|i| self.node(*i).quantizer());
            let inputs: Vec<&str> = n.inputs.iter().map(|v| self.dtype(*v)).collect();
            let scale = behind.and_then(|q| q.params.as_ref()).map(|p| format!("{:?}", p.scales()[0]));
            let axis = behind.and_then(|q| q.spec.axis).map_or("-".to_owned(), |a| a.to_string());
            let observer = behind.map_or("-".to_owned(), |q| format!("{} ({})", q.spec.observer, q.origin));
            Some(vec![
                n.name.clone(),
                n.op.def().name.to_owned(),
                inputs.join(", "),
                self.output_dtype(v).to_owned(),
                axis,
                observer,
                scale.unwrap_or_else(|| "-".to_owned()),
            ])
        });
        Section {
            key: "outputs",
            title: "5. Outputs of each layer",
            header: vec!["name", "type", "input dtypes", "output dtype", "axis", "observer", "scale"],
            rows: rows.collect(),
        }
    }

    fn weights(&self) -> Section {
        let mut rows = Vec::new();
        for n in self.graph.nodes() {
            let Some(q) = n.quantizer().filter(|q| q.spec.role == Role::Weight) else { continue };
            let takers = self.users.get(&n.outputs[0]).into_iter().flatten();
            let takers: Vec<String> = takers.map(|i| self.node(*i).name.clone()).collect();
            let scales = q.params.as_ref().map(|p| {
                let (low, high) =
                    p.scales().iter().fold((f32::MAX, 0f32), |(l, h), s| (l.min(*s), h.max(*s)));
                format!("{} scales, {low:?} to {high:?}", p.scales().len())
            });
            rows.push(vec![
                takers.join(", "),
                self.name(n.inputs[0]).to_owned(),
                q.spec.dtype.to_string(),
                q.spec.axis.map_or("-".to_owned(), |a| a.to_string()),
                q.spec.observer.clone(),
                scales.unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        Section {
            key: "weights",
            title: "6. Weights",
            header: vec!["layer", "weights", "dtype", "axis", "observer", "scale"],
            rows,
        }
    }

    fn unusual(&self) -> Section {
        let mut rows = Vec::new();
        let mut row = |name: &str, what: &str| rows.push(vec![name.to_owned(), what.to_owned()]);
        for n in self.graph.nodes() {
            if let Some(q) = n.quantizer() {
                if q.origin == Origin::Fixed {
                    row(&n.name, "fixed scale");
                }
                if q.spec.role == Role::Weight && q.spec.dtype != DType::I8 {
                    row(&n.name, &format!("weights at {}", q.spec.dtype));
                }
                if q.state != State::Validation {
                    row(&n.name, &format!("state {}", q.state));
                }
                continue;
            }
            let computes = matches!(n.op.quant_rule(), QuantRule::Gemm { .. } | QuantRule::Compute);
            let v = n.outputs.first().filter(|_| computes);
            if v.is_some_and(|v| self.output_dtype(*v) == "f32") && self.graph.stage.name() != "float" {
                row(&n.name, "no quantizer behind it");
            }
            let runtime = n.inputs.iter().filter(|v| self.graph.value(**v).constant.is_none());
            let weights = |v: &&ValueId| self.quantizer(**v).is_none_or(|q| q.spec.role != Role::Weight);
            let types: BTreeSet<&str> = runtime.filter(weights).map(|v| self.dtype(*v)).collect();
            if computes && types.len() > 1 {
                row(&n.name, &format!("mixed dtypes: {}", types.into_iter().collect::<Vec<_>>().join(", ")));
            }
        }
        Section { key: "unusual", title: "7. Unusual settings", header: vec!["name", "setting"], rows }
    }

    fn double_quantization(&self, out: &mut Vec<Finding>) {
        for n in self.graph.nodes().iter().filter(|n| n.quantizer().is_some()) {
            if self.quantizer(n.inputs[0]).is_some() {
                out.push(Finding {
                    rule: "quantized-twice",
                    severity: Severity::Warning,
                    node: n.label(),
                    message: "a quantizer is fed by a quantized tensor: one of the two rounds for nothing"
                        .into(),
                });
            }
        }
    }

    fn float_inputs(&self, out: &mut Vec<Finding>) {
        if self.graph.nodes().iter().all(|n| n.quantizer().is_none()) {
            return;
        }
        let groups = fuse::groups(self.graph).inner(self.graph);
        for n in self.graph.nodes() {
            let QuantRule::Gemm { .. } = n.op.quant_rule() else { continue };
            for v in n.inputs.iter().take(2).filter(|v| self.quantizer(**v).is_none() && !groups.contains(v))
            {
                let name = self.name(*v);
                out.push(Finding {
                    rule: "float-input",
                    severity: Severity::Error,
                    node: n.label(),
                    message: format!("input {name:?} has no quantizer: the layer falls back to float"),
                });
            }
        }
    }

    fn low_precision_outputs(&self, out: &mut Vec<Finding>) {
        for v in &self.graph.outputs {
            if let Some(q) = self.quantizer(*v).filter(|q| q.spec.dtype == DType::I8) {
                let dtype = q.spec.dtype;
                out.push(Finding {
                    rule: "low-precision-output",
                    severity: Severity::Warning,
                    node: self.name(*v).to_owned(),
                    message: format!("an output of the graph at {dtype}: high precision costs nothing there"),
                });
            }
        }
    }

    /// Weights that are shared by layers whose inputs have different ranges.
    fn shared_scales(&self, out: &mut Vec<Finding>) {
        for n in
            self.graph.nodes().iter().filter(|n| n.quantizer().is_some_and(|q| q.spec.role == Role::Weight))
        {
            let takers: Vec<&Node> =
                self.users.get(&n.outputs[0]).into_iter().flatten().map(|i| self.node(*i)).collect();
            let ranges: Vec<(f32, &str)> = takers
                .iter()
                .filter_map(|t| Some((self.source_range(t.inputs[0])?.absmax(), t.name.as_str())))
                .collect();
            let least = ranges.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0));
            let most = ranges.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0));
            if let (Some((low, a)), Some((high, b))) = (least, most)
                && takers.len() > 1
                && high > 4.0 * low
            {
                out.push(Finding {
                    rule: "shared-layer",
                    severity: Severity::Warning,
                    node: self.name(n.inputs[0]).to_owned(),
                    message: format!(
                        "weights shared by calls with different ranges: up to {low:?} in {a}, up to {high:?} in {b}"
                    ),
                });
            }
        }
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

    fn inputs_of_the_graph(&self, out: &mut Vec<Finding>) {
        for v in &self.graph.inputs {
            let quantizer = self.users.get(v).into_iter().flatten().find_map(|i| self.node(*i).quantizer());
            let (Some(q), Some(range)) = (quantizer, self.range(*v)) else { continue };
            let (low, high) = (range.low, range.high);
            if q.spec.dtype == DType::I8 && high > low && (low + high).abs() > 0.5 * (high - low) {
                out.push(Finding {
                    rule: "input-not-centred",
                    severity: Severity::Note,
                    node: self.name(*v).to_owned(),
                    message: format!(
                        "values from {low:?} to {high:?} use half of the codes of a symmetric scale: subtract the middle in preprocessing"
                    ),
                });
            }
            let summary = self.known.statistics.and_then(|s| s.tensors.get(self.name(*v)));
            if let Some(s) = summary.filter(|_| q.spec.dtype == DType::I8) {
                let lost = below(s, f64::from(range.absmax()) / 255.0);
                if lost > 0.25 {
                    out.push(Finding {
                        rule: "input-needs-16-bits",
                        severity: Severity::Warning,
                        node: self.name(*v).to_owned(),
                        message: format!(
                            "{:.0} % of its numbers other than 0 are below half a step at i8",
                            100.0 * lost
                        ),
                    });
                }
            }
        }
    }

    /// Operands of one scale (concatenations) or of one sum whose ranges differ.
    fn mixed_ranges(&self, out: &mut Vec<Finding>) {
        for n in
            self.graph.nodes().iter().filter(|n| ["Concat", "Add", "Sub", "Sum"].contains(&n.op.def().name))
        {
            let operands: Vec<(Range, ValueId)> = n
                .inputs
                .iter()
                .filter_map(|v| Some((self.source_range(*v)?, *v)))
                .filter(|(r, _)| r.absmax() > 0.0)
                .collect();
            let by = |a: &&(Range, ValueId), b: &&(Range, ValueId)| a.0.absmax().total_cmp(&b.0.absmax());
            let (Some(least), Some(most)) = (operands.iter().min_by(by), operands.iter().max_by(by)) else {
                continue;
            };
            let ratio = most.0.absmax() / least.0.absmax();
            let v = n.outputs[0];
            let behind = self.users.get(&v).into_iter().flatten().find_map(|i| self.node(*i).quantizer());
            let Some(q) = behind.filter(|_| ratio > 4.0) else { continue };
            let whole = self.range(v).map_or(most.0.absmax(), |r| r.absmax().max(f32::MIN_POSITIVE));
            let left = levels(q, least.0, whole);
            if left > 32.0 {
                continue;
            }
            let readers = self.readers(v);
            out.push(Finding {
                rule: "mixed-ranges",
                severity: if left < 1.0 { Severity::Error } else { Severity::Warning },
                node: n.label(),
                message: format!(
                    "large numbers swallow small: {:?} reaches {:?}, {:?} only {:?}, which leaves it {left:.2} levels at {}; read by {readers}: raise it to i16 or scale its parts apart",
                    self.name(most.1),
                    most.0.absmax(),
                    self.name(least.1),
                    least.0.absmax(),
                    q.spec.dtype
                ),
            });
        }
    }

    /// Who computes with a tensor's codes.
    fn readers(&self, v: ValueId) -> String {
        let (mut open, mut found) = (vec![v], BTreeSet::new());
        while let Some(v) = open.pop() {
            for i in self.users.get(&v).into_iter().flatten() {
                match self.node(*i).op.quant_rule() {
                    QuantRule::Quantizer(_) | QuantRule::Codes | QuantRule::Clamp => {
                        open.extend(&self.node(*i).outputs);
                    }
                    _ => drop(found.insert(self.node(*i).label())),
                }
            }
        }
        found.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Parts that are cut from a tensor and inherit a scale that is too coarse for them.
    fn parts(&self, out: &mut Vec<Finding>) {
        let mut worst: BTreeMap<usize, (f32, ValueId)> = BTreeMap::new();
        for n in self.graph.nodes().iter().filter(|n| matches!(n.op.quant_rule(), QuantRule::Codes)) {
            let Some(at) = n.inputs.first().and_then(|v| self.codes.get(v)) else { continue };
            let Some(q) = self.node(*at).quantizer() else { continue };
            let Some(whole) = self.source_range(self.node(*at).outputs[0]) else { continue };
            for v in &n.outputs {
                let Some(part) = self.range(*v).filter(|r| r.absmax() > 0.0) else { continue };
                let left = levels(q, part, whole.absmax());
                if whole.absmax() > 4.0 * part.absmax() && left <= 32.0 {
                    let w = worst.entry(*at).or_insert((left, *v));
                    if left < w.0 {
                        *w = (left, *v);
                    }
                }
            }
        }
        for (at, (left, v)) in worst {
            let quantizer = self.node(at);
            let (Some(q), Some(whole)) = (quantizer.quantizer(), self.source_range(quantizer.outputs[0]))
            else {
                continue;
            };
            let source = quantizer.inputs[0];
            let producer = self.producers.get(&source).map(|i| self.node(*i).label());
            out.push(Finding {
                rule: "mixed-parts",
                severity: if left < 1.0 { Severity::Error } else { Severity::Warning },
                node: producer.unwrap_or_else(|| self.name(source).to_owned()),
                message: format!(
                    "one scale for parts of different ranges: all of it reaches {:?}, {:?} only {:?}, which leaves it {left:.2} levels at {}: raise it to i16 or compute the parts apart",
                    whole.absmax(),
                    self.name(v),
                    self.range(v).map_or(0.0, Range::absmax),
                    q.spec.dtype
                ),
            });
        }
    }

    /// Functions that change by many output steps within one input step.
    fn steep(&self, out: &mut Vec<Finding>) {
        for n in self.graph.nodes() {
            let steep = ["Exp", "Reciprocal", "Log", "Sqrt", "Tan", "Pow"].contains(&n.op.def().name);
            let (true, Some(x)) = (steep, n.inputs.first()) else { continue };
            let behind =
                self.users.get(&n.outputs[0]).into_iter().flatten().find_map(|i| self.node(*i).quantizer());
            let (Some(a), Some(b)) = (self.quantizer(*x), behind) else { continue };
            let (Some(p), Some(y)) = (&a.params, &b.params) else { continue };
            let (Some(range), Some(step)) = (self.source_range(*x), Some(p.step(0))) else { continue };
            let (from, to) = (step.quantize(range.low), step.quantize(range.high));
            if from >= to || i64::from(to) - i64::from(from) > 70_000 {
                continue;
            }
            let at = |code: i32| {
                let x = f64::from(step.dequantize(code));
                match n.op.def().name {
                    "Exp" => libm::exp(x),
                    "Reciprocal" => 1.0 / x,
                    "Log" => libm::log(x),
                    "Sqrt" => x.sqrt(),
                    "Tan" => libm::tan(x),
                    _ => x * x,
                }
            };
            let jump =
                (from..to).map(|c| (at(c + 1) - at(c)).abs()).filter(|d| d.is_finite()).fold(0.0, f64::max);
            let steps = jump / f64::from(y.scales()[0]);
            if steps > 16.0 {
                out.push(Finding {
                    rule: "steep-function",
                    severity: Severity::Warning,
                    node: n.label(),
                    message: format!(
                        "one step of its input moves its output by up to {steps:.0} steps: raise the input to i16 or narrow its range"
                    ),
                });
            }
        }
    }

    fn states(&self, out: &mut Vec<Finding>) {
        for n in self.graph.nodes() {
            let Some(q) = n.quantizer() else { continue };
            if q.state == State::Validation && q.params.is_none() {
                out.push(Finding {
                    rule: "never-calibrated",
                    severity: Severity::Error,
                    node: n.label(),
                    message: "the quantizer never saw data: `samebit calibrate` gives it a scale".into(),
                });
            }
        }
    }
}

/// Share of a summary's numbers other than 0 whose magnitude is below a bound.
fn below(s: &crate::observers::Summary, bound: f64) -> f64 {
    let (mut all, mut lost) = (0.0, 0.0);
    for bin in s.bins().iter().filter(|b| b.low != 0.0 || b.high != 0.0) {
        all += bin.count;
        if bin.low.abs().max(bin.high.abs()) <= bound {
            lost += bin.count;
        }
    }
    if all == 0.0 { 0.0 } else { lost / all }
}
