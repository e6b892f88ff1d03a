//! The sections of the report.

use super::{Cell, Checker, Section};
use crate::graph::{Graph, Node, NodeId, QuantRule, ValueId};
use crate::passes::fuse;
use crate::quant::{Origin, Role, State};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};

impl Checker<'_> {
    pub(super) fn unfused(&self) -> Section {
        let groups = fuse::groups(self.graph);
        let all = if self.known.unfused.is_empty() { &groups.unfused } else { self.known.unfused };
        let label = |id| self.graph.node(id).map_or_else(|| format!("{id}"), Node::label);
        let rows = all.iter().map(|u| {
            let members: Vec<String> = u.nodes.iter().map(|id| label(*id)).collect();
            vec![members.join(" + ").into(), u.reason.text().into()]
        });
        Section {
            key: "unfused",
            title: "1. Fusable groups that are not fused",
            header: vec!["members", "reason"],
            rows: rows.collect(),
        }
    }

    /// Constants that several nodes compute with, modules that are called more than once, and what nobody uses.
    pub(super) fn shared(&self) -> Section {
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
                rows.push(vec![
                    "shared constant".into(),
                    value.name.clone().into(),
                    takers.join(", ").into(),
                ]);
            }
            if value.constant.is_none() && !self.users.contains_key(&id) && self.graph.inputs.contains(&id) {
                rows.push(vec!["unused input".into(), value.name.clone().into(), Cell::Empty]);
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
                rows.push(vec!["module called again".into(), first.into(), (*name).into()]);
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

    pub(super) fn dtypes(&self, inputs: bool) -> Section {
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
        let columns = ["f32", "i4", "i8", "i16", "u4", "u8", "u16", "i32"];
        let ops: BTreeSet<&str> = counts.keys().map(|(op, _)| *op).collect();
        let rows = ops.into_iter().map(|op| {
            let count = |t: &&str| counts.get(&(op, (*t).to_owned())).copied().unwrap_or(0).into();
            std::iter::once(op.into()).chain(columns.iter().map(count)).collect()
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

    pub(super) fn outputs(&self) -> Section {
        let nodes = self.graph.nodes().iter().filter(|n| n.quantizer().is_none());
        let rows = nodes.filter_map(|n| {
            let v = *n.outputs.first()?;
            let behind = self.users.get(&v).into_iter().flatten().find_map(|i| self.node(*i).quantizer());
            let inputs: Vec<&str> = n.inputs.iter().map(|v| self.dtype(*v)).collect();
            let scale = behind.and_then(|q| q.params.as_ref()).map(|p| p.scales()[0]);
            Some(vec![
                n.name.clone().into(),
                n.op.def().name.into(),
                inputs.join(", ").into(),
                self.output_dtype(v).into(),
                behind.and_then(|q| q.spec.axis).into(),
                behind.map(|q| format!("{} ({})", q.spec.observer, q.origin)).into(),
                scale.into(),
            ])
        });
        Section {
            key: "outputs",
            title: "5. Outputs of each layer",
            header: vec!["name", "type", "input dtypes", "output dtype", "axis", "observer", "scale"],
            rows: rows.collect(),
        }
    }

    pub(super) fn weights(&self) -> Section {
        let mut rows = Vec::new();
        for n in self.graph.nodes() {
            let Some(q) = n.quantizer().filter(|q| q.spec.role == Role::Weight) else { continue };
            let takers = self.users.get(&n.outputs[0]).into_iter().flatten();
            let takers: Vec<String> = takers.map(|i| self.node(*i).name.clone()).collect();
            let scales = q.params.as_ref().map(|p| {
                let ends = p.scales().iter().fold((f32::MAX, 0f32), |(l, h), s| (l.min(*s), h.max(*s)));
                (p.scales().len(), ends)
            });
            rows.push(vec![
                takers.join(", ").into(),
                self.name(n.inputs[0]).into(),
                q.spec.dtype.name().into(),
                q.spec.axis.into(),
                q.spec.observer.clone().into(),
                scales.map(|(n, _)| n).into(),
                scales.map(|(_, (low, _))| low).into(),
                scales.map(|(_, (_, high))| high).into(),
            ]);
        }
        Section {
            key: "weights",
            title: "6. Weights",
            header: vec![
                "layer",
                "weights",
                "dtype",
                "axis",
                "observer",
                "scales",
                "least scale",
                "greatest scale",
            ],
            rows,
        }
    }

    pub(super) fn unusual(&self) -> Section {
        let mut rows = Vec::new();
        let mut row = |name: &str, what: &str| rows.push(vec![name.into(), what.into()]);
        for n in self.graph.nodes() {
            if let Some(q) = n.quantizer() {
                if q.origin == Origin::Fixed && q.spec.role != Role::Tap {
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
            let computes = n.op.quant_rule().computes();
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
}

/// Rows of section 5 for the tensors inside composite operators.
pub(super) fn internals(graph: &Graph) -> impl Iterator<Item = Vec<Cell>> {
    graph.nodes().iter().filter_map(|n| {
        let q = n.quantizer()?;
        let owner = graph.node(NodeId(q.spec.owner?))?;
        Some(vec![
            graph.value(n.inputs[0]).name.clone().into(),
            format!("inside {}", owner.op.def().name).into(),
            Cell::Empty,
            q.spec.dtype.name().into(),
            Cell::Empty,
            format!("{} ({})", q.spec.observer, q.origin).into(),
            q.params.as_ref().map(|p| p.scales()[0]).into(),
        ])
    })
}
