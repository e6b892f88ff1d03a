//! Convolution of codes on the device.

use super::window::{Window, three};
use super::{Conv, DEPTHWISE_PIXELS, TILE, window_params};
use crate::graph::lower::{
    Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, View, flat_grid, summable, u32,
};
use crate::graph::{CodeParams, OpError};
use crate::ops::integer::device::{self, FinishParams, Finisher, bound, fits_32, products};
use crate::ops::integer::pairs;
use crate::quant::QParams;
use crate::tensor::{DType, TensorType};

crate::params! {
    /// `Params` of `shared/window_codes.wgsl`.
    struct Params {
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

crate::params! {
    /// `Params` of `fold.wgsl`.
    pub(in crate::ops) struct FoldParams { n: u32, o_padded: u32, bias: u32, zero: i32 }
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
/// The bias of [`DOTS`].
pub(in crate::ops) static FOLD: Kernel =
    crate::kernel!("fold", FoldParams, ["shared/grid.wgsl", "fold.wgsl"]);
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
            let x = params.inputs[0].as_ref().map(QParams::dtype);
            if packs(x) && weights_pack(params) { &DOTS } else { &DENSE }
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
        let dispatch = |finish, bind: &[Operand]| {
            let of = Params { finish, ..of };
            Dispatch::new(kernel, &of, bind, flat_grid(invocations))
                .with("X_FORM", io.inputs[0].form())
                .with("ADDEND_FORM", addend)
                .with("Y_FORM", io.outputs[0].form())
        };
        if is(&DOTS) {
            return folded(params, io, finisher, |finish, bind, bias| Dispatch {
                params: bytemuck::bytes_of(&Params { finish, bias, ..of }).to_vec(),
                ..dispatch(finish, bind)
            });
        }
        let dispatch = |finish, bind: &[Operand]| dispatch(finish, bind).with("W_FORM", io.inputs[1].form());
        if is(&PAIRS) {
            return device::pairs(params, y[1], finisher, dispatch);
        }
        Ok(products(params, &io.inputs[1], finisher, is(&WIDE), dispatch))
    }
}

/// Whether channels-last codes of a type are packed.
fn packs(dtype: Option<DType>) -> bool {
    dtype.is_some_and(|d| Layout::channels_last(d).packed().is_some())
}

/// Whether steps of weights are their codes, and fit a byte with a sign.
fn weights_pack(params: &CodeParams) -> bool {
    let w = params.inputs.get(1).and_then(Option::as_ref);
    w.is_some_and(|p| {
        p.dtype() != DType::U8 && packs(Some(p.dtype())) && p.zero_points().iter().all(|z| *z == 0)
    })
}

/// Products of packed codes, which are not steps: what the zero point of x adds is taken off the bias before. `make` gets
/// what is bound, and whether there is a bias.
fn folded(
    params: &CodeParams,
    io: &Io,
    finisher: Finisher,
    make: impl FnOnce(FinishParams, &[Operand], u32) -> Dispatch,
) -> Result<Lowering, OpError> {
    let (mut dispatches, mut temps) = (Vec::new(), Vec::new());
    let mut bind = bound(params, Operand::Input(1));
    let mut bias = u32::from(params.inputs.len() > 2);
    // Codes without a sign are taken less 128.
    let zero = params.input(0)?.zero_point() - if io.inputs[0].form() == 1 { 128 } else { 0 };
    if zero != 0 {
        let w = &io.inputs[1];
        let o = w.shape[0].next_multiple_of(4);
        let n = w.place().len() / 4;
        let of = FoldParams { n: u32(n), o_padded: u32(o), bias, zero };
        let b = if bias == 1 { bind[2] } else { bind[1] };
        dispatches.push(Dispatch::new(&FOLD, &of, [bind[1], b, Operand::Temp(0)], flat_grid(o)));
        temps.push(o as u64 * 4);
        (bind[2], bias) = (Operand::Temp(0), 1);
    }
    let finisher = finisher.of_32_bits();
    dispatches.push(finisher.told(make(finisher.params, &bind, bias)));
    Ok(Lowering::Run { dispatches, temps, tables: vec![finisher.table] })
}

impl Params {
    fn new(window: &Window, x: &[usize], y: &[usize], cg: usize, og: usize, bias: bool) -> Params {
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
