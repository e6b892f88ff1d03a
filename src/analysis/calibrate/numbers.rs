//! Whether what is calibrated on are numbers.

use crate::data::Batch;
use crate::error::Error;
use crate::exec::Engine;
use crate::graph::ValueId;
use crate::observers::FrameStats;
use crate::tensor::{DType, Tensor};

/// Stops at the first frame with a number that is none, and finds the node that made it.
///
/// # Errors
/// That frame and node, or a failed run.
pub(super) fn check(
    engine: &mut Engine,
    batch: &Batch,
    values: &[ValueId],
    frames: &[Vec<FrameStats>],
) -> Result<(), Error> {
    let bad = |f: &FrameStats| f.nans + f.infinities > 0;
    let first = frames.iter().filter_map(|of_value| of_value.iter().position(bad)).min();
    let Some(frame) = first.filter(|f| *f < batch.frames()) else { return Ok(()) };
    let graph = engine.graph().clone();
    // The watched tensors skip what lies inside groups: the frame once more, with every tensor looked at.
    let all: Vec<ValueId> = graph.nodes().iter().flat_map(|n| n.outputs.iter().copied()).collect();
    let all: Vec<ValueId> = all.into_iter().filter(|v| graph.value(*v).ty.dtype == DType::F32).collect();
    let trace = engine.run(&batch.inputs, &all)?;
    let numbers = |t: &Tensor| {
        let rows = batch.inputs.first().map_or(1, |i| i.shape().first().copied().unwrap_or(1));
        let per_frame = t.shape().first() == Some(&rows);
        let len = if per_frame { t.len() / rows.max(1) } else { t.len() };
        let x = t.f32s();
        let x = if per_frame { &x[frame * len..(frame + 1) * len] } else { x };
        let nans = x.iter().filter(|v| v.is_nan()).count();
        (nans, x.iter().filter(|v| v.is_infinite()).count())
    };
    let id = batch.ids.get(frame).map_or("", String::as_str);
    let inputs = graph.inputs.iter().zip(&batch.inputs).filter(|(_, t)| t.dtype() == DType::F32);
    for (v, t) in inputs {
        let (nans, infinities) = numbers(t);
        if nans + infinities > 0 {
            return Err(Error::Usage(format!(
                "frame {id:?}: input {:?} holds {nans} NaN and {infinities} infinite numbers: look at the data and its preprocessing",
                graph.value(*v).name
            )));
        }
    }
    for node in graph.nodes() {
        for v in node.outputs.iter().filter(|v| trace.values.contains_key(v)) {
            let (nans, infinities) = numbers(&trace.values[v]);
            if nans + infinities > 0 {
                let mask = if nans == 0 && trace.values[v].f32s().iter().all(|x| *x < f32::INFINITY) {
                    " (a mask of -inf? Export it with a large negative number, such as -1e9)"
                } else {
                    ""
                };
                return Err(Error::Usage(format!(
                    "frame {id:?}: node {} {} is the first to make numbers that are none: {nans} NaN and {infinities} infinite in {:?}{mask}; nothing can be calibrated on them",
                    node.id,
                    node.label(),
                    graph.value(*v).name
                )));
            }
        }
    }
    let which = frames.iter().position(|f| f.get(frame).is_some_and(bad)).map_or(values[0], |i| values[i]);
    Err(Error::Usage(format!("frame {id:?}: {:?} holds NaN or infinity", graph.value(which).name)))
}
