//! Graph to text.

use super::super::{AttrValue, Graph, Node, NodeId, ValueId};
use super::{ContentHash, INLINE_ELEMENTS, number};
use crate::tensor::{Data, Tensor};
use std::fmt::Write;

/// A name or text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn elements(t: &Tensor) -> String {
    match t.data() {
        Data::F32(v) => list(v.iter().map(|x| number::print(*x))),
        _ => list((0..t.len()).map(|i| t.number(i).to_string())),
    }
}

fn attribute(v: &AttrValue) -> String {
    match v {
        AttrValue::Int(v) => v.to_string(),
        AttrValue::Ints(v) => list(v.iter().map(ToString::to_string)),
        AttrValue::Float(v) => number::print(*v),
        AttrValue::Floats(v) => list(v.iter().map(|x| number::print(*x))),
        AttrValue::Str(v) => quoted(v),
        AttrValue::Strs(v) => list(v.iter().map(|s| quoted(s))),
        AttrValue::Tensor(t) => format!("{} {}", t.ty(), elements(t)),
    }
}

impl Graph {
    fn typed(&self, id: ValueId) -> String {
        let v = self.value(id);
        format!("v{} {} {}", id.0, quoted(&v.name), v.ty)
    }

    fn constant_line(&self, id: ValueId, t: &Tensor) -> String {
        if t.len() <= INLINE_ELEMENTS {
            return format!("const {} {}", self.typed(id), elements(t));
        }
        format!("const {} hash {}", self.typed(id), ContentHash::of(t))
    }

    fn node_line(&self, node: &Node) -> String {
        let mut out = format!("{} {}", node.id, quoted(&node.name));
        if let Some(source) = &node.source {
            let _ = write!(out, " from {}", quoted(source));
        }
        let inputs: Vec<String> = node.inputs.iter().map(|v| format!("v{}", v.0)).collect();
        let _ = write!(out, " {}({})", node.op.def().name, inputs.join(", "));
        let attrs = node.op.attrs();
        if !attrs.0.is_empty() {
            let attrs: Vec<String> = attrs.0.iter().map(|(k, v)| format!("{k} = {}", attribute(v))).collect();
            let _ = write!(out, " {{{}}}", attrs.join(", "));
        }
        let outputs: Vec<String> = node.outputs.iter().map(|v| self.typed(*v)).collect();
        let _ = write!(out, " -> {}", outputs.join(", "));
        out
    }
}

/// The whole graph.
pub fn print(graph: &Graph) -> String {
    let mut out = format!("graph {} {}\n", quoted(&graph.name), graph.stage.name());
    if let Some(t) = &graph.target {
        let _ = writeln!(out, "target {} {}", t.level, quoted(&t.profile.source));
    }
    for id in &graph.inputs {
        let _ = writeln!(out, "input {}", graph.typed(*id));
    }
    for (i, v) in (0u32..).zip(graph.values()) {
        if let Some(t) = &v.constant {
            let _ = writeln!(out, "{}", graph.constant_line(ValueId(i), t));
        }
    }
    for node in graph.nodes() {
        let _ = writeln!(out, "{}", graph.node_line(node));
    }
    for id in &graph.outputs {
        let _ = writeln!(out, "output v{}", id.0);
    }
    out
}

/// One node with the types of its inputs and outputs, who produces the former and who takes the latter; `None` for an unknown id.
pub fn around(graph: &Graph, id: NodeId) -> Option<String> {
    let node = graph.nodes().iter().find(|n| n.id == id)?;
    let producers = graph.producers();
    let mut out = graph.node_line(node) + "\n";
    for v in &node.inputs {
        let from = match (&graph.value(*v).constant, producers.get(v)) {
            (Some(t), _) if t.len() <= INLINE_ELEMENTS => format!("constant {}", elements(t)),
            (Some(t), _) => format!("constant, hash {}", ContentHash::of(t)),
            (None, Some(i)) => format!("from {} {}", graph.nodes()[*i].id, graph.nodes()[*i].label()),
            (None, None) => "graph input".to_owned(),
        };
        let _ = writeln!(out, "  input  {}, {from}", graph.typed(*v));
    }
    for v in &node.outputs {
        let users = graph.nodes().iter().filter(|n| n.inputs.contains(v));
        let mut to: Vec<String> = users.map(|n| format!("{} {}", n.id, n.label())).collect();
        if graph.outputs.contains(v) {
            to.push("graph output".to_owned());
        }
        let to = if to.is_empty() { "nobody".to_owned() } else { to.join(", ") };
        let _ = writeln!(out, "  output {}, to {to}", graph.typed(*v));
    }
    Some(out)
}
