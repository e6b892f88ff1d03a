//! Operators that are an epilogue of nothing: a clamp or a quantizer of one scale, of a tensor that lies in memory.

use crate::graph::Epilogue;
use crate::graph::epilogue::EpilogueParams;
use crate::graph::lower::{Dispatch, Kernel, Layout, Lowering, Operand, View, flat_grid, u32};

crate::params! {
    /// `Params` of `pointwise.wgsl`.
    struct Params { epilogue: EpilogueParams, n4: u32, c: u32, c4: u32 }
}

pub(super) static KERNEL: Kernel = crate::kernel!(
    "pointwise",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/bits.wgsl",
        "shared/quantize.wgsl",
        "shared/epilogue.wgsl",
        "pointwise.wgsl"
    ]
);

/// Applies `epilogue` to input 0, which lies as output 0 does.
pub(super) fn lower(x: &View, epilogue: Epilogue) -> Lowering {
    let n4 = x.place().len().div_ceil(4);
    let c = if x.layout == Layout::ChannelsLast { x.shape[1] } else { 0 };
    let params =
        Params { epilogue: EpilogueParams::default(), n4: u32(n4), c: u32(c), c4: u32(c.div_ceil(4)) };
    let dispatch = Dispatch::new(&KERNEL, &params, [Operand::Input(0), Operand::Output(0)], flat_grid(n4));
    Lowering::run([Dispatch { epilogue, ..dispatch }])
}
