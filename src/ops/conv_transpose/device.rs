//! Transposed convolution of codes on the device.

use super::ConvTranspose;
use crate::graph::lower::{
    Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, View, flat_grid, summable,
};
use crate::graph::{CodeParams, OpError};
use crate::ops::conv::TILE;
use crate::ops::conv::codes::Params;
use crate::ops::integer::device::{Finisher, fits_32, products};
use crate::ops::integer::pairs::saturate;
use crate::tensor::TensorType;

macro_rules! kernel {
    ($name:literal, $sums:literal, $($main:literal),+) => {
        crate::kernel!(
            $name,
            Params,
            [
                "shared/grid.wgsl",
                "shared/lanes.wgsl",
                "shared/codes.wgsl",
                "shared/store_codes.wgsl",
                "shared/wide.wgsl",
                "shared/requantize.wgsl",
                "shared/finish.wgsl",
                $sums,
                "shared/window.wgsl",
                "shared/window_finish.wgsl",
                "shared/window_codes.wgsl",
                "shared/slide_back.wgsl",
                $($main),+
            ]
        )
    };
}

pub(in crate::ops) static DENSE: Kernel =
    kernel!("conv_transpose_codes", "shared/sums_i32.wgsl", "shared/tile_rows.wgsl", "conv.wgsl");
pub(in crate::ops) static GROUPED: Kernel =
    kernel!("conv_transpose_codes_grouped", "shared/sums_i32.wgsl", "conv_transpose_grouped.wgsl");
/// For sums of more than 32 bits, whatever the groups.
pub(in crate::ops) static WIDE: Kernel =
    kernel!("conv_transpose_codes_wide", "shared/sums_i64.wgsl", "conv_transpose_grouped.wgsl");

impl ConvTranspose {
    pub(super) fn code_layouts(params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        let mut layouts = vec![Layout::channels_last(inputs[0].dtype), Layout::ConvTransposeWeights];
        layouts.resize(params.inputs.len(), Layout::Vector4);
        layouts
            .extend(inputs[params.inputs.len()..].iter().map(|addend| Layout::channels_last(addend.dtype)));
        Layouts::Exact { inputs: layouts, outputs: vec![Layout::channels_last(params.output.dtype())] }
    }

    pub(super) fn lower_codes(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        if saturate(params) {
            return Ok(None);
        }
        let (x, w, y) = (&io.inputs[0].shape, &io.inputs[1].shape, &io.outputs[0].shape);
        let cg = x[1] / self.groups;
        summable(cg * w[2..].iter().product::<usize>())?;
        let of = Params::new(&self.window, x, y, cg, w[1], params.inputs.len() > 2);
        let pixels = of.pixels as usize;
        let wide = !fits_32(params);
        let (kernel, invocations) = match (wide, self.groups) {
            (true, _) => (&WIDE, pixels * y[1].div_ceil(4)),
            (false, 1) => (&DENSE, pixels.div_ceil(TILE.0) * y[1].div_ceil(TILE.1)),
            (false, _) => (&GROUPED, pixels * y[1].div_ceil(4)),
        };
        let finisher = Finisher::of_products(&self.per_channel(params)?)?;
        let dispatch = |finish, bind: &[Operand]| {
            Dispatch::new(kernel, &Params { finish, ..of }, bind, flat_grid(invocations))
                .with("X_FORM", io.inputs[0].form())
                .with("ADDEND_FORM", io.inputs.get(params.inputs.len()).map_or(0, View::form))
                .with("Y_FORM", io.outputs[0].form())
        };
        Ok(Some(products(params, &io.inputs[1], finisher, wide, dispatch)))
    }
}
