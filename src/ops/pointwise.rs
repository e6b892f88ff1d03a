//! Operators that are an epilogue of nothing: a clamp or a quantizer of one scale, of a tensor that lies in memory.

use crate::graph::Epilogue;
use crate::graph::epilogue::EpilogueParams;
use crate::graph::lower::{Dispatch, Kernel, Lowering, Operand, View, flat_grid};

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
        "shared/nan_count.wgsl",
        "shared/epilogue.wgsl",
        "pointwise.wgsl"
    ]
);

/// Applies `epilogue` to input 0, which lies as output 0 does.
pub(super) fn lower(x: &View, epilogue: Epilogue) -> Lowering {
    let [n4, c, c4] = x.groups();
    let params = Params { epilogue: EpilogueParams::default(), n4, c, c4 };
    let bind = [Operand::Input(0), Operand::Output(0)];
    let dispatch = Dispatch::new(&KERNEL, &params, bind, flat_grid(n4 as usize));
    Lowering::run([Dispatch { epilogue, ..dispatch }])
}
