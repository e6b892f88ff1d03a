//! Changes of a graph, for passes. Ids of nodes stay; every pass ends with [`Graph::tidied`].

use super::{Graph, GraphError, Node, NodeId, Op, OpError, ValueId};
use crate::tensor::{Tensor, TensorType};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Graph {
    /// Indices of the nodes that take each value, each as often as it takes it.
    pub fn users(&self) -> HashMap<ValueId, Vec<usize>> {
        let mut out: HashMap<ValueId, Vec<usize>> = HashMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| out.entry(*v).or_default().push(i));
        }
        out
    }

    /// The node with an id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// A value's name that nothing has: `name`, else with a number behind it.
    pub fn fresh_value(&self, name: &str) -> String {
        fresh(name, |n| self.find_value(n).is_some())
    }

    /// A node's name that nothing has: `name`, else with a number behind it.
    pub fn fresh_node(&self, name: &str) -> String {
        fresh(name, |n| self.nodes.iter().any(|node| node.name == n))
    }

    /// Puts a node before the one at index `at`. Names must be fresh.
    ///
    /// # Errors
    /// What the operator says of its inputs.
    pub fn insert_node(
        &mut self,
        at: usize,
        name: &str,
        op: Arc<dyn Op>,
        inputs: &[ValueId],
        outputs: &[String],
    ) -> Result<Vec<ValueId>, OpError> {
        let made = self.add_node(name, None, op, inputs, outputs)?;
        let node = self.nodes.pop().expect("just added");
        self.nodes.insert(at, node);
        Ok(made)
    }

    /// Lets node `index` take `to` where it took `from`.
    pub fn replace_input(&mut self, index: usize, from: ValueId, to: ValueId) {
        self.nodes[index].inputs.iter_mut().filter(|v| **v == from).for_each(|v| *v = to);
    }

    /// Replaces what a node computes.
    pub fn set_op(&mut self, index: usize, op: Arc<dyn Op>) {
        self.nodes[index].op = op;
    }

    /// Replaces the inputs of a node.
    pub fn set_inputs(&mut self, index: usize, inputs: Vec<ValueId>) {
        self.nodes[index].inputs = inputs;
    }

    /// Lets node `index` produce `to` instead of its first output. What produced `to` before must lose it.
    pub fn set_output(&mut self, index: usize, to: ValueId) {
        if let Some(o) = self.nodes[index].outputs.first_mut() {
            *o = to;
        }
    }

    /// Replaces a node by what it computes: its outputs become constants of the same ids.
    pub fn fold_node(&mut self, index: usize, outputs: Vec<Tensor>) {
        let node = self.nodes.remove(index);
        for (v, t) in node.outputs.iter().zip(outputs) {
            self.values[v.0 as usize].constant = Some(t);
        }
    }

    /// Removes a node; its outputs need another producer, or nobody to take them.
    pub fn remove_node(&mut self, index: usize) {
        self.nodes.remove(index);
    }

    /// The graph with these values as inputs more, in order, in place of what produces them.
    ///
    /// # Errors
    /// A rule of the graph that does not hold, as where a node gives something else, too.
    pub fn cut_at(mut self, values: &[ValueId]) -> Result<Graph, GraphError> {
        self.nodes.retain(|n| !n.outputs.iter().any(|v| values.contains(v)));
        self.inputs.extend(values);
        self.tidied()
    }

    /// Renames a value. The name must be fresh.
    pub fn rename_value(&mut self, v: ValueId, name: String) {
        self.values[v.0 as usize].name = name;
    }

    /// Adds a constant behind all values under a fresh name made from `name`.
    pub fn new_constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh_value(name);
        self.add_constant(name, tensor)
    }

    /// Brings nodes into an order in which inputs are produced before they are used, each as early as its place allows.
    pub fn reorder(&mut self) {
        let mut ready: HashSet<ValueId> = self.inputs.iter().copied().collect();
        ready.extend(
            (0..).map(ValueId).zip(&self.values).filter(|(_, v)| v.constant.is_some()).map(|(id, _)| id),
        );
        let producer = self.producers();
        let mut open: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        for i in 0..open.len() {
            // Depth first over what a node still needs.
            let mut stack = vec![i];
            while let Some(top) = stack.last().copied() {
                let Some(node) = &open[top] else {
                    stack.pop();
                    continue;
                };
                let missing = node.inputs.iter().filter(|v| !ready.contains(v));
                let missing: Vec<usize> = missing.filter_map(|v| producer.get(v).copied()).collect();
                if missing.iter().all(|m| stack.contains(m)) {
                    ready.extend(&node.outputs);
                    self.nodes.extend(open[top].take());
                    stack.pop();
                } else {
                    stack.extend(missing);
                }
            }
        }
    }

    /// Indices of the nodes on which these values depend.
    pub fn needed_nodes(&self, wanted: impl IntoIterator<Item = ValueId>) -> HashSet<usize> {
        let mut values: HashSet<ValueId> = wanted.into_iter().collect();
        let mut nodes = HashSet::new();
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|v| values.contains(v)) {
                nodes.insert(i);
                values.extend(&node.inputs);
            }
        }
        nodes
    }

    /// Whether it has quantizers that stand for tensors inside composite operators.
    pub fn has_internals(&self) -> bool {
        self.nodes.iter().any(|n| owner(n).is_some())
    }

    /// The graph without the quantizers of tensors inside composite operators.
    ///
    /// # Errors
    /// As [`Graph::tidied`].
    pub fn without_internals(mut self) -> Result<Graph, GraphError> {
        self.nodes.retain(|n| owner(n).is_none());
        self.tidied()
    }

    /// The graph without nodes that no output and no quantizer inside a node of it needs, and without values that nobody
    /// takes or produces; types are inferred anew. Verified.
    ///
    /// # Errors
    /// A rule of the graph that does not hold.
    pub fn tidied(mut self) -> Result<Graph, GraphError> {
        let used = self.needed_nodes(self.outputs.iter().copied());
        let owners: HashSet<NodeId> = used.iter().map(|i| self.nodes[*i].id).collect();
        let inside = self.nodes.iter().filter(|n| owner(n).is_some_and(|o| owners.contains(&o)));
        let inside: Vec<ValueId> = inside.flat_map(|n| n.outputs.iter().copied()).collect();
        let used = self.needed_nodes(self.outputs.iter().copied().chain(inside));
        let nodes = std::mem::take(&mut self.nodes).into_iter().enumerate();
        let mut kept: Vec<Node> = nodes.filter(|(i, _)| used.contains(i)).map(|(_, n)| n).collect();
        let mut needed: HashSet<ValueId> = self.outputs.iter().chain(&self.inputs).copied().collect();
        needed.extend(kept.iter().flat_map(|n| &n.inputs));
        needed.extend(kept.iter().flat_map(|n| &n.outputs));
        let mut place: HashMap<ValueId, ValueId> = HashMap::new();
        let old = std::mem::take(&mut self.values);
        for (id, value) in (0..).map(ValueId).zip(old) {
            if needed.contains(&id) {
                place.insert(id, ValueId(u32::try_from(self.values.len()).expect("fewer than before")));
                self.values.push(value);
            }
        }
        let moved = |list: &mut Vec<ValueId>| list.iter_mut().for_each(|v| *v = place[v]);
        moved(&mut self.inputs);
        moved(&mut self.outputs);
        for node in &mut kept {
            moved(&mut node.inputs);
            moved(&mut node.outputs);
            let types: Vec<TensorType> =
                node.inputs.iter().map(|v| self.values[v.0 as usize].ty.clone()).collect();
            let inferred =
                node.op.infer(&types).map_err(|error| GraphError::Op { node: node.label(), error })?;
            for (v, ty) in node.outputs.iter().zip(inferred) {
                self.values[v.0 as usize].ty = ty;
            }
        }
        self.nodes = kept;
        self.verify()?;
        Ok(self)
    }
}

/// The node in whose integer form the tensor of a quantizer lies.
fn owner(node: &Node) -> Option<NodeId> {
    node.quantizer()?.spec.owner.map(NodeId)
}

fn fresh(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|i| format!("{name}.{i}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|n| !taken(n)).expect("there is no end of numbers")
}
