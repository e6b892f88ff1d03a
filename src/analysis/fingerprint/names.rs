//! Names that others have for the tensors of a graph.

use crate::graph::{Graph, ValueId};
use std::collections::HashMap;

/// The tensors of a graph by the names that others may give them.
pub(super) struct Names<'a> {
    graph: &'a Graph,
    exact: HashMap<&'a str, ValueId>,
    /// What is left of names of tensors, and of nodes, without what converters add.
    canonical: Vec<(String, ValueId)>,
}

/// Least length of a name that may be the end of one of ours.
const TAIL: usize = 12;

/// A name without the marks that runtimes use where ONNX has others, and without what converters to ONNX add.
fn canonical(name: &str) -> String {
    let mut name: String =
        name.chars().map(|c| if matches!(c, '/' | '\\' | ':') { '.' } else { c }).collect();
    for end in ["_prequant", "_dequant", "_quantize", ".codes", ".0"] {
        if let Some(rest) = name.strip_suffix(end).filter(|r| !r.is_empty()) {
            name.truncate(rest.len());
        }
    }
    name
}

impl<'a> Names<'a> {
    pub(super) fn of(graph: &'a Graph) -> Names<'a> {
        let mut exact = HashMap::new();
        let mut all = Vec::new();
        for v in &graph.inputs {
            exact.insert(graph.value(*v).name.as_str(), *v);
            all.push((canonical(&graph.value(*v).name), *v));
        }
        for node in graph.nodes() {
            for v in &node.outputs {
                // What a box gives as numbers is compared as the codes that they stand for.
                let v = if node.op.def().name == "Dequantize" { node.inputs[0] } else { *v };
                exact.insert(graph.value(node.outputs[0]).name.as_str(), v);
                exact.insert(graph.value(v).name.as_str(), v);
                all.push((canonical(&graph.value(v).name), v));
                all.push((canonical(&graph.value(node.outputs[0]).name), v));
                if node.outputs.len() == 1 {
                    all.push((canonical(&node.name), v));
                }
            }
        }
        Names { graph, exact, canonical: all }
    }

    /// The tensor that a name of theirs means, and whether it is exactly ours.
    pub(super) fn find(&self, key: &str, map: &[(String, String)]) -> Result<(ValueId, bool), String> {
        if let Some((_, ours)) = map.iter().find(|(theirs, _)| theirs == key) {
            let v = self.exact.get(ours.as_str());
            return v.map(|v| (*v, true)).ok_or_else(|| format!("the model has no tensor {ours:?}"));
        }
        if let Some(v) = self.exact.get(key) {
            return Ok((*v, true));
        }
        // Some dumps number their tensors.
        let plain = key
            .split_once('|')
            .filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()))
            .map_or(key, |(_, k)| k);
        if let Some(v) = self.exact.get(plain) {
            return Ok((*v, true));
        }
        let theirs = canonical(plain);
        for alike in
            [&|ours: &str| ours == theirs, &|ours: &str| theirs.len() >= TAIL && ours.ends_with(&theirs)]
                as [&dyn Fn(&str) -> bool; 2]
        {
            let mut all: Vec<ValueId> =
                self.canonical.iter().filter(|(n, _)| alike(n)).map(|(_, v)| *v).collect();
            all.sort_unstable();
            all.dedup();
            match all[..] {
                [] => {}
                [one] => return Ok((one, false)),
                [a, b, ..] => {
                    let (a, b) = (&self.graph.value(a).name, &self.graph.value(b).name);
                    return Err(format!("it could be {a:?} or {b:?}; --map says which"));
                }
            }
        }
        Err("no tensor of the model has this name; --map gives it one".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_what_converters_add() {
        assert_eq!(canonical("model/conv2d/Conv2D1_prequant"), "model.conv2d.Conv2D1");
        assert_eq!(canonical("Relu__5:0"), "Relu__5");
        assert_eq!(canonical("image/codes"), "image");
        assert_eq!(canonical(":0"), ".0", "a name does not vanish");
    }
}
