//! `Resize`: other lengths of axes, by the nearest pixel or by interpolation. ONNX's `Upsample` is read as it.
//!
//! *Shapes*: `[d0, d1, ..] -> [sizes[0], sizes[1], ..]`; `scales[a]` pixels of y lie on one pixel of x.
//!
//! Which pixels an index takes, and with which weights, is computed once on the host in f32, so that both
//! executors agree.

mod codes;
mod read;
mod samples;

use super::element::moved;
use super::lookup::{self, FillValue, Lookup, OUTSIDE};
use super::resample::{self, Resample, Taps};
use crate::graph::lower::{Io, Kernel, Layout, Layouts, Lowering, View, u32};
use crate::graph::op::check;
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, Place, QuantRule, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::ops::{Add, Div, Mul, Sub};

const MODES: &[&str] = &["nearest", "linear", "cubic"];
const COORDINATES: &[&str] = &[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
];
/// `up_floor_down_ceil` is what ONNX meant before operator set 11, where it could not be chosen.
const NEAREST: &[&str] = &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "up_floor_down_ceil"];
const POLICIES: &[&str] = &["stretch", "not_larger", "not_smaller"];

#[derive(Debug)]
struct Resize {
    mode: &'static str,
    coordinates: &'static str,
    nearest: &'static str,
    cubic_a: f32,
    exclude_outside: bool,
    extrapolation: f32,
    /// One an axis.
    scales: Vec<f32>,
    sizes: Vec<Dim>,
    /// Begin of each axis, then end of each; empty unless `tf_crop_and_resize`.
    roi: Vec<f32>,
}

static KERNELS: [&Kernel; 4] =
    [lookup::KERNELS[0], lookup::KERNELS[1], resample::KERNELS[0], resample::KERNELS[1]];

pub(super) static DEF: OpDef = OpDef {
    name: "Resize",
    onnx: &["Resize", "Upsample"],
    read: read::read,
    kernels: &KERNELS,
    samples: samples::samples,
};

impl Resize {
    fn keeps(&self, axis: usize, x: Dim) -> bool {
        let whole = self.roi.is_empty() || [self.roi[axis], self.roi[self.scales.len() + axis]] == [0.0, 1.0];
        self.scales[axis].to_bits() == 1.0f32.to_bits() && self.sizes[axis] == x && whole
    }

    /// Where index `i` of the resized axis lies in x, in pixels.
    #[allow(
        clippy::cast_precision_loss,
        reason = "lengths and indices are rounded to f32 as the runtimes do"
    )]
    fn coordinate<T: Coordinate>(&self, axis: usize, i: usize, from: usize, to: usize) -> T {
        let t = T::from;
        let (i, d, n, scale) = (t(i as f32), t(from as f32), t(to as f32), t(self.scales[axis]));
        let (half, one) = (t(0.5), t(1.0));
        match self.coordinates {
            "asymmetric" => i / scale,
            "pytorch_half_pixel" if to <= 1 => t(0.0),
            "tf_half_pixel_for_nn" => (i + half) / scale,
            "align_corners" if to == 1 => t(0.0),
            "align_corners" => i * (d - one) / (n - one),
            "tf_crop_and_resize" => {
                let (begin, end) = (t(self.roi[axis]), t(self.roi[self.scales.len() + axis]));
                if to > 1 {
                    begin * (d - one) + (i * (end - begin) * (d - one)) / (n - one)
                } else {
                    half * (begin + end) * (d - one)
                }
            }
            "half_pixel_symmetric" => {
                let adjustment = n / (scale * d);
                let offset = d / t(2.0) * (one - adjustment);
                offset + (i + half) / scale - half
            }
            _ => (i + half) / scale - half,
        }
    }

    /// Whether a coordinate is taken from the extrapolation value instead of a pixel.
    #[allow(clippy::cast_precision_loss, reason = "a length of an axis against a coordinate")]
    fn extrapolates<T: Coordinate>(&self, at: T, from: usize) -> bool {
        self.coordinates == "tf_crop_and_resize" && !(at >= T::from(0.0) && at <= T::from((from - 1) as f32))
    }

    fn nearest(&self, axis: usize, from: usize, to: usize) -> Vec<u32> {
        let pixel = |i: usize| {
            let at: f32 = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return OUTSIDE;
            }
            let tie = at - at.floor() == 0.5;
            let rounded = match self.nearest {
                "floor" => at.floor(),
                "ceil" => at.ceil(),
                "up_floor_down_ceil" if self.scales[axis] < 1.0 => at.ceil(),
                "up_floor_down_ceil" => at.floor(),
                "round_prefer_ceil" if tie => at.ceil(),
                _ if tie => at.floor(),
                _ => (at + 0.5).floor(),
            };
            clamped(rounded, from)
        };
        (0..to).map(pixel).collect()
    }

    #[allow(clippy::cast_precision_loss, reason = "an index of an axis as an f32 coordinate")]
    fn linear(&self, axis: usize, from: usize, to: usize) -> Taps<f32> {
        let row = |i: usize| {
            let at: f32 = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return [(None, 0.0), (None, 0.0)];
            }
            let at = at.clamp(0.0, (from - 1) as f32);
            let low = clamped(at.floor(), from);
            let high = (low + 1).min(u32(from - 1));
            let w = at - low as f32;
            [(Some(low), 1.0 - w), (Some(high), w)]
        };
        Taps { taps: 2, pairs: (0..to).flat_map(row).collect() }
    }

    fn cubic(&self, axis: usize, from: usize, to: usize) -> Taps<f32> {
        let row = |i: usize| {
            let at: f32 = self.coordinate(axis, i, from, to);
            if self.extrapolates(at, from) {
                return [(None, 0.0); 4];
            }
            let low = at.floor();
            let mut weights = cubic_weights(at - low, self.cubic_a);
            let pixels = [low - 1.0, low, low + 1.0, low + 2.0];
            if self.exclude_outside {
                for (w, p) in weights.iter_mut().zip(pixels) {
                    #[allow(clippy::cast_precision_loss, reason = "a length against an f32 coordinate")]
                    let inside = p >= 0.0 && p < from as f32;
                    *w = if inside { *w } else { 0.0 };
                }
                let sum: f32 = weights.iter().sum();
                weights = weights.map(|w| w / sum);
            }
            [0, 1, 2, 3].map(|k| (Some(clamped(pixels[k], from)), weights[k]))
        };
        Taps { taps: 4, pairs: (0..to).flat_map(row).collect() }
    }

    fn fill(&self) -> FillValue {
        #[allow(clippy::cast_possible_truncation, reason = "saturates, which is what an integer can hold")]
        let int = self.extrapolation as i32;
        FillValue { float: self.extrapolation, int }
    }

    fn lookup(&self, x: &View, y: &View) -> Lookup {
        let table = |a: usize| {
            (!self.keeps(a, Dim::Fixed(x.shape[a]))).then(|| self.nearest(a, x.shape[a], y.shape[a]))
        };
        Lookup::new(x, y, &(0..x.shape.len()).map(table).collect::<Vec<_>>(), self.fill())
    }

    fn resample(&self, x: &View, y: &View) -> Resample<f32> {
        let taps = |a: usize| {
            let (from, to) = (x.shape[a], y.shape[a]);
            let taps =
                || if self.mode == "linear" { self.linear(a, from, to) } else { self.cubic(a, from, to) };
            (!self.keeps(a, Dim::Fixed(from))).then(taps)
        };
        Resample::new(x, y, &(0..x.shape.len()).map(taps).collect::<Vec<_>>())
    }
}

/// Numbers that coordinates are computed in: f32 between numbers, as the runtimes do; f64 for integer weights.
trait Coordinate:
    Copy
    + PartialOrd
    + From<f32>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
}

impl Coordinate for f32 {}
impl Coordinate for f64 {}

/// A coordinate that is a whole number as an index, kept inside the axis.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer saturates, and the axis bounds it"
)]
fn clamped(at: f32, len: usize) -> u32 {
    (at.max(0.0) as u32).min(u32(len - 1))
}

/// Weights of the pixels at -1, 0, 1 and 2 for a point `s` behind pixel 0 (Keys 1981).
fn cubic_weights(s: f32, a: f32) -> [f32; 4] {
    let near = |t: f32| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
    let far = |t: f32| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
    [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)]
}

impl Op for Resize {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new()
            .str("mode", self.mode)
            .str("coordinate_transformation_mode", self.coordinates)
            .str("nearest_mode", self.nearest)
            .float("cubic_coeff_a", self.cubic_a)
            .int("exclude_outside", i64::from(self.exclude_outside))
            .float("extrapolation_value", self.extrapolation)
            .floats("scales", &self.scales)
            .at_place(Place::Input(2))
            .dims("sizes", &self.sizes)
            .at_place(Place::Input(3));
        if self.roi.is_empty() { attrs } else { attrs.floats("roi", &self.roi).at_place(Place::Input(1)) }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (roi, scales and sizes are attributes)")?;
        if self.mode != "nearest" {
            check::f32(inputs, 0)?;
        }
        let x = &inputs[0];
        let rank = x.rank();
        let scales_fit = self.scales.iter().all(|s| s.is_finite() && *s > 0.0);
        let roi_fits = self.roi.len() == 2 * rank || self.coordinates != "tf_crop_and_resize";
        if self.scales.len() != rank || self.sizes.len() != rank || !scales_fit || !roi_fits {
            return Err(OpError::Attribute {
                name: "scales".into(),
                value: format!("{:?}, sizes {:?}", self.scales, self.sizes),
                supported: format!("positive numbers, one for each of {rank} axes"),
            });
        }
        let out = TensorType { dtype: x.dtype, shape: self.sizes.clone() };
        for (axis, (d, size)) in x.shape.iter().zip(&self.sizes).enumerate() {
            match (d, size) {
                _ if self.keeps(axis, *d) => {}
                (Dim::Fixed(0), Dim::Fixed(n)) if *n > 0 => {
                    return Err(OpError::shape(0, "pixels to resize", x));
                }
                (Dim::Fixed(_), Dim::Fixed(_)) => {}
                _ => return Err(OpError::SymbolicDim { input: 0, axis }),
            }
        }
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let out = self.infer(&[x.ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        let view = |shape: &[usize]| View { dtype: out.dtype, shape: shape.to_vec(), layout: Layout::Linear };
        let (from, to) = (view(x.shape()), view(&shape));
        if self.mode == "nearest" || to.is_empty() {
            return Ok(vec![moved(cx, &shape, &[x], &self.lookup(&from, &to))?]);
        }
        let mut y = cx.take(to.len());
        let x = x.f32s();
        self.resample(&from, &to).run(|i| x[i], &mut y, |sum| sum.unwrap_or(self.extrapolation));
        Ok(vec![Tensor::from_f32(shape, y)])
    }

    /// Groups of four channels stay groups unless the fill would get into the padding lanes.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let x = &inputs[0];
        if x.rank() >= 3 && self.roi.is_empty() && self.keeps(1, x.shape[1]) {
            Layouts::Any
        } else {
            Layouts::Linear
        }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        if self.mode != "nearest" {
            return self.resample(x, y).lower(self.extrapolation);
        }
        let fill = self.fill();
        let word = if x.dtype == DType::F32 { fill.float.to_bits() } else { fill.int.cast_unsigned() };
        Ok(self.lookup(x, y).lower(word))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match self.mode {
            "nearest" => QuantRule::Codes,
            "linear" => QuantRule::Compute,
            _ => QuantRule::Float,
        }
    }

    fn has_integer_form(&self) -> bool {
        self.is_on_codes()
    }

    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        self.is_on_codes().then(|| self.of_codes(params, inputs)).transpose()
    }

    fn integer_layouts(&self, _params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        self.code_layouts(inputs)
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        self.is_on_codes().then(|| self.lower_codes(params, io)).transpose()
    }
}
