//! Exact sums of products of codes on the CPU, and what targets make of them.

use super::bytes::{Place, finished};
use super::rounded::Rounded;
use crate::graph::codes::codes_of;
use crate::graph::{CodeOutput, CodeParams, OpError, Scratch};
use crate::quant::{Accumulator, Adder, Factor, QParams, Requantizer, Step};
use crate::tensor::{DType, Data, Tensor};
use rayon::prelude::*;

/// Codes less their zero point.
///
/// # Errors
/// Several scales, or a tensor of another type.
pub(in crate::ops) fn steps_of(
    params: &CodeParams,
    inputs: &[Tensor],
    i: usize,
) -> Result<Vec<i32>, OpError> {
    let p = params.inputs.get(i).and_then(Option::as_ref);
    let p = p.ok_or(OpError::Parameters { what: "input", index: i })?;
    let mut codes = codes_of(inputs, i)?;
    match p.zero_points() {
        [zero] if *zero == 0 => {}
        [zero] => codes.iter_mut().for_each(|c| *c -= zero),
        zeros => {
            let axis = p.axis().unwrap_or(0);
            let inner: usize = inputs[i].shape()[axis + 1..].iter().product();
            for (at, c) in codes.iter_mut().enumerate() {
                *c -= zeros[at / inner.max(1) % zeros.len()];
            }
        }
    }
    Ok(codes)
}

/// How the target ends sums of products.
#[derive(Debug)]
pub(super) enum Ending {
    /// Codes, by a factor of each channel.
    Codes(Requantizer),
    /// Codes of the sum and of a tensor that is added.
    Added {
        /// Factors of both, of each channel.
        adder: Adder,
        /// The quantizer of what is added.
        addend: Step,
    },
    /// 32 bits of the sums.
    Sums,
    /// Numbers, by the scale of each channel.
    Real(Vec<f32>),
}

impl Ending {
    /// What the parameters say.
    ///
    /// # Errors
    /// Parameters that the target's arithmetic cannot compute with.
    pub(super) fn new(params: &CodeParams) -> Result<Ending, OpError> {
        let x = params.input(0)?;
        let scales = weight_scales(params)?;
        let arithmetic = params.arithmetic;
        Ok(match (&params.output, &params.addend) {
            (CodeOutput::Sums, _) => Ending::Sums,
            (CodeOutput::Real, _) => Ending::Real(scales.iter().map(|w| x.scale() * w).collect()),
            (CodeOutput::Codes { .. }, Some(p)) if p.scales().len() == 1 => {
                let (addend, y) = (p.step(0), params.output()?);
                let adder = Adder::new(arithmetic.rounding, x.scale(), scales, params.bound, &addend, y);
                Ending::Added { adder, addend }
            }
            (CodeOutput::Codes { .. }, Some(_)) => {
                return Err(OpError::Parameters { what: "addend", index: 0 });
            }
            (CodeOutput::Codes { .. }, None) => {
                let y = params.output()?;
                let r = Requantizer::new(arithmetic.requantize, arithmetic.rounding, x.scale(), scales, y);
                Ending::Codes(r.ok_or_else(not_a_power)?)
            }
        })
    }
}

/// Added codes that are brought to 32 bits together.
const ADDED: usize = 64;

/// What becomes of sums of products: a bias is added, and the target requantizes.
#[derive(Debug)]
pub(in crate::ops) struct Finish {
    ending: Ending,
    /// The codes that are added, where there are some.
    addend: Option<Tensor>,
    bias: Option<Vec<i32>>,
    saturates: bool,
    channels: usize,
    /// Neighbours that share a channel.
    inner: usize,
}

/// The scales of weights, one or one a channel.
fn weight_scales(params: &CodeParams) -> Result<&[f32], OpError> {
    let p = params.inputs.get(1).and_then(Option::as_ref).map(QParams::scales);
    p.ok_or(OpError::Parameters { what: "input", index: 1 })
}

impl Finish {
    /// For an output of this shape, the channels of which lie along `axis`. Input 2, where there is one, is the bias;
    /// an addend is the last input.
    ///
    /// # Errors
    /// Parameters that the target's arithmetic cannot compute with.
    pub(in crate::ops) fn new(
        params: &CodeParams,
        inputs: &[Tensor],
        shape: &[usize],
        axis: usize,
    ) -> Result<Finish, OpError> {
        let products = inputs.len() - usize::from(params.addend.is_some());
        let bias = (products > 2).then(|| codes_of(inputs, 2)).transpose()?;
        Ok(Finish {
            ending: Ending::new(params)?,
            addend: params.addend.as_ref().and(inputs.last()).cloned(),
            bias,
            saturates: params.arithmetic.accumulator == Accumulator::Saturating32,
            channels: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        })
    }

    /// The output of all sums, in order.
    pub(in crate::ops) fn apply<S: Sum>(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        shape: &[usize],
        sums: &[S],
    ) -> Tensor {
        self.output(cx, params, shape, &Sums(sums))
    }

    /// The output that `fill` makes.
    pub(in crate::ops) fn output(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        shape: &[usize],
        fill: &impl Fill,
    ) -> Tensor {
        let dtype = params.output.dtype();
        match dtype {
            DType::F32 => Tensor::from_f32(shape, fill.run(cx, self)),
            DType::I32 => Tensor::from_i32(shape, fill.run(cx, self)),
            DType::I8 => Tensor::from_i8(shape, fill.run(cx, self)),
            DType::U8 => Tensor::from_u8(shape, fill.run(cx, self)),
            DType::I16 => Tensor::from_i16(shape, fill.run(cx, self)),
            DType::U16 => Tensor::from_u16(shape, fill.run(cx, self)),
            DType::I4 | DType::U4 | DType::Bool => {
                let bytes: Vec<i8> = fill.run(cx, self);
                let made = Tensor::from_bytes(dtype, shape, bytemuck::cast_slice(&bytes));
                made.expect("codes were placed between their bounds")
            }
        }
    }

    /// Whether a tensor is added.
    pub(in crate::ops) fn adds(&self) -> bool {
        self.addend.is_some()
    }

    /// The channel of an element.
    fn channel(&self, at: usize) -> usize {
        at / self.inner.max(1) % self.channels.max(1)
    }

    /// What is added to the sums of a channel.
    pub(in crate::ops) fn bias(&self, channel: usize) -> i32 {
        self.bias.as_ref().map_or(0, |b| b[if b.len() == 1 { 0 } else { channel }])
    }

    /// The sum of a channel's products with its bias.
    #[inline(always)]
    fn total(&self, sum: i64, bias: i32) -> i64 {
        let sum = sum + i64::from(bias);
        if self.saturates { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum }
    }

    /// Codes that are added, from element `at` on, each `step` behind the one before.
    #[inline(always)]
    fn added(&self, at: usize, step: usize, out: &mut [i32]) {
        let Some(addend) = &self.addend else { return };
        macro_rules! copy {
            ($v:expr) => {
                out.iter_mut().zip($v[at..].iter().step_by(step)).for_each(|(o, code)| *o = i32::from(*code))
            };
        }
        match addend.data() {
            Data::I8(v) | Data::I4(v) => copy!(v),
            Data::U8(v) | Data::U4(v) => copy!(v),
            Data::I16(v) => copy!(v),
            Data::U16(v) => copy!(v),
            Data::I32(v) => copy!(v),
            Data::F32(_) | Data::Bool(_) => {}
        }
    }

    /// Codes of the sums of one channel, whose first element is `at`.
    #[inline(always)]
    fn codes<S: Sum, T>(&self, place: Place, sums: &[S], out: &mut [T], narrow: impl Fn(i32) -> T) {
        let channel = place.channel;
        let bias = self.bias(channel);
        let narrow_sums = S::NARROW && !self.saturates;
        match &self.ending {
            Ending::Codes(r) => match r.factor(channel) {
                Factor::Fixed(m, rounding) if narrow_sums && (1..=62).contains(&m.shift) => {
                    let fixed = Rounded::new(m.shift, r.output());
                    let m = m.m.cast_signed();
                    // Within 32 bits by the bound of the sums.
                    let product = |i: usize| i64::from(sums[i].low().wrapping_add(bias)) * i64::from(m);
                    fixed.each(rounding, out, product, narrow);
                }
                factor => {
                    let y = r.output();
                    let each = out.iter_mut().zip(sums);
                    each.for_each(|(o, s)| *o = narrow(y.place(factor.apply(self.total((*s).into(), bias)))));
                }
            },
            Ending::Added { adder, addend } => {
                let (pair, y) = (adder.pair(channel), adder.output());
                let in_64_bits = narrow_sums && (1..=61).contains(&pair.shift);
                let mut codes = [0; ADDED];
                for (run, (out, sums)) in out.chunks_mut(ADDED).zip(sums.chunks(ADDED)).enumerate() {
                    let codes = &mut codes[..out.len()];
                    self.added(place.at + run * ADDED * place.step, place.step, codes);
                    let steps = |i: usize| addend.steps(codes[i]);
                    if in_64_bits {
                        let fixed = Rounded::new(pair.shift, y);
                        // Both products are below 2^61.
                        let sum = |i: usize| {
                            i64::from(sums[i].low().wrapping_add(bias)) * pair.m[0] + steps(i) * pair.m[1]
                        };
                        fixed.each(y.rounding(), out, sum, &narrow);
                        continue;
                    }
                    for (i, (o, s)) in out.iter_mut().zip(sums).enumerate() {
                        *o = narrow(adder.apply(channel, self.total((*s).into(), bias), steps(i)));
                    }
                }
            }
            Ending::Sums | Ending::Real(_) => {}
        }
    }
}

/// How an output is filled, whatever the type of its elements.
pub(in crate::ops) trait Fill {
    /// All elements.
    fn run<T: Element>(&self, cx: &Scratch, finish: &Finish) -> Vec<T>;
}

/// An element of an output.
pub(in crate::ops) trait Element: Copy + Default + Send + Sync {
    /// A vector of `n` elements with unspecified values.
    fn take(_cx: &Scratch, n: usize) -> Vec<Self> {
        vec![Self::default(); n]
    }

    /// The elements that the sums of one channel become.
    fn row<S: Sum>(finish: &Finish, place: Place, sums: &[S], out: &mut [Self]);
}

macro_rules! codes {
    ($($ty:ty $(, $take:expr)?;)+) => {
        $(impl Element for $ty {
            $(fn take(cx: &Scratch, n: usize) -> Vec<Self> {
                $take(cx.take_bytes(n))
            })?

            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "placed between the type's codes")]
            #[inline(always)]
            fn row<S: Sum>(finish: &Finish, place: Place, sums: &[S], out: &mut [Self]) {
                finish.codes(place, sums, out, |code| code as $ty);
            }
        })+
    };
}

codes!(i8, bytemuck::cast_vec; u8, std::convert::identity; i16; u16;);

impl Element for i32 {
    #[allow(clippy::cast_possible_truncation, reason = "saturates, as 32 bits of a target do")]
    #[inline(always)]
    fn row<S: Sum>(finish: &Finish, place: Place, sums: &[S], out: &mut [Self]) {
        let bias = finish.bias(place.channel);
        for (o, s) in out.iter_mut().zip(sums) {
            *o = finish.total((*s).into(), bias).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        }
    }
}

impl Element for f32 {
    fn take(cx: &Scratch, n: usize) -> Vec<f32> {
        cx.take(n)
    }

    #[allow(clippy::cast_precision_loss, reason = "to the nearest f32, as it is defined")]
    #[inline(always)]
    fn row<S: Sum>(finish: &Finish, place: Place, sums: &[S], out: &mut [Self]) {
        let Ending::Real(scales) = &finish.ending else { return };
        let channel = place.channel;
        let (bias, scale) = (finish.bias(channel), scales[if scales.len() == 1 { 0 } else { channel }]);
        for (o, s) in out.iter_mut().zip(sums) {
            *o = finish.total((*s).into(), bias) as f32 * scale;
        }
    }
}

/// Sums in the order of the output.
struct Sums<'a, S>(&'a [S]);

/// Elements that are finished together: whole runs of one channel, where these are short.
pub(super) fn chunk(finish: &Finish) -> usize {
    const CHUNK: usize = 16 * 1024;
    let run = finish.inner.clamp(1, CHUNK);
    // Runs end where a channel does, and so do chunks of whole runs.
    if run == finish.inner { CHUNK / run * run } else { run }
}

/// The elements from `at` on, of any channels.
pub(super) fn elements<S: Sum, T: Element>(
    finish: &Finish,
    mut at: usize,
    mut sums: &[S],
    mut out: &mut [T],
) {
    while !sums.is_empty() {
        let n = (finish.inner.max(1) - at % finish.inner.max(1)).min(sums.len());
        let (row, rest) = out.split_at_mut(n);
        let place = Place { channel: finish.channel(at), at, step: 1 };
        finished(finish, place, &sums[..n], row);
        (out, sums, at) = (rest, &sums[n..], at + n);
    }
}

impl<S: Sum> Fill for Sums<'_, S> {
    fn run<T: Element>(&self, cx: &Scratch, finish: &Finish) -> Vec<T> {
        let mut out = T::take(cx, self.0.len());
        let chunk = chunk(finish);
        let chunks = out.par_chunks_mut(chunk).zip(self.0.par_chunks(chunk)).enumerate();
        chunks.for_each(|(c, (out, sums))| elements(finish, c * chunk, sums, out));
        out
    }
}

/// A shift of scales that are no powers of two.
pub(in crate::ops) fn not_a_power() -> OpError {
    OpError::Arithmetic {
        message: "requantizes by shifts, which takes scales that are powers of two".to_owned(),
    }
}

/// What products are summed in.
pub(in crate::ops) trait Sum:
    Copy + Default + Send + Sync + Into<i64> + std::ops::AddAssign + 'static
{
    /// Whether it has 32 bits.
    const NARROW: bool;

    /// Its low 32 bits.
    fn low(self) -> i32;

    /// What is multiplied.
    type Operand: Copy + Default + Send + Sync + 'static;

    /// An operand from steps of a code; whoever calls has checked that it fits.
    fn operand(steps: i32) -> Self::Operand;

    /// `sums[j] += a * b[j]`.
    fn add_products(sums: &mut [Self], a: Self::Operand, b: &[Self::Operand]);
}

impl Sum for i32 {
    const NARROW: bool = true;

    #[inline(always)]
    fn low(self) -> i32 {
        self
    }
    type Operand = i16;

    #[allow(clippy::cast_possible_truncation, reason = "checked by `fits_i16`")]
    fn operand(steps: i32) -> i16 {
        steps as i16
    }

    fn add_products(sums: &mut [i32], a: i16, b: &[i16]) {
        for (s, b) in sums.iter_mut().zip(b) {
            *s = s.wrapping_add(i32::from(a) * i32::from(*b));
        }
    }
}

impl Sum for i64 {
    const NARROW: bool = false;

    #[allow(clippy::cast_possible_truncation, reason = "as it says")]
    fn low(self) -> i32 {
        self as i32
    }
    type Operand = i32;

    fn operand(steps: i32) -> i32 {
        steps
    }

    fn add_products(sums: &mut [i64], a: i32, b: &[i32]) {
        for (s, b) in sums.iter_mut().zip(b) {
            *s += i64::from(a) * i64::from(*b);
        }
    }
}

/// Whether 32 bits hold all sums, and 16 bits the steps of both operands.
pub(in crate::ops) fn is_narrow(params: &CodeParams) -> bool {
    let fits = |p: &Option<QParams>| {
        p.as_ref().is_some_and(|p| {
            let (low, high) = p.codes();
            let within = |v: i32| i16::try_from(v).is_ok();
            p.zero_points().iter().all(|z| within(low - z) && within(high - z))
        })
    };
    params.bound <= i32::MAX.unsigned_abs().into() && params.inputs.iter().take(2).all(fits)
}

/// Whether f32 holds every sum of products exactly, whatever the order.
pub(in crate::ops) fn is_exact_in_f32(params: &CodeParams) -> bool {
    params.bound < 1 << 24
}

/// Codes less their zero point as f32, which holds them exactly.
#[allow(clippy::cast_precision_loss, reason = "17 bits at most")]
pub(in crate::ops) fn floats(steps: &[i32]) -> Vec<f32> {
    steps.par_iter().map(|v| *v as f32).collect()
}

/// Whole numbers below 2^24 as integers.
#[allow(clippy::cast_possible_truncation, reason = "they are whole, and below 2^24")]
pub(in crate::ops) fn integers(sums: Vec<f32>) -> Vec<i32> {
    sums.into_par_iter().map(|v| v as i32).collect()
}
