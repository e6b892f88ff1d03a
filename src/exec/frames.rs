//! Where a tensor's frames are, and whether a graph keeps them apart.

use crate::graph::lower::{Io, Layout, Lowering, View};
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::{Dim, Tensor, TensorType};

/// The axis along which frames lie, with k of k*N.
pub(crate) fn batch_axis(ty: &TensorType) -> Option<(usize, usize)> {
    ty.shape.iter().enumerate().find_map(|(axis, d)| match d {
        Dim::Batch(k) => Some((axis, *k)),
        Dim::Fixed(_) => None,
    })
}

/// Elements before the frame axis: how many runs of one frame's elements there are.
fn outer(ty: &TensorType, axis: usize) -> usize {
    ty.shape[..axis].iter().filter_map(|d| d.fixed()).product()
}

/// Whether frame i of every value comes from frame i of the inputs as far as types tell: no value has two axes of
/// frames, none loses its axis, and the frames stay in order where their count changes.
pub(super) fn is_separable(graph: &Graph) -> bool {
    let two = |ty: &TensorType| ty.shape.iter().filter(|d| matches!(d, Dim::Batch(_))).count() > 1;
    let Ok(sample) = graph.at_batch(2) else { return false };
    !graph.values().iter().any(|v| two(&v.ty))
        && graph
            .nodes()
            .iter()
            .zip(sample.nodes())
            .all(|(node, concrete)| keeps_frames(graph, &sample, node, concrete))
}

fn keeps_frames(graph: &Graph, sample: &Graph, node: &Node, concrete: &Node) -> bool {
    let types =
        |list: &[ValueId]| -> Vec<TensorType> { list.iter().map(|v| graph.value(*v).ty.clone()).collect() };
    let (ins, outs) = (types(&node.inputs), types(&node.outputs));
    let batched: Vec<(&TensorType, (usize, usize))> =
        ins.iter().filter_map(|t| Some((t, batch_axis(t)?))).collect();
    let Some((x, (x_axis, k))) = batched.first() else {
        // From fixed values only: broadcast to the batch, so that all rows are equal.
        return true;
    };
    let Some(rows) = outs.iter().map(batch_axis).collect::<Option<Vec<_>>>() else { return false };
    let same_k = batched.iter().all(|(_, (_, j))| j == k) && rows.iter().all(|(_, j)| j == k);
    let view = |v: &ValueId| {
        let ty = &sample.value(*v).ty;
        View { dtype: ty.dtype, shape: ty.dims().unwrap_or_default(), layout: Layout::Linear }
    };
    let io = Io {
        inputs: concrete.inputs.iter().map(view).collect(),
        outputs: concrete.outputs.iter().map(view).collect(),
    };
    if matches!(concrete.op.lower(&io), Ok(Lowering::Alias)) {
        // The same elements in the same order: frames stay together where as many elements lie before them.
        return outs.iter().zip(&rows).all(|(t, (axis, _))| outer(t, *axis) == outer(x, *x_axis));
    }
    same_k
}

/// Rows `from..from + count` along an axis.
pub(crate) fn rows(t: &Tensor, axis: usize, from: usize, count: usize) -> Tensor {
    let inner: usize = t.shape()[axis + 1..].iter().product::<usize>() * t.dtype().size_bytes();
    let len = t.shape()[axis] * inner;
    let mut shape = t.shape().to_vec();
    shape[axis] = count;
    let mut bytes = Vec::new();
    if len > 0 {
        for run in t.bytes().chunks_exact(len) {
            bytes.extend_from_slice(&run[from * inner..(from + count) * inner]);
        }
    }
    Tensor::from_bytes(t.dtype(), &shape, &bytes).expect("rows of a tensor are a tensor")
}

/// Tensors one after the other along an axis.
pub(crate) fn concatenate(parts: &[Tensor], axis: usize) -> Tensor {
    let first = &parts[0];
    let mut shape = first.shape().to_vec();
    shape[axis] = parts.iter().map(|t| t.shape()[axis]).sum();
    let inner: usize = first.shape()[axis + 1..].iter().product::<usize>() * first.dtype().size_bytes();
    let runs: usize = first.shape()[..axis].iter().product();
    let mut bytes = Vec::with_capacity(parts.iter().map(|t| t.bytes().len()).sum());
    for run in 0..runs {
        for t in parts {
            let len = t.shape()[axis] * inner;
            bytes.extend_from_slice(&t.bytes()[run * len..(run + 1) * len]);
        }
    }
    Tensor::from_bytes(first.dtype(), &shape, &bytes).expect("parts of one type join")
}
