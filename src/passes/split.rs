//! Numbers of very different magnitude under one scale, taken apart: rules with `split`.
//!
//! *A concatenation that a product takes*: `[a b] W = a W_a + b W_b`. Each part has a scale of its own then, and each
//! product but the last gives codes that the next one adds to its sums.
//!
//! *A constant operand of an addition, subtraction, product or quotient*: it and the other operand are cut along the one
//! axis along which it varies, into runs in which no magnitude exceeds another by more than [`SPAN`]; what comes of them
//! is joined again.

use super::PassError;
use super::config::{QuantConfig, Rule};
use super::fuse::is_bias;
use super::rules::{Target, targets};
use crate::graph::{AttrValue, Attrs, Graph, Node, NodeId, Op, OpError, Scratch, ValueId};
use crate::tensor::{DType, Tensor};
use std::collections::HashSet;
use std::sync::Arc;

/// What magnitudes in one part differ by at most: the least then has 8 levels of 127, at least.
const SPAN: f32 = 16.0;

/// The graph with these parts taken apart, and the additions that join products: what they take has 16 bits where the
/// target has these.
///
/// # Errors
/// A rule that matches nothing, and one under which nothing can be taken apart.
pub(super) fn split(
    mut graph: Graph,
    config: &QuantConfig,
    model: &Graph,
) -> Result<(Graph, HashSet<NodeId>), PassError> {
    let mut sums = HashSet::new();
    for (i, rule) in config.rule.iter().enumerate().filter(|(_, r)| r.split) {
        let ids = found(&graph, rule, i + 1)?;
        if ids.is_empty() {
            return Err(super::rules::unmatched(&graph, model, rule, i + 1)?);
        }
        let mut reasons = Vec::new();
        for id in &ids {
            match apart(&mut graph, *id)? {
                Ok(made) => sums.extend(made),
                Err(reason) => {
                    let label = graph.node(*id).map(Node::label).unwrap_or_default();
                    reasons.push(format!("{label}: {reason}"));
                }
            }
        }
        if reasons.len() == ids.len() {
            let message = format!("nothing can be taken apart: {}", reasons.join("; "));
            return Err(PassError::Rule { index: i + 1, message });
        }
    }
    Ok((graph.tidied()?, sums))
}

/// The nodes that a rule is about; of a constant those that take it.
fn found(graph: &Graph, rule: &Rule, index: usize) -> Result<Vec<NodeId>, PassError> {
    let users = graph.users();
    let mut out: Vec<usize> = Vec::new();
    for (target, _) in targets(graph, rule, index)? {
        match target {
            Target::Node(i) => out.push(i),
            Target::Constant(v) | Target::Input(v) => out.extend(users.get(&v).into_iter().flatten()),
        }
    }
    out.sort_unstable();
    out.dedup();
    Ok(out.into_iter().map(|i| graph.nodes()[i].id).collect())
}

fn op(name: &'static str, attrs: Attrs, graph: &Graph, inputs: &[ValueId]) -> Result<Arc<dyn Op>, OpError> {
    let types: Vec<_> = inputs.iter().map(|v| graph.value(*v).ty.clone()).collect();
    crate::ops::build(name, attrs, &types)
}

/// Takes one node apart: the additions that this made, or why it cannot be.
fn apart(graph: &mut Graph, id: NodeId) -> Result<Result<Vec<NodeId>, String>, PassError> {
    let index = graph.nodes().iter().position(|n| n.id == id).expect("a node of the graph");
    let node = graph.nodes()[index].clone();
    let refused = |error| PassError::Op { node: node.label(), error };
    match node.op.def().name {
        "Concat" => {
            let users = graph.users();
            let takers = users.get(&node.outputs[0]).cloned().unwrap_or_default();
            let takers: Vec<NodeId> = takers
                .into_iter()
                .map(|i| &graph.nodes()[i])
                .filter(|n| summed_axis(graph, n).is_some_and(|(x, _)| Some(x) == axis_of(graph, &node)))
                .filter(|n| n.inputs[0] == node.outputs[0])
                .map(|n| n.id)
                .collect();
            if takers.is_empty() {
                return Ok(Err("no product with constant weights sums over the axis that it joins".into()));
            }
            let mut sums = Vec::new();
            for taker in takers {
                sums.extend(product(graph, taker, &node).map_err(refused)?);
            }
            Ok(Ok(sums))
        }
        "Add" | "Sub" | "Mul" | "Div" => elementwise(graph, index).map(|r| r.map(|()| Vec::new())),
        _ => Ok(Err("it is no Concat, Add, Sub, Mul or Div".into())),
    }
}

fn axis_of(graph: &Graph, node: &Node) -> Option<usize> {
    let axis = node.op.attrs().0.into_iter().find(|(name, _)| *name == "axis")?.1;
    let AttrValue::Int(axis) = axis else { return None };
    crate::graph::attrs::normalize_axis(axis, graph.value(node.outputs[0]).ty.rank())
}

/// The axes of input 0 and of its constant weights that a product sums over.
fn summed_axis(graph: &Graph, node: &Node) -> Option<(usize, usize)> {
    let (x, w) = (node.inputs.first()?, node.inputs.get(1)?);
    let weights = graph.value(*w).constant.as_ref()?;
    let int = |name: &str| {
        let attrs = node.op.attrs().0;
        attrs
            .into_iter()
            .find_map(|(n, v)| if let (true, AttrValue::Int(i)) = (n == name, v) { Some(i) } else { None })
    };
    let rank = graph.value(*x).ty.rank();
    let (x, w) = match node.op.def().name {
        "MatMul" if weights.rank() == 2 => (rank - 1, 0),
        "Gemm" if int("transA").unwrap_or(0) == 0 => (1, usize::from(int("transB").unwrap_or(0) != 0)),
        "Conv" if int("group").unwrap_or(1) == 1 => (1, 1),
        _ => return None,
    };
    Some((x, w))
}

/// Parts of a constant along an axis.
fn cut(tensor: &Tensor, axis: usize, parts: &[usize]) -> Result<Vec<Tensor>, OpError> {
    let attrs = Attrs::new().int("axis", i64::try_from(axis).unwrap_or(i64::MAX)).sizes("split", parts);
    crate::ops::build("Split", attrs, &[tensor.ty()])?.eval(&Scratch::new(), std::slice::from_ref(tensor))
}

/// One product a part of the concatenation, each but the first with an addition of what came before behind it.
fn product(graph: &mut Graph, id: NodeId, concat: &Node) -> Result<Vec<NodeId>, OpError> {
    let at = |graph: &Graph, id: NodeId| graph.nodes().iter().position(|n| n.id == id).expect("it stays");
    let node = graph.node(id).expect("found before").clone();
    let (x_axis, w_axis) = summed_axis(graph, &node).expect("found before");
    let sizes: Vec<usize> =
        concat.inputs.iter().filter_map(|v| graph.value(*v).ty.shape[x_axis].fixed()).collect();
    let weights = graph.value(node.inputs[1]).clone();
    let parts = cut(weights.constant.as_ref().expect("found before"), w_axis, &sizes)?;
    let last = concat.inputs.len() - 1;
    let (mut before, mut sums) = (None, Vec::new());
    for (k, (x, w)) in concat.inputs.iter().zip(parts).enumerate() {
        let w = graph.new_constant(&format!("{}/part{k}", weights.name), w);
        let mut inputs = vec![*x, w];
        if k == last {
            // The bias stays with the node that had it.
            inputs.extend(&node.inputs[2..]);
            let i = at(graph, id);
            graph.set_inputs(i, inputs);
            graph.set_op(i, op(node.op.def().name, node.op.attrs(), graph, &graph.nodes()[i].inputs)?);
        } else {
            let i = at(graph, id);
            let made = op(node.op.def().name, node.op.attrs(), graph, &inputs)?;
            let name = graph.fresh_node(&format!("{}/part{k}", node.name));
            let out = graph.fresh_value(&format!("{}/part{k}", graph.value(node.outputs[0]).name));
            let y = graph.insert_node(i, &name, made, &inputs, &[out])?[0];
            before = Some(match before {
                None => y,
                Some(sum) => {
                    let add = op("Add", Attrs::new(), graph, &[y, sum])?;
                    let name = graph.fresh_node(&format!("{name}/sum"));
                    let out = graph.fresh_value(&format!("{}/sum", graph.value(y).name));
                    let sum = graph.insert_node(i + 1, &name, add, &[y, sum], &[out])?[0];
                    sums.push(graph.nodes()[i + 1].id);
                    sum
                }
            });
        }
    }
    let Some(before) = before else { return Ok(sums) };
    // Behind the bias of a matrix product, where that is an addition of its own. What is joined keeps its name.
    let users = graph.users();
    let mut end = at(graph, id);
    let y = graph.nodes()[end].outputs[0];
    if let Some([next]) = users.get(&y).map(Vec::as_slice)
        && is_bias(graph, &graph.nodes()[*next], y)
        && node.inputs.len() == 2
        && !graph.outputs.contains(&y)
    {
        end = *next;
    }
    let whole = graph.nodes()[end].outputs[0];
    let add = op("Add", Attrs::new(), graph, &[whole, before])?;
    let name = graph.fresh_node(&format!("{}/sum", node.name));
    let out = graph.fresh_value(&format!("{}/part{last}", graph.value(whole).name));
    let part = graph.insert_node(end + 1, &name, add, &[whole, before], &[out])?[0];
    graph.set_output(end, part);
    graph.set_output(end + 1, whole);
    graph.set_inputs(end + 1, vec![part, before]);
    sums.push(graph.nodes()[end + 1].id);
    Ok(sums)
}

/// Cuts a constant operand and the other one, and joins what comes of them.
fn elementwise(graph: &mut Graph, index: usize) -> Result<Result<(), String>, PassError> {
    let node = graph.nodes()[index].clone();
    let constants = node.inputs.iter().filter(|v| graph.value(**v).constant.is_some());
    let (Some(c), Some(x)) =
        (constants.clone().next(), node.inputs.iter().find(|v| graph.value(**v).constant.is_none()))
    else {
        return Ok(Err("no operand of it is constant".into()));
    };
    let (constant, y) = (graph.value(*c).clone(), graph.value(node.outputs[0]).clone());
    let tensor = constant.constant.as_ref().expect("found before");
    let varies: Vec<usize> = (0..tensor.rank()).filter(|a| tensor.shape()[*a] > 1).collect();
    let ([axis], Some(numbers)) = (varies.as_slice(), tensor.as_f32()) else {
        return Ok(Err(format!("{:?} does not vary along one axis alone", constant.name)));
    };
    // Axes count from the last one.
    let from_last = tensor.rank() - axis;
    let Some(x_axis) = graph.value(*x).ty.rank().checked_sub(from_last) else {
        return Ok(Err("its other operand does not have that axis".into()));
    };
    let parts = runs(numbers);
    if graph.value(*x).ty.shape[x_axis].fixed() != Some(numbers.len()) || y.ty.dtype != DType::F32 {
        return Ok(Err("its other operand is repeated along that axis".into()));
    }
    if parts.len() == 1 {
        return Ok(Err(format!("magnitudes in {:?} differ by no more than {SPAN}", constant.name)));
    }
    let mut build = || -> Result<(), OpError> {
        let along = |axis: usize| Attrs::new().int("axis", i64::try_from(axis).unwrap_or(i64::MAX));
        let (name, sliced) = (node.name.clone(), graph.value(*x).name.clone());
        let split = op("Split", along(x_axis).sizes("split", &parts), graph, &[*x])?;
        let names: Vec<String> =
            (0..parts.len()).map(|k| graph.fresh_value(&format!("{sliced}/{name}/part{k}"))).collect();
        let split_name = graph.fresh_node(&format!("{name}/split"));
        let xs = graph.insert_node(index, &split_name, split, &[*x], &names)?;
        let mut ys = Vec::new();
        for (k, (x_part, c_part)) in xs.iter().zip(cut(tensor, *axis, &parts)?).enumerate() {
            let c_part = graph.new_constant(&format!("{}/part{k}", constant.name), c_part);
            let inputs: Vec<ValueId> =
                node.inputs.iter().map(|v| if v == x { *x_part } else { c_part }).collect();
            let made = op(node.op.def().name, node.op.attrs(), graph, &inputs)?;
            let label = graph.fresh_node(&format!("{name}/part{k}"));
            let out = graph.fresh_value(&format!("{}/part{k}", y.name));
            ys.extend(graph.insert_node(index + 1 + k, &label, made, &inputs, &[out])?);
        }
        let at = index + 1 + parts.len();
        let axis = y.ty.rank() - from_last;
        graph.set_op(at, op("Concat", along(axis), graph, &ys)?);
        graph.set_inputs(at, ys);
        Ok(())
    };
    build().map_err(|error| PassError::Op { node: node.label(), error })?;
    Ok(Ok(()))
}

/// Lengths of the runs in which no magnitude exceeds another by more than [`SPAN`]; zeros go with any.
fn runs(numbers: &[f32]) -> Vec<usize> {
    let (mut out, mut low, mut high) = (vec![0], f32::INFINITY, 0.0f32);
    for x in numbers.iter().map(|x| x.abs()) {
        let (l, h) = if x == 0.0 { (low, high) } else { (low.min(x), high.max(x)) };
        if h > SPAN * l {
            out.push(0);
            (low, high) = (x, x);
        } else {
            (low, high) = (l, h);
        }
        *out.last_mut().expect("one at least") += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_magnitudes_that_are_near() {
        assert_eq!(runs(&[1.0, -16.0, 0.0, 17.0, 1.0]), [3, 1, 1]);
        assert_eq!(runs(&[0.0, 0.0]), [2]);
        assert_eq!(runs(&[0.0, 3.0, 0.1]), [2, 1]);
        let dim_t: Vec<f32> = (0..128).map(|k| 10000f32.powf((2 * (k / 2)) as f32 / 128.0)).collect();
        assert_eq!(runs(&dim_t).len(), 4);
    }
}
