//! Interpolation of codes between pixels.

use super::Resize;
use crate::graph::codes::codes_of;
use crate::graph::lower::{Io, Layout, Layouts, Lowering, View, u32};
use crate::graph::{CodeParams, Op, OpError};
use crate::ops::integer::device::Finisher;
use crate::ops::integer::sums::not_a_power;
use crate::ops::resample::{Resample, Taps};
use crate::quant::Factor;
use crate::tensor::{DType, Dim, Tensor, TensorType};

/// Bits of a weight: 2^11 is 1.
const BITS: i32 = 11;

/// Axes that sums of 64 bits have room for.
const AXES: usize = 3;

impl Resize {
    /// Whether it has an integer form: it is linear, along few axes.
    pub(super) fn is_on_codes(&self) -> bool {
        let interpolated = (0..self.sizes.len()).filter(|a| !self.keeps(*a, self.sizes[*a])).count();
        self.mode == "linear" && interpolated <= AXES
    }

    /// Two pixels for each index along an axis. The weight of the second is what the coordinate, in f64, has behind the
    /// first, to the nearest 2^-11, halves to even; the other is what it lacks to 1.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped between 0 and the length of an axis, and weights between 0 and 2^11"
    )]
    fn weights(&self, axis: usize, from: usize, to: usize) -> Taps<i64> {
        let one = 1i64 << BITS;
        let row = |i: usize| {
            let at: f64 = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return [(None, 0), (None, 0)];
            }
            let at = at.clamp(0.0, (from - 1) as f64);
            let low = at.floor();
            let second = ((at - low) * one as f64).round_ties_even() as i64;
            let low = low as usize;
            [(Some(u32(low)), one - second), (Some(u32((low + 1).min(from - 1))), second)]
        };
        Taps { taps: 2, pairs: (0..to).flat_map(row).collect() }
    }

    /// From x to y, which has elements; and what the weights of all axes are in units of, as powers of two.
    fn of_weights(&self, x: &View, y: &View) -> (Resample<i64>, i32) {
        let along = |a: usize| {
            let (from, to) = (x.shape[a], y.shape[a]);
            (!self.keeps(a, Dim::Fixed(from))).then(|| self.weights(a, from, to))
        };
        let taps: Vec<_> = (0..x.shape.len()).map(along).collect();
        (Resample::new(x, y, &taps), taps.iter().flatten().fold(0, |bits, _| bits - BITS))
    }

    /// Exact sums of steps times the weights of all axes, requantized once by s_x / (s_y * 2^(11 * axes)); what lies
    /// outside is the code of the extrapolation value.
    pub(super) fn of_codes(&self, params: &CodeParams, inputs: &[Tensor]) -> Result<Tensor, OpError> {
        let from = inputs[0].shape();
        let to = self.infer(&[TensorType::new(DType::F32, from.to_vec())])?.remove(0);
        let to = to.dims().expect("concrete inputs give concrete outputs");
        let mut made = vec![0; to.iter().product()];
        if made.is_empty() {
            return Ok(params.store(&to, &made));
        }
        let view = |s: &[usize]| View { dtype: DType::F32, shape: s.to_vec(), layout: Layout::Linear };
        let (resample, unit) = self.of_weights(&view(from), &view(&to));
        let (x, y, factor) = (params.input(0)?, params.output()?, factor(params, unit)?);
        let fill = y.quantize(self.extrapolation);
        let codes = codes_of(inputs, 0)?;
        let place = |sum: Option<i64>| sum.map_or(fill, |sum| y.place(factor.apply(sum)));
        resample.run(|i| x.steps(codes[i]), &mut made, place);
        Ok(params.store(&to, &made))
    }

    /// Channels that stay lie in groups of four.
    pub(super) fn code_layouts(&self, inputs: &[TensorType]) -> Layouts {
        let x = &inputs[0];
        let channels = x.rank() >= 3 && self.keeps(1, x.shape[1]);
        let layout = if channels { Layout::ChannelsLast } else { Layout::Linear };
        Layouts::Exact { inputs: vec![layout], outputs: vec![layout] }
    }

    pub(super) fn lower_codes(&self, params: &CodeParams, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        let (resample, unit) = self.of_weights(x, y);
        let finisher = Finisher::of_factors(params, &[factor(params, unit)?])?;
        let fill = params.output()?.quantize(self.extrapolation);
        let channels = (x.layout == Layout::ChannelsLast).then(|| y.shape[1]);
        resample.lower_codes(finisher, fill, channels)
    }
}

/// From sums of steps with weights in units of a power of two to the output.
fn factor(params: &CodeParams, unit: i32) -> Result<Factor, OpError> {
    let (x, y, of) = (params.input(0)?, params.output()?, params.arithmetic);
    let unit = libm::ldexpf(1.0, unit);
    Factor::new(of.requantize, of.rounding, [x.scale(), unit], y.scale()).ok_or_else(not_a_power)
}
