//! Convolution of codes on the device.

use super::window::{Window, three};
use super::{Conv, DEPTHWISE_PIXELS, TILE, window_params};
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, summable};
use crate::graph::{CodeParams, OpError};
use crate::ops::integer::device::{self, FinishParams, Finisher, fits_32, products};
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
    ($name:literal, $($sums:literal),+; $main:literal) => {
        crate::kernel!(
            $name,
            Params,
            [
                "shared/grid.wgsl",
                "shared/lanes.wgsl",
                "shared/wide.wgsl",
                "shared/requantize.wgsl",
                "shared/finish.wgsl",
                $($sums,)+
                "shared/window.wgsl",
                "shared/window_codes.wgsl",
                "shared/slide.wgsl",
                $main
            ]
        )
    };
}

pub(in crate::ops) static DENSE: Kernel = kernel!("conv_codes", "shared/sums_i32.wgsl"; "conv.wgsl");
pub(in crate::ops) static GROUPED: Kernel =
    kernel!("conv_codes_grouped", "shared/sums_i32.wgsl"; "conv_grouped.wgsl");
pub(in crate::ops) static DEPTHWISE: Kernel =
    kernel!("conv_codes_depthwise", "shared/sums_i32.wgsl"; "conv_depthwise.wgsl");
/// For sums of more than 32 bits, whatever the groups.
pub(in crate::ops) static WIDE: Kernel =
    kernel!("conv_codes_wide", "shared/sums_i64.wgsl"; "conv_grouped.wgsl");
/// Where pairs of products saturate, whatever the groups.
pub(in crate::ops) static PAIRS: Kernel =
    kernel!("conv_codes_pairs", "shared/sums_i64.wgsl", "shared/pairs.wgsl"; "conv_pairs.wgsl");

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
            &DENSE
        } else {
            &GROUPED
        }
    }

    pub(super) fn code_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        let dim = |axis: usize| inputs[1].shape[axis].fixed().unwrap_or(0);
        let depthwise = std::ptr::eq(self.code_kernel(params, dim(1), dim(0)), &DEPTHWISE);
        let mut layouts = vec![
            Layout::ChannelsLast,
            if depthwise { Layout::DepthwiseWeights } else { Layout::ConvWeights },
        ];
        layouts.resize(params.inputs.len(), Layout::Vector4);
        layouts.resize(inputs.len(), Layout::ChannelsLast);
        Layouts::Exact { inputs: layouts, outputs: vec![Layout::ChannelsLast] }
    }

    pub(super) fn lower_codes(&self, params: &CodeParams, io: &Io) -> Result<Lowering, OpError> {
        let (x, w, y) = (&io.inputs[0].shape, &io.inputs[1].shape, &io.outputs[0].shape);
        summable(w[1..].iter().product())?;
        let kernel = self.code_kernel(params, w[1], w[0]);
        let (pixels, o4) = (y[0] * three(y).iter().product::<usize>(), y[1].div_ceil(4));
        let invocations = if std::ptr::eq(kernel, &DENSE) {
            pixels.div_ceil(TILE.0) * y[1].div_ceil(TILE.1)
        } else if std::ptr::eq(kernel, &DEPTHWISE) {
            pixels.div_ceil(DEPTHWISE_PIXELS) * o4
        } else {
            pixels * o4
        };
        let bias = params.inputs.len() > 2;
        let of = Params::new(&self.window, x, y, w[1], w[0] / self.groups, bias);
        let finisher = Finisher::of_products(params)?;
        let dispatch = |finish, bind: &[Operand]| {
            Dispatch::new(kernel, &Params { finish, ..of }, bind, flat_grid(invocations))
        };
        if std::ptr::eq(kernel, &PAIRS) {
            return device::pairs(params, y[1], finisher, dispatch);
        }
        let wide = std::ptr::eq(kernel, &WIDE);
        Ok(products(params, &io.inputs[1], finisher, wide, dispatch))
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
