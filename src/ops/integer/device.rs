//! What kernels on codes share: the words of factors that `shared/requantize.wgsl` reads, the parameters of
//! `shared/finish.wgsl`, and steps of weights whose zero points are not zero.

use super::sums::Ending;
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Lowering, Operand, View, axes, flat_grid, u32};
use crate::graph::{CodeOutput, CodeParams, OpError};
use crate::quant::{Accumulator, Factor, QParams, Requantize, Rounding};
use crate::tensor::DType;

/// `Finish` of `shared/finish.wgsl`, a field `finish` of the `Params` of kernels on codes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(in crate::ops) struct FinishParams {
    x_zero: i32,
    y_zero: i32,
    addend_zero: i32,
    low: i32,
    high: i32,
    step: u32,
    pad0: u32,
    pad1: u32,
}

/// Numbers of `MODE` in `shared/requantize.wgsl` beside those of [`Requantize::ALL`].
const QUOTIENT: u32 = 5;
const ADDED: u32 = 6;
const SUMS: u32 = 7;
const REAL: u32 = 8;
pub(in crate::ops) const MEAN_IN_F32: u32 = 9;

/// A multiplier, a shift as the bits of an `i32`, and the multiplier of an addend.
type Words = [u32; 3];

/// The number of a mode.
pub(in crate::ops) fn mode(mode: Requantize) -> u32 {
    u32(Requantize::ALL.iter().position(|m| *m == mode).unwrap_or(0))
}

/// The number of a rounding.
fn rounding(rounding: Rounding) -> u32 {
    u32(Rounding::ALL.iter().position(|r| *r == rounding).unwrap_or(0))
}

/// A factor's mode and words.
pub(in crate::ops) fn words(factor: Factor) -> (u32, Words) {
    let of = |m: u32, by: i32| [m, by.cast_unsigned(), 0];
    match factor {
        Factor::Fixed(m, _) => (mode(Requantize::Fixed), of(m.m, m.shift)),
        Factor::Doubling(m, false) => (mode(Requantize::DoublingAway), of(m.m, m.shift)),
        Factor::Doubling(m, true) => (mode(Requantize::DoublingUp), of(m.m, m.shift)),
        Factor::Float(m) => (mode(Requantize::Float), of(m.to_bits(), 0)),
        // One rounding, like the first.
        Factor::Shift(by, _) => (mode(Requantize::Fixed), of(1, by)),
        Factor::Quotient(left, n, _) => {
            // An odd divisor of at most 31 bits: others are this one and a power of two.
            let right = n.trailing_zeros();
            let odd = n >> right;
            (QUOTIENT, of(u32(usize::try_from(odd).unwrap_or(0)), right.cast_signed() - left.cast_signed()))
        }
    }
}

/// A factor of four channels that are the same.
pub(in crate::ops) fn four(w: Words) -> impl Iterator<Item = u32> {
    w.into_iter().flat_map(|w| [w; 4])
}

/// What becomes of the integers that a kernel computes.
#[derive(Debug)]
pub(in crate::ops) struct Finisher {
    pub params: FinishParams,
    pub table: Vec<u32>,
    overrides: [(&'static str, u32); 2],
    /// Whether one rounding shift by 33 bits or more follows each product.
    far: bool,
}

impl Finisher {
    fn new(params: &CodeParams, mode: u32, table: Vec<u32>, several: bool) -> Result<Finisher, OpError> {
        let zero = |p: &QParams| p.zero_points()[0];
        let mut p = FinishParams {
            x_zero: params.input(0)?.zero_point(),
            addend_zero: params.addend.as_ref().map_or(0, zero),
            step: u32::from(several),
            ..FinishParams::default()
        };
        if matches!(params.output, CodeOutput::Codes { .. }) {
            let y = params.output()?;
            (p.y_zero, (p.low, p.high)) = (y.zero_point(), y.codes());
        }
        let overrides = [("MODE", mode), ("ROUNDING", rounding(params.arithmetic.rounding))];
        Ok(Finisher { params: p, table, overrides, far: false })
    }

    /// For sums of products: each channel with its factor.
    pub(in crate::ops) fn of_products(params: &CodeParams) -> Result<Finisher, OpError> {
        let (mode, words): (u32, Vec<Words>) = match Ending::new(params)? {
            Ending::Codes(r) => {
                let each: Vec<(u32, Words)> = r.factors().iter().map(|f| words(*f)).collect();
                (each.first().map_or(0, |e| e.0), each.into_iter().map(|e| e.1).collect())
            }
            Ending::Added { adder, .. } => {
                let word = |m: i64| u32(usize::try_from(m).unwrap_or(0));
                let pairs = adder.pairs().iter();
                let each = pairs.map(|p| [word(p.m[0]), p.shift.cast_unsigned(), word(p.m[1])]);
                (ADDED, each.collect())
            }
            Ending::Sums => (SUMS, vec![[0; 3]]),
            Ending::Real(scales) => (REAL, scales.iter().map(|s| [s.to_bits(), 0, 0]).collect()),
        };
        if let [one] = words.as_slice() {
            return Finisher::new(params, mode, four(*one).collect(), false);
        }
        // Lanes beyond the last channel have its words; what they give is not kept.
        let last = words.last().copied().unwrap_or_default();
        let lane = |quad: &[Words], l: usize, k: usize| quad.get(l).unwrap_or(&last)[k];
        let quad = |quad: &[Words]| -> Vec<u32> {
            (0..3).flat_map(|k| (0..4).map(move |l| (l, k))).map(|(l, k)| lane(quad, l, k)).collect()
        };
        Finisher::new(params, mode, words.chunks(4).flat_map(quad).collect(), true)
    }

    /// For integers of which each is multiplied by one of several factors of one mode.
    pub(in crate::ops) fn of_factors(params: &CodeParams, factors: &[Factor]) -> Result<Finisher, OpError> {
        let mode = factors.first().map_or(0, |f| words(*f).0);
        let table = factors.iter().flat_map(|f| four(words(*f).1)).collect();
        Finisher::new(params, mode, table, factors.len() > 1)
    }

    /// For integers that become numbers by one of several scales.
    pub(in crate::ops) fn of_scales(params: &CodeParams, scales: &[f32]) -> Result<Finisher, OpError> {
        let table = scales.iter().flat_map(|s| four([s.to_bits(), 0, 0])).collect();
        Finisher::new(params, REAL, table, scales.len() > 1)
    }

    /// For a kernel that reads words of its own.
    pub(in crate::ops) fn of_words(
        params: &CodeParams,
        mode: u32,
        table: Vec<u32>,
    ) -> Result<Finisher, OpError> {
        Finisher::new(params, mode, table, false)
    }

    /// The same for a kernel whose integers have 32 bits.
    pub(in crate::ops) fn of_32_bits(mut self) -> Finisher {
        let mut shifts = self.table.chunks(12).flat_map(|f| &f[4..8]).map(|by| by.cast_signed());
        self.far = self.overrides[0].1 == mode(Requantize::Fixed) && shifts.all(|by| (33..=63).contains(&by));
        self
    }

    /// A dispatch with what its kernel needs to be told.
    pub(in crate::ops) fn told(&self, mut dispatch: Dispatch) -> Dispatch {
        dispatch.overrides.extend(self.overrides);
        if self.far {
            dispatch.overrides.push(("FAR", 1));
        }
        dispatch
    }

    /// The one dispatch of a kernel, with its factors as table 0.
    pub(in crate::ops) fn run(self, dispatch: Dispatch) -> Lowering {
        let dispatches = vec![self.told(dispatch)];
        Lowering::Run { dispatches, temps: Vec::new(), tables: vec![self.table] }
    }
}

/// Whether kernels compute with codes of these parameters: steps and codes are far from the ends of 32 bits.
pub(super) fn has_kernel(params: &CodeParams) -> bool {
    let inputs = params.inputs.iter().flatten().chain(&params.addend).chain(params.output.params());
    inputs.into_iter().all(|p| p.dtype() != DType::I32)
}

/// Whether 32 bits hold all sums of products.
pub(in crate::ops) fn fits_32(params: &CodeParams) -> bool {
    params.bound <= i32::MAX.unsigned_abs().into()
}

crate::params! {
    /// `Params` of `steps.wgsl`.
    pub(in crate::ops) struct StepsParams {
        n: u32,
        rank: u32,
        axis: u32,
        pad: u32,
        dims: [u32; 8],
        lens: [u32; 8],
    }
}

pub(super) static STEPS: Kernel = crate::kernel!("steps", StepsParams, ["shared/grid.wgsl", "steps.wgsl"]);

/// Products on codes: the dispatch of their kernel, behind one that brings weights to a zero point of 0 where they have
/// another.
pub(in crate::ops) fn products(
    params: &CodeParams,
    weights: &View,
    finisher: Finisher,
    wide: bool,
    make: impl FnOnce(FinishParams, &[Operand]) -> Dispatch,
) -> Lowering {
    let (mut dispatches, mut temps, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    let mut w = Operand::Input(1);
    if let Some(p) = params.inputs.get(1).and_then(Option::as_ref)
        && p.zero_points().iter().any(|z| *z != 0)
    {
        let place = weights.place();
        let lens: Vec<usize> = place.order.iter().map(|a| weights.shape[*a]).collect();
        let axis = p.axis().and_then(|a| place.order.iter().position(|o| *o == a));
        let of = StepsParams {
            n: u32(place.len()),
            rank: u32(lens.len()),
            axis: u32(axis.unwrap_or(lens.len())),
            pad: 0,
            dims: axes(&place.dims, 1),
            lens: axes(&lens, 1),
        };
        w = Operand::Temp(0);
        let bind = [Operand::Input(1), Operand::Table(1), w];
        dispatches.push(Dispatch::new(&STEPS, &of, bind, flat_grid(place.len())));
        temps.push(weights.size_bytes());
        tables.push(p.zero_points().iter().map(|z| z.cast_unsigned()).collect());
    }
    let bind = bound(params, w);
    let finisher = if wide { finisher } else { finisher.of_32_bits() };
    let mut dispatch = finisher.told(make(finisher.params, &bind));
    if wide {
        let saturates = params.arithmetic.accumulator == Accumulator::Saturating32;
        dispatch.overrides.push(("SATURATE", u32::from(saturates)));
    }
    dispatches.push(dispatch);
    tables.insert(0, finisher.table);
    Lowering::Run { dispatches, temps, tables }
}

/// Whether four codes of a type lie in a word.
fn packs(p: Option<&QParams>) -> bool {
    p.is_some_and(|p| Layout::channels_last(p.dtype()).packed().is_some())
}

/// Whether steps of weights are their codes, and fit a byte with a sign.
pub(in crate::ops) fn weights_pack(params: &CodeParams) -> bool {
    let w = params.inputs.get(1).and_then(Option::as_ref);
    packs(w) && w.is_some_and(|p| p.dtype() != DType::U8 && p.zero_points().iter().all(|z| *z == 0))
}

/// Whether products are formed of packed codes, four at a time.
pub(in crate::ops) fn dots(params: &CodeParams) -> bool {
    packs(params.inputs[0].as_ref())
        && weights_pack(params)
        && fits_32(params)
        && !super::pairs::saturate(params)
}

crate::params! {
    /// `Params` of `fold.wgsl`.
    pub(in crate::ops) struct FoldParams {
        channels: u32, count: u32, o_step: u32, step: u32, bias: u32, b_step: u32, zero: i32
    }
}

/// The bias of products of packed codes.
pub(super) static FOLD: Kernel = crate::kernel!("fold", FoldParams, ["shared/grid.wgsl", "fold.wgsl"]);

/// Where packed weights lie: output channels, words of each, and steps from one channel and from one word to the next.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Packed {
    pub channels: usize,
    pub count: usize,
    pub o_step: usize,
    pub step: usize,
}

/// The zero point of codes that dots are formed of: those without a sign are taken less 128.
pub(in crate::ops) fn offset(params: &CodeParams) -> Result<i32, OpError> {
    let x = params.inputs[0].as_ref().map(QParams::dtype);
    let less = if matches!(x, Some(DType::U4 | DType::U8)) { 128 } else { 0 };
    Ok(params.input(0)?.zero_point() - less)
}

/// Products of packed codes, which are not steps: what the zero point of x adds is taken off the bias before. `make` gets
/// what is bound, and whether the bias is that of `fold.wgsl`, with a number for each channel.
pub(in crate::ops) fn folded(
    params: &CodeParams,
    io: &Io,
    weights: Packed,
    finisher: Finisher,
    make: impl FnOnce(FinishParams, &[Operand], bool) -> Dispatch,
) -> Result<Lowering, OpError> {
    let (mut dispatches, mut temps) = (Vec::new(), Vec::new());
    let mut bind = bound(params, Operand::Input(1));
    let zero = offset(params)?;
    if zero != 0 {
        let bias = io.inputs.get(2).filter(|_| params.inputs.len() > 2);
        let of = FoldParams {
            channels: u32(weights.channels),
            count: u32(weights.count),
            o_step: u32(weights.o_step),
            step: u32(weights.step),
            bias: u32::from(bias.is_some()),
            b_step: u32::from(bias.is_some_and(|b| b.len() > 1)),
            zero,
        };
        let b = if bias.is_some() { bind[2] } else { bind[1] };
        let grid = flat_grid(weights.channels);
        dispatches.push(Dispatch::new(&FOLD, &of, [bind[1], b, Operand::Temp(0)], grid));
        temps.push(weights.channels as u64 * 4);
        bind[2] = Operand::Temp(0);
    }
    let finisher = finisher.of_32_bits();
    let dispatch = make(finisher.params, &bind, zero != 0).with("X_FORM", io.inputs[0].form());
    dispatches.push(finisher.told(dispatch));
    Ok(Lowering::Run { dispatches, temps, tables: vec![finisher.table] })
}

/// What kernels of products bind, with these weights. What is not there is not read.
fn bound(params: &CodeParams, weights: Operand) -> [Operand; 6] {
    let bias = Operand::Input(if params.inputs.len() > 2 { 2 } else { 0 });
    let addend = Operand::Input(if params.addend.is_some() { params.inputs.len() } else { 0 });
    [Operand::Input(0), weights, bias, Operand::Table(0), addend, Operand::Output(0)]
}

/// The same where pairs of products saturate: weights as they are, and the zero point of each of so many channels.
pub(in crate::ops) fn pairs(
    params: &CodeParams,
    channels: usize,
    finisher: Finisher,
    make: impl FnOnce(FinishParams, &[Operand]) -> Dispatch,
) -> Result<Lowering, OpError> {
    let p = params.inputs.get(1).and_then(Option::as_ref);
    let zeros = p.ok_or(OpError::Parameters { what: "input", index: 1 })?.zero_points();
    let zero = |c: usize| zeros.get(c).or(zeros.last()).map_or(0, |z| z.cast_unsigned());
    let zeros = (0..channels.next_multiple_of(4)).map(zero).collect();
    let bind = [&bound(params, Operand::Input(1))[..], &[Operand::Table(1)]].concat();
    let dispatch = make(finisher.params, &bind).with("SHIFT", u32::from(super::pairs::shift(params)));
    let dispatches = vec![finisher.told(dispatch)];
    Ok(Lowering::Run { dispatches, temps: Vec::new(), tables: vec![finisher.table, zeros] })
}
