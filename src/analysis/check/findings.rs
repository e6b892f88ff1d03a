//! The rules that find what is worth a look.

use super::{Checker, Finding, Severity};
use crate::analysis::calibrate::clipped;
use crate::graph::{Graph, Node, NodeId, QuantRule, ValueId};
use crate::observers::Summary;
use crate::passes::fuse;
use crate::quant::{Origin, Quantizer, Range, Role, State};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};

/// How many of a quantizer's levels a range uses.
fn levels(q: &Quantizer, range: Range, whole: f32) -> f32 {
    let (low, high) = q.spec.dtype.limits().unwrap_or((0, 0));
    #[allow(clippy::cast_precision_loss, reason = "codes of 16 bits")]
    let half = (high - low) as f32 / 2.0;
    half * range.absmax() / whole
}

impl Checker<'_> {
    pub(super) fn double_quantization(&self, out: &mut Vec<Finding>) {
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

    pub(super) fn float_inputs(&self, out: &mut Vec<Finding>) {
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

    /// Ranges and scales of the configuration that cut off what was observed.
    pub(super) fn fixed_ranges(&self, out: &mut Vec<Finding>) {
        for n in self.graph.nodes() {
            let Some(q) = n.quantizer().filter(|q| q.origin == Origin::Fixed) else { continue };
            let name = self.name(n.inputs[0]).trim_end_matches("/raw");
            let summary = self.known.statistics.and_then(|s| s.tensors.get(name));
            let (Some(p), Some(s)) = (q.params.as_ref().filter(|p| p.scales().len() == 1), summary) else {
                continue;
            };
            let share = clipped(p, s);
            // Probabilities of 1 are one step beyond the codes, and points beyond the picture, which ends at 1, see no more.
            let covers = q.spec.role == Role::Grid && p.scales()[0] * p.codes().1 as f32 > 1.0;
            if q.spec.role != Role::Tap && !covers && share > 0.001 {
                let severity = if share > 0.05 { Severity::Error } else { Severity::Warning };
                let seen = s
                    .range()
                    .map_or(String::new(), |r| format!(", which reach from {:?} to {:?}", r.low, r.high));
                let message = format!(
                    "its fixed scale {:?} cuts off {:.1} % of its numbers{seen}: widen the range or let it be observed",
                    p.scales()[0],
                    100.0 * share
                );
                out.push(Finding { rule: "fixed-range", severity, node: name.to_owned(), message });
            }
        }
    }

    /// Normalisations that were not folded, in a model of which other parts are quantized.
    pub(super) fn float_normalisations(&self, out: &mut Vec<Finding>) {
        if self.graph.nodes().iter().all(|n| n.quantizer().is_none()) {
            return;
        }
        let groups = fuse::groups(self.graph);
        let unfused = if self.known.unfused.is_empty() { &groups.unfused } else { self.known.unfused };
        for n in self.graph.nodes().iter().filter(|n| n.op.def().name == "BatchNormalization") {
            let candidate = unfused.iter().find(|u| u.nodes.last() == Some(&n.id));
            let label = |id: &NodeId| self.graph.node(*id).map_or_else(|| id.to_string(), Node::label);
            let why = match candidate {
                Some(u) => {
                    let before: Vec<String> = u.nodes[..u.nodes.len() - 1].iter().map(label).collect();
                    format!("it cannot be folded into {}: {}", before.join(" + "), u.reason.text())
                }
                None => {
                    "right before it there is no product with constant weights to fold it into".to_owned()
                }
            };
            out.push(Finding {
                rule: "float-normalisation",
                severity: Severity::Warning,
                node: n.label(),
                message: format!(
                    "the normalisation runs in float: {why}; put it right behind the product, or write it as Mul and Add with a constant for each channel"
                ),
            });
        }
    }

    pub(super) fn low_precision_outputs(&self, out: &mut Vec<Finding>) {
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
    pub(super) fn shared_scales(&self, out: &mut Vec<Finding>) {
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

    pub(super) fn inputs_of_the_graph(&self, out: &mut Vec<Finding>) {
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
    pub(super) fn mixed_ranges(&self, out: &mut Vec<Finding>) {
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
                    "large numbers swallow small: {:?} reaches {:?}, {:?} only {:?}, which leaves it {left:.2} levels at {}; read by {readers}: raise it to i16 or quantize its parts apart (a rule with split = true)",
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
                    QuantRule::Quantizer(_) | QuantRule::Codes | QuantRule::Clamp { .. } => {
                        open.extend(&self.node(*i).outputs);
                    }
                    _ => drop(found.insert(self.node(*i).label())),
                }
            }
        }
        found.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Constant operands whose magnitudes lie too far apart for one scale.
    pub(super) fn spread_constants(&self, out: &mut Vec<Finding>) {
        for n in self.graph.nodes().iter().filter(|n| ["Add", "Sub", "Mul", "Div"].contains(&n.op.def().name))
        {
            for v in &n.inputs {
                let Some(quantizer) = self.producers.get(v).map(|i| self.node(*i)) else { continue };
                let Some(q) = quantizer.quantizer() else { continue };
                let source = quantizer.inputs[0];
                let constant = self.graph.value(source).constant.as_ref();
                let Some(numbers) = constant.and_then(|c| c.as_f32()) else { continue };
                let magnitudes = numbers.iter().map(|x| x.abs()).filter(|x| *x > 0.0);
                let least = magnitudes.clone().fold(f32::INFINITY, f32::min);
                let most = magnitudes.fold(0.0, f32::max);
                let Ok(range) = Range::new(0.0, least.min(most)) else { continue };
                let left = levels(q, range, most);
                if most > 1024.0 * least && left <= 32.0 {
                    out.push(Finding {
                        rule: "spread-constant",
                        severity: if left < 1.0 { Severity::Error } else { Severity::Warning },
                        node: n.label(),
                        message: format!(
                            "one scale for magnitudes from {least:?} to {most:?} in {:?}, which leaves the least {left:.2} levels at {}: raise it to i16 or quantize it in parts (a rule with split = true)",
                            self.name(source), q.spec.dtype
                        ),
                    });
                }
            }
        }
    }

    /// Parts that are cut from a tensor and inherit a scale that is too coarse for them.
    pub(super) fn parts(&self, out: &mut Vec<Finding>) {
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
    pub(super) fn steep(&self, out: &mut Vec<Finding>) {
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
}

/// Quantizers without parameters or in a state that does not fit, those inside composite operators among them.
pub(super) fn states(graph: &Graph, finished: bool, out: &mut Vec<Finding>) {
    for n in graph.nodes() {
        let Some(q) = n.quantizer() else { continue };
        if finished && matches!(q.state, State::Calibration | State::Qat) {
            out.push(Finding {
                rule: "unfit-state",
                severity: Severity::Error,
                node: n.label(),
                message: format!(
                    "the quantizer is in state {}, which no evaluation takes: `samebit calibrate` brings it to validation",
                    q.state
                ),
            });
        } else if q.state == State::Validation && q.params.is_none() {
            out.push(Finding {
                rule: "never-calibrated",
                severity: Severity::Error,
                node: n.label(),
                message: "the quantizer never saw data: `samebit calibrate` gives it a scale".into(),
            });
        }
    }
}

/// Share of a summary's numbers other than 0 whose magnitude is below a bound.
fn below(s: &Summary, bound: f64) -> f64 {
    let (mut all, mut lost) = (0.0, 0.0);
    for bin in s.bins().iter().filter(|b| b.low != 0.0 || b.high != 0.0) {
        all += bin.count;
        if bin.low.abs().max(bin.high.abs()) <= bound {
            lost += bin.count;
        }
    }
    if all == 0.0 { 0.0 } else { lost / all }
}
