//! What compiling decided about memory and kernels, as plain data.

use serde::{Deserialize, Serialize};

/// Where temporary tensors lie on a GPU at one batch, and what runs there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The batch.
    pub batch: usize,
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
    /// Arena, offset and bytes of each tensor, in the order in which steps first touch them.
    pub tensors: Vec<(usize, u64, u64)>,
    /// Kernels in the order in which they run.
    pub kernels: Vec<String>,
}
