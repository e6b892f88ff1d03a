//! Sampling of codes at points that are codes.

use super::{GridSample, PADDINGS};
use crate::graph::codes::codes_of;
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid, u32};
use crate::graph::{CodeParams, Op, OpError};
use crate::ops::integer::device::{FinishParams, Finisher};
use crate::ops::integer::sums::not_a_power;
use crate::quant::{Factor, Multiplier, Rounding, Step};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;

/// Bits of a coordinate behind the point: its steps are 2^-8 pixels.
const BITS: u32 = 8;
const ONE: i64 = 1 << BITS;

/// Beyond every picture, and far from the ends of 32 bits.
const FAR: i64 = 1 << 29;

/// Pixels along an axis, at most.
const LONGEST: usize = 1 << 20;

crate::params! {
    /// `Params` of `grid_sample_codes.wgsl`.
    struct Params {
        finish: FinishParams,
        groups: u32,
        c: u32,
        c4: u32,
        pixels: u32,
        size: [u32; 2],
        m: [u32; 2],
        by: [i32; 2],
        grid_zero: i32,
        padding: u32,
        align_corners: u32,
        nearest: u32,
    }
}

pub(in crate::ops) static CODES: Kernel = crate::kernel!(
    "grid_sample_codes",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/wide.wgsl",
        "shared/requantize.wgsl",
        "shared/finish.wgsl",
        "shared/sums_i64.wgsl",
        "grid_sample_codes.wgsl"
    ]
);

/// From codes of a grid to steps of coordinates along an axis of `len` pixels.
struct Axis {
    len: i64,
    /// Steps of a coordinate to a step of the grid.
    factor: Multiplier,
    rounding: Rounding,
}

impl Axis {
    /// Where a point lies: round((q - z) * M) + 128 * (len - 1), with M = 128 * s * len, or of the distance between the
    /// outer pixels where their centres are the ends.
    fn coordinate(&self, steps: i64) -> i64 {
        let from_centre = self.factor.apply(steps.into(), 0, self.rounding).clamp(-FAR, FAR);
        from_centre + ONE / 2 * (self.len - 1)
    }
}

/// A pixel and its weight.
type Tap = (u32, i64);

impl GridSample {
    /// The pixel that stands at a whole coordinate along an axis, where there is one.
    fn whole(&self, v: i64, len: i64) -> Option<i64> {
        let at = match self.padding {
            "border" => v.clamp(0, len - 1),
            "reflection" => {
                // In halves of pixels, as the outer edges lie between pixels.
                let low = if self.align_corners { 0 } else { -1 };
                let span = 2 * (len - 1) - 2 * low;
                if span == 0 {
                    return Some(0);
                }
                let beyond = (2 * v - low).abs();
                let (turns, rest) = (beyond / span, beyond % span);
                let mirrored = if turns % 2 == 1 { low + span - rest } else { low + rest };
                (mirrored / 2).clamp(0, len - 1)
            }
            _ => v,
        };
        (0..len).contains(&at).then_some(at)
    }

    /// The taps of a coordinate along an axis: pixels, where there are some, and weights that sum to 2^8; one for the
    /// nearest pixel, halves to even.
    fn along(&self, axis: &Axis, steps: i64) -> [(Option<i64>, i64); 2] {
        let p = axis.coordinate(steps);
        if self.mode == "nearest" {
            let nearest = Rounding::HalfEven.shift(p.into(), BITS.cast_signed());
            return [(self.whole(nearest, axis.len), ONE), (None, 0)];
        }
        let (low, rest) = (p >> BITS, p & (ONE - 1));
        [(self.whole(low, axis.len), ONE - rest), (self.whole(low + 1, axis.len), rest)]
    }

    fn axis(&self, grid: &Step, len: usize, rounding: Rounding) -> Result<Axis, OpError> {
        if len > LONGEST {
            let message =
                format!("points are found in pictures of up to 2^20 pixels, and this one has {len}");
            return Err(OpError::Arithmetic { message });
        }
        #[allow(clippy::cast_precision_loss, reason = "pictures are at most 2^24 pixels long")]
        let span = (if self.align_corners { len - 1 } else { len }) as f64;
        // A single pixel whose centre is both ends: every point is there.
        let factor = match span > 0.0 {
            true => Multiplier::new(f64::from(grid.scale()) * span * 128.0),
            false => Multiplier { m: 0, shift: 0 },
        };
        Ok(Axis { len: i64::from(u32(len)), factor, rounding })
    }

    /// Exact sums of steps times the weights of both axes, requantized once by s_x / (s_y * 2^16). Pixels outside add
    /// nothing.
    pub(super) fn of_codes(&self, params: &CodeParams, inputs: &[Tensor]) -> Result<Tensor, OpError> {
        let (x, grid, y) = (params.input(0)?, params.input(1)?, params.output()?);
        let types = [0, 1].map(|i| TensorType::new(DType::F32, inputs[i].shape().to_vec()));
        let out = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let factor = factor(params)?;
        let [_, c, h, w] = inputs[0].shape()[..] else { unreachable!("infer takes rank 4") };
        let pixels = out[2] * out[3];
        let mut codes = vec![0; out.iter().product()];
        if codes.is_empty() {
            return Ok(params.store(&out, &codes));
        }
        let rounding = params.arithmetic.rounding;
        let axes = [self.axis(&grid, w, rounding)?, self.axis(&grid, h, rounding)?];
        let (from, points) = (codes_of(inputs, 0)?, codes_of(inputs, 1)?);
        let taps: Vec<[Tap; 4]> = points
            .par_chunks_exact(2)
            .map(|p| {
                let [column, row] = [0, 1].map(|k| self.along(&axes[k], grid.steps(p[k])));
                std::array::from_fn(|i| match (row[i / 2], column[i % 2]) {
                    ((Some(r), a), (Some(c), b)) => {
                        (u32(usize::try_from(r * axes[0].len + c).unwrap_or(0)), a * b)
                    }
                    _ => (0, 0),
                })
            })
            .collect();
        codes.par_chunks_mut(pixels).enumerate().for_each(|(plane, codes)| {
            let from = &from[plane * h * w..][..h * w];
            for (code, taps) in codes.iter_mut().zip(&taps[plane / c * pixels..][..pixels]) {
                let sum = taps.iter().map(|(i, weight)| weight * x.steps(from[*i as usize])).sum();
                *code = y.place(factor.apply(sum));
            }
        });
        Ok(params.store(&out, &codes))
    }

    pub(super) fn lower_codes(&self, params: &CodeParams, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0].shape, &io.outputs[0].shape);
        let grid = params.input(1)?;
        let axes =
            [self.axis(&grid, x[3], Rounding::default())?, self.axis(&grid, x[2], Rounding::default())?];
        let c4 = y[1].div_ceil(4);
        let pixels = y[2] * y[3];
        let groups = y[0] * pixels * c4;
        let finisher = Finisher::of_factors(params, &[factor(params)?])?;
        let params = Params {
            finish: finisher.params,
            groups: u32(groups),
            c: u32(y[1]),
            c4: u32(c4),
            pixels: u32(pixels),
            size: [u32(x[3]), u32(x[2])],
            m: [axes[0].factor.m, axes[1].factor.m],
            by: [axes[0].factor.shift, axes[1].factor.shift],
            grid_zero: grid.zero_point(),
            padding: u32(PADDINGS.iter().position(|p| *p == self.padding).unwrap_or(0)),
            align_corners: u32::from(self.align_corners),
            nearest: u32::from(self.mode == "nearest"),
        };
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Table(0), Operand::Output(0)];
        Ok(finisher.run(Dispatch::new(&CODES, &params, bind, flat_grid(groups))))
    }
}

/// From sums of steps with weights in units of 2^-16 to the output.
fn factor(params: &CodeParams) -> Result<Factor, OpError> {
    let (x, y, of) = (params.input(0)?, params.output()?, params.arithmetic);
    let unit = libm::ldexpf(1.0, -2 * BITS.cast_signed());
    Factor::new(of.requantize, of.rounding, [x.scale(), unit], y.scale()).ok_or_else(not_a_power)
}
