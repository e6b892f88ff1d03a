//! Exact sums of products of codes on the CPU, and what targets make of them.

use crate::graph::codes::codes_of;
use crate::graph::{CodeOutput, CodeParams, OpError};
use crate::quant::{Accumulator, Adder, QParams, Requantizer, Step};
use crate::tensor::Tensor;
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

/// What becomes of sums of products: a bias is added, and the target requantizes.
#[derive(Debug)]
pub(in crate::ops) struct Finish<'a> {
    ending: Ending,
    /// The codes that are added, where there are some.
    addend: &'a Tensor,
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

impl<'a> Finish<'a> {
    /// For an output of this shape, the channels of which lie along `axis`. Input 2, where there is one, is the bias;
    /// an addend is the last input.
    ///
    /// # Errors
    /// Parameters that the target's arithmetic cannot compute with.
    pub(in crate::ops) fn new(
        params: &CodeParams,
        inputs: &'a [Tensor],
        shape: &[usize],
        axis: usize,
    ) -> Result<Finish<'a>, OpError> {
        let products = inputs.len() - usize::from(params.addend.is_some());
        let bias = (products > 2).then(|| codes_of(inputs, 2)).transpose()?;
        Ok(Finish {
            ending: Ending::new(params)?,
            addend: inputs.last().ok_or(OpError::MissingInput { input: 0 })?,
            bias,
            saturates: params.arithmetic.accumulator == Accumulator::Saturating32,
            channels: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        })
    }

    /// The output of all sums, in order.
    pub(in crate::ops) fn apply<T: Copy + Into<i64> + Sync>(
        &self,
        params: &CodeParams,
        shape: &[usize],
        sums: &[T],
    ) -> Tensor {
        const CHUNK: usize = 16 * 1024;
        let channel = |at: usize| at / self.inner.max(1) % self.channels.max(1);
        let sum = |at: usize, sum: T| -> i64 {
            let bias =
                self.bias.as_ref().map_or(0, |b| i64::from(b[if b.len() == 1 { 0 } else { channel(at) }]));
            let sum = sum.into() + bias;
            if self.saturates { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum }
        };
        let each = |f: &(dyn Fn(usize, i64) -> i32 + Sync)| {
            let mut out = vec![0i32; sums.len()];
            out.par_chunks_mut(CHUNK).zip(sums.par_chunks(CHUNK)).enumerate().for_each(|(c, (out, sums))| {
                for (i, (o, s)) in out.iter_mut().zip(sums).enumerate() {
                    let at = c * CHUNK + i;
                    *o = f(at, sum(at, *s));
                }
            });
            out
        };
        match &self.ending {
            Ending::Codes(r) => params.store(shape, &each(&|at, sum| r.apply(channel(at), sum))),
            Ending::Added { adder, addend } => {
                let codes = self.addend.codes().expect("the type was checked");
                let f = |at: usize, sum: i64| adder.apply(channel(at), sum, addend.steps(codes[at]));
                params.store(shape, &each(&f))
            }
            #[allow(clippy::cast_possible_truncation, reason = "saturates, as 32 bits of a target do")]
            Ending::Sums => {
                let all = each(&|_, sum| sum.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
                Tensor::from_i32(shape, all)
            }
            Ending::Real(scales) => {
                let mut out = vec![0f32; sums.len()];
                for (at, (o, s)) in out.iter_mut().zip(sums).enumerate() {
                    let scale = scales[if scales.len() == 1 { 0 } else { channel(at) }];
                    #[allow(clippy::cast_precision_loss, reason = "to the nearest f32, as it is defined")]
                    {
                        *o = sum(at, *s) as f32 * scale;
                    }
                }
                Tensor::from_f32(shape, out)
            }
        }
    }
}

/// A shift of scales that are no powers of two.
pub(in crate::ops) fn not_a_power() -> OpError {
    OpError::Arithmetic {
        message: "requantizes by shifts, which takes scales that are powers of two".to_owned(),
    }
}

/// What products are summed in.
pub(in crate::ops) trait Sum: Copy + Default + Send + Sync + Into<i64> + 'static {
    /// What is multiplied.
    type Operand: Copy + Default + Send + Sync + 'static;

    /// An operand from steps of a code; whoever calls has checked that it fits.
    fn operand(steps: i32) -> Self::Operand;

    /// `sums[j] += a * b[j]`.
    fn add_products(sums: &mut [Self], a: Self::Operand, b: &[Self::Operand]);
}

impl Sum for i32 {
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
