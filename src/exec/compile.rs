//! From a graph on codes to what a deployment file holds.

use super::{ExecError, Plan};
use crate::gpu::Limits;
use crate::graph::{Graph, Placed, Stage};
use std::sync::Arc;

/// Chooses memory and kernels for one frame, within the limits that every device keeps, so that they hold on all. The
/// graph computes the same as before.
///
/// # Errors
/// A graph in whose plan something is beyond these limits.
pub fn compile(mut graph: Graph) -> Result<Graph, ExecError> {
    const BATCH: usize = 1;
    graph.placed = None;
    let plan = Plan::new(&graph.at_batch(BATCH)?, &[], &Limits::least())?;
    let kernels = plan.segments.iter().flat_map(|s| &s.steps).map(|s| s.kernel.name.to_owned()).collect();
    graph.placed =
        Some(Arc::new(Placed { batch: BATCH, arenas: plan.arenas, tensors: plan.tensors, kernels }));
    graph.stage = Stage::Compiled;
    Ok(graph)
}
