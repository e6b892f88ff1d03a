//! `GridSample`: a picture sampled at points that another tensor gives.
//!
//! *Shapes*: `x [n, c, h, w], grid [n, oh, ow, 2] -> [n, c, oh, ow]`; a point is (horizontal, vertical), and -1..1 is
//! the whole picture, from the centres of the outer pixels (`align_corners`) or from their outer edges.

pub(super) mod codes;

use super::strided::signed;
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `grid_sample.wgsl`.
    struct Params {
        groups: u32,
        c4: u32,
        h: u32,
        w: u32,
        pixels: u32,
        taps: u32,
        padding: u32,
        align_corners: u32,
    }
}

static KERNEL: Kernel = crate::kernel!(
    "grid_sample",
    Params,
    ["shared/grid.wgsl", "shared/bits.wgsl", "shared/round_even.wgsl", "grid_sample.wgsl"]
);

/// ONNX names them anew in operator set 20.
const MODES: &[&str] = &["linear", "nearest", "cubic", "bilinear", "bicubic"];
const PADDINGS: &[&str] = &["zeros", "border", "reflection"];

#[derive(Debug)]
struct GridSample {
    mode: &'static str,
    padding: &'static str,
    align_corners: bool,
}

pub(super) static DEF: OpDef =
    OpDef { name: "GridSample", onnx: &["GridSample"], read, kernels: &[&KERNEL], samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let mode = match r.one_of("mode", "linear", MODES)? {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        mode => mode,
    };
    let padding = r.one_of("padding_mode", "zeros", PADDINGS)?;
    Ok(Arc::new(GridSample { mode, padding, align_corners: r.flag("align_corners", false)? }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for mode in &MODES[..3] {
        for padding in PADDINGS {
            for align in [0, 1] {
                let (c, h, w) = (rng.int(1, 9), rng.int(1, 5), rng.int(1, 7));
                let (oh, ow) = (rng.int(1, 4), rng.int(1, 6));
                let n = rng.pick(&[1, 7]);
                let attrs = Attrs::new().str("mode", mode).str("padding_mode", padding);
                let attrs = attrs.int("align_corners", align);
                let grid = [n, oh, ow, 2];
                let grid = match *mode {
                    // Steps of 1/64 make every product exact, so that both executors round the same number.
                    "nearest" => {
                        #[allow(clippy::cast_precision_loss, reason = "small integers")]
                        let points = (0..n * oh * ow * 2).map(|_| rng.int(0, 192) as f32 / 64.0 - 1.5);
                        SampleInput::of(grid, Fill::Exact(Tensor::from_f32(grid, points.collect())))
                    }
                    _ => SampleInput::of(grid, Fill::Range(-1.6, 1.6)),
                };
                let x = SampleInput::f32([n, c, h, w]);
                // A device may fuse multiply and add, which moves a point by about 2^-23 pixels of up to 7, and a
                // picture of values in -2..2 has a slope of at most 4, and 6 where it is interpolated by cubics.
                out.push(Sample::new(attrs, [x, grid]).reduction(16).extra(1e-5));
            }
        }
    }
    out.push(Sample::new(Attrs::new(), [SampleInput::f32([2, 3, 4, 5]), SampleInput::f32([2, 0, 3, 2])]));
    out
}

/// A sampled pixel: its index in the plane and its weight.
type Tap = (u32, f32);

impl GridSample {
    fn taps(&self) -> usize {
        match self.mode {
            "nearest" => 1,
            "linear" => 2,
            _ => 4,
        }
    }

    fn unnormalize(&self, v: f32, d: f32) -> f32 {
        if self.align_corners { (v + 1.0) * 0.5 * (d - 1.0) } else { ((v + 1.0) * d - 1.0) * 0.5 }
    }

    fn reflected(&self, v: f32, d: f32) -> f32 {
        let low = if self.align_corners { 0.0 } else { -0.5 };
        let span = d - 1.0 - 2.0 * low;
        if span <= 0.0 {
            return 0.0;
        }
        let beyond = (v - low).abs();
        let turns = (beyond / span).floor();
        let rest = beyond - turns * span;
        let is_odd = turns - 2.0 * (turns * 0.5).floor() > 0.5;
        if is_odd { low + span - rest } else { low + rest }
    }

    fn pixel(&self, v: f32, d: f32) -> Option<u32> {
        let at = match self.padding {
            "border" => v.clamp(0.0, d - 1.0),
            "reflection" => self.reflected(v, d).clamp(0.0, d - 1.0),
            _ => v,
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "inside the axis, whose length is an integer"
        )]
        (at >= 0.0 && at <= d - 1.0).then_some(at as u32)
    }

    fn weights(&self, s: f32) -> [f32; 4] {
        let a = -0.75;
        let far = |t: f32| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
        let near = |t: f32| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
        match self.mode {
            "nearest" => [1.0, 0.0, 0.0, 0.0],
            "linear" => [1.0 - s, s, 0.0, 0.0],
            _ => [far(1.0 + s), near(s), near(1.0 - s), far(2.0 - s)],
        }
    }

    /// The taps of one point, row after row; those outside the picture have weight 0.
    #[allow(clippy::cast_precision_loss, reason = "lengths of axes and indices of taps are small")]
    fn point(&self, point: [f32; 2], h: usize, w: usize, out: &mut Vec<Tap>) {
        let taps = self.taps();
        let size = [w as f32, h as f32];
        let at = [0, 1].map(|k| self.unnormalize(point[k], size[k]));
        let low = at.map(|v| if taps == 1 { v.round_ties_even() } else { v.floor() });
        let [wx, wy] = [0, 1].map(|k| self.weights(at[k] - low[k]));
        let first = if taps == 4 { 1.0 } else { 0.0 };
        for (r, wy) in wy.iter().enumerate().take(taps) {
            let row = self.pixel(low[1] - first + r as f32, size[1]);
            for (q, wx) in wx.iter().enumerate().take(taps) {
                let column = self.pixel(low[0] - first + q as f32, size[0]);
                out.push(match (row, column) {
                    (Some(row), Some(column)) => (row * u32(w) + column, wy * wx),
                    _ => (0, 0.0),
                });
            }
        }
    }
}

impl Op for GridSample {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().str("mode", self.mode).str("padding_mode", self.padding);
        attrs.int("align_corners", i64::from(self.align_corners))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2")?;
        check::f32(inputs, 0)?;
        check::f32(inputs, 1)?;
        for (input, t) in inputs.iter().enumerate() {
            if t.rank() != 4 {
                return Err(OpError::Rank { input, expected: "4", got: t.rank() });
            }
        }
        let (x, grid) = (&inputs[0], &inputs[1]);
        if grid.shape[0] != x.shape[0] || grid.shape[3].fixed() != Some(2) {
            return Err(OpError::shape(1, format!("[{}, height, width, 2]", x.shape[0]), grid));
        }
        let (h, w) = (check::fixed(inputs, 0, 2)?, check::fixed(inputs, 0, 3)?);
        // Coordinates of pixels must be exact in f32.
        if h == 0 || w == 0 || signed(h.max(w)) > 1 << 24 {
            return Err(OpError::shape(0, "of 1 to 2^24 pixels in height and width", x));
        }
        let out = TensorType::new(x.dtype, [x.shape[0], x.shape[1], grid.shape[1], grid.shape[2]]);
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, grid] = inputs else { unreachable!("infer takes two inputs") };
        let [n, c, h, w] = x.shape()[..] else { unreachable!("infer takes rank 4") };
        let (oh, ow) = (grid.shape()[1], grid.shape()[2]);
        let (pixels, per_pixel) = (oh * ow, self.taps() * self.taps());
        let mut y = cx.zeros(n * c * pixels);
        if y.is_empty() {
            return Ok(vec![Tensor::from_f32([n, c, oh, ow], y)]);
        }
        let mut taps = Vec::with_capacity(pixels * per_pixel);
        for (b, y) in y.chunks_mut(c * pixels).enumerate() {
            taps.clear();
            for p in grid.f32s()[b * pixels * 2..][..pixels * 2].chunks_exact(2) {
                self.point([p[0], p[1]], h, w, &mut taps);
            }
            y.par_chunks_mut(pixels).enumerate().for_each(|(channel, y)| {
                let plane = &x.f32s()[(b * c + channel) * h * w..][..h * w];
                for (y, taps) in y.iter_mut().zip(taps.chunks_exact(per_pixel)) {
                    // A pixel outside adds nothing, even where pixel 0 is not finite.
                    let inside = taps.iter().filter(|(_, w)| *w != 0.0);
                    *y = inside.fold(0.0, |acc, (i, w)| acc + w * plane[*i as usize]);
                }
            });
        }
        Ok(vec![Tensor::from_f32([n, c, oh, ow], y)])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        let inputs = vec![Layout::ChannelsLast, Layout::Linear];
        Layouts::Exact { inputs, outputs: vec![Layout::ChannelsLast] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        let c4 = y.shape[1].div_ceil(4);
        let pixels = y.shape[2] * y.shape[3];
        let groups = y.shape[0] * pixels * c4;
        let place = |name: &str, all: &[&str]| all.iter().position(|v| *v == name).unwrap_or(0);
        let params = Params {
            groups: u32(groups),
            c4: u32(c4),
            h: u32(x.shape[2]),
            w: u32(x.shape[3]),
            pixels: u32(pixels),
            taps: u32(self.taps()),
            padding: u32(place(self.padding, PADDINGS)),
            align_corners: u32::from(self.align_corners),
        };
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(groups))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        if self.mode == "cubic" { QuantRule::Float } else { QuantRule::Compute }
    }

    fn has_integer_form(&self) -> bool {
        self.mode != "cubic"
    }

    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        self.has_integer_form().then(|| self.of_codes(params, inputs)).transpose()
    }

    fn integer_layouts(&self, _params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        self.layouts(inputs)
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        self.has_integer_form().then(|| self.lower_codes(params, io)).transpose()
    }
}
