//! Convolution of codes on the device.

use super::window::{Window, three};
use super::{Conv, DEPTHWISE_PIXELS, TILE, window_params};
use crate::graph::lower::{
    Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, View, flat_grid, summable,
};
use crate::graph::{CodeParams, OpError};
use crate::ops::integer::device::{
    self, FinishParams, Finisher, Packed, dots, fits_32, folded, products, weights_pack,
};
use crate::ops::integer::pairs;
use crate::tensor::TensorType;

crate::params! {
    /// `Params` of `shared/window_codes.wgsl`.
    pub(in crate::ops) struct Params {
        finish: FinishParams,
        input: [u32; 4],
        output: [u32; 4],
        kernel: [u32; 4],
        stride: [u32; 4],
        dilation: [u32; 4],
        pad: [u32; 4],
        pixels: u32,
        o: u32,
        cg: u32,
        og: u32,
        bias: u32,
    }
}

macro_rules! kernel {
    ($name:literal, $($sums:literal),+; $($main:literal),+) => {
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
                $($sums,)+
                "shared/window.wgsl",
                "shared/window_finish.wgsl",
                "shared/slide.wgsl",
                $($main),+
            ]
        )
    };
}

/// Packed codes, four products at a time.
pub(in crate::ops) static DOTS: Kernel = kernel!(
    "conv_codes_packed", "shared/sums_i32.wgsl";
    "shared/window_packed.wgsl", "shared/tile_dots.wgsl", "conv.wgsl"
);
pub(in crate::ops) static DENSE: Kernel = kernel!(
    "conv_codes", "shared/sums_i32.wgsl";
    "shared/window_codes.wgsl", "shared/tile_rows.wgsl", "conv.wgsl"
);
pub(in crate::ops) static GROUPED: Kernel =
    kernel!("conv_codes_grouped", "shared/sums_i32.wgsl"; "shared/window_codes.wgsl", "conv_grouped.wgsl");
pub(in crate::ops) static DEPTHWISE: Kernel = kernel!("conv_codes_depthwise", "shared/sums_i32.wgsl"; "shared/window_codes.wgsl", "conv_depthwise.wgsl");
/// For sums of more than 32 bits, whatever the groups.
pub(in crate::ops) static WIDE: Kernel =
    kernel!("conv_codes_wide", "shared/sums_i64.wgsl"; "shared/window_codes.wgsl", "conv_grouped.wgsl");
/// Where pairs of products saturate, whatever the groups.
pub(in crate::ops) static PAIRS: Kernel = kernel!("conv_codes_pairs", "shared/sums_i64.wgsl", "shared/pairs.wgsl"; "shared/window_codes.wgsl", "conv_pairs.wgsl");

impl Conv {
    fn code_kernel(&self, params: &CodeParams, c_group: usize, o: usize) -> &'static Kernel {
        if pairs::saturate(params) {
            return &PAIRS;
        }
        if !fits_32(params) {
            return &WIDE;
        }
        let of_numbers = self.kernel(c_group, o);
        if std::ptr::eq(of_numbers, &super::DEPTHWISE) {
            &DEPTHWISE
        } else if std::ptr::eq(of_numbers, &super::DENSE) {
            if dots(params) { &DOTS } else { &DENSE }
        } else {
            &GROUPED
        }
    }

    pub(super) fn code_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        let dim = |axis: usize| inputs[1].shape[axis].fixed().unwrap_or(0);
        let kernel = self.code_kernel(params, dim(1), dim(0));
        let weights = match (std::ptr::eq(kernel, &DEPTHWISE), weights_pack(params)) {
            (true, true) => Layout::PackedDepthwiseWeights,
            (true, false) => Layout::DepthwiseWeights,
            _ if std::ptr::eq(kernel, &DOTS) => Layout::PackedConvWeights,
            _ => Layout::ConvWeights,
        };
        let mut layouts = vec![Layout::channels_last(inputs[0].dtype), weights];
        layouts.resize(params.inputs.len(), Layout::Vector4);
        layouts
            .extend(inputs[params.inputs.len()..].iter().map(|addend| Layout::channels_last(addend.dtype)));
        let y = Layout::channels_last(params.output.dtype());
        Layouts::Exact { inputs: layouts, outputs: vec![y] }
    }

    pub(super) fn lower_codes(&self, params: &CodeParams, io: &Io) -> Result<Lowering, OpError> {
        let (x, w, y) = (&io.inputs[0].shape, &io.inputs[1].shape, &io.outputs[0].shape);
        summable(w[1..].iter().product())?;
        let kernel = self.code_kernel(params, w[1], w[0]);
        let is = |one: &'static Kernel| std::ptr::eq(kernel, one);
        let (pixels, o4) = (y[0] * three(y).iter().product::<usize>(), y[1].div_ceil(4));
        let invocations = if is(&DENSE) || is(&DOTS) {
            pixels.div_ceil(TILE.0) * y[1].div_ceil(TILE.1)
        } else if is(&DEPTHWISE) {
            pixels.div_ceil(DEPTHWISE_PIXELS) * o4
        } else {
            pixels * o4
        };
        let bias = params.inputs.len() > 2;
        let of = Params::new(&self.window, x, y, w[1], w[0] / self.groups, bias);
        let finisher = Finisher::of_products(params)?;
        let addend = io.inputs.get(params.inputs.len()).map_or(0, View::form);
        let dispatch = |finish, bind: &[Operand], bias: u32| {
            Dispatch::new(kernel, &Params { finish, bias, ..of }, bind, flat_grid(invocations))
                .with("ADDEND_FORM", addend)
                .with("Y_FORM", io.outputs[0].form())
        };
        if is(&DOTS) {
            let channels = y[1].next_multiple_of(4);
            let count = io.inputs[1].words().iter().product::<usize>() / channels;
            let weights = Packed { channels, count, o_step: 1, step: channels };
            return folded(params, io, weights, finisher, |finish, bind, folds| {
                dispatch(finish, bind, u32::from(bias || folds))
            });
        }
        let dispatch = |finish, bind: &[Operand]| {
            let dispatch = dispatch(finish, bind, u32::from(bias));
            dispatch.with("X_FORM", io.inputs[0].form()).with("W_FORM", io.inputs[1].form())
        };
        if is(&PAIRS) {
            return device::pairs(params, y[1], finisher, dispatch);
        }
        Ok(products(params, &io.inputs[1], finisher, is(&WIDE), dispatch))
    }
}

impl Params {
    pub(in crate::ops) fn new(
        window: &Window,
        x: &[usize],
        y: &[usize],
        cg: usize,
        og: usize,
        bias: bool,
    ) -> Params {
        let p = window_params(window, x, y, cg, og, bias);
        Params {
            finish: FinishParams::default(),
            input: p.input,
            output: p.output,
            kernel: p.kernel,
            stride: p.stride,
            dilation: p.dilation,
            pad: p.pad,
            pixels: p.pixels,
            o: p.o,
            cg: p.cg,
            og: p.og,
            bias: p.bias,
        }
    }
}
