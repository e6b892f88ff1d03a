//! `AveragePool` and `LpPool`: sums over a window, of elements or of powers of their magnitudes.

use super::window::{Axis, Window, WindowParams};
use crate::graph::codes::codes_of;
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::{Attrs, CodeOutput, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::ops::broadcast::extent;
use crate::ops::integer::device::{FinishParams, Finisher, MEAN_IN_F32, four};
use crate::ops::integer::means::Means;
use crate::quant::Requantize;
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `sum_pool.wgsl`.
    struct Params { window: WindowParams, n4: u32, c4: u32, padded: u32, p: u32 }
}

crate::params! {
    /// `Params` of `average_codes.wgsl`.
    struct MeanParams { finish: FinishParams, window: WindowParams, n4: u32, c4: u32, c: u32, padded: u32, none: u32 }
}

macro_rules! kernel {
    ($file:literal) => {
        crate::kernel!($file, Params, ["shared/grid.wgsl", "shared/pool_window.wgsl", $file, "sum_pool.wgsl"])
    };
}

static AVERAGE_KERNEL: Kernel = kernel!("pool/average.wgsl");
static NORM_KERNEL: Kernel = kernel!("pool/norm.wgsl");
pub(in crate::ops) static CODES: Kernel = crate::kernel!(
    "average_codes",
    MeanParams,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/codes.wgsl",
        "shared/load_codes.wgsl",
        "shared/store_codes.wgsl",
        "shared/pool_window.wgsl",
        "shared/wide.wgsl",
        "shared/requantize.wgsl",
        "shared/finish.wgsl",
        "shared/float.wgsl",
        "shared/sums_i64.wgsl",
        "average_codes.wgsl"
    ]
);

pub(in crate::ops) static AVERAGE: OpDef = OpDef {
    name: "AveragePool",
    onnx: &["AveragePool"],
    read: |r| {
        let kind = Kind::Average { padded: r.flag("count_include_pad", false)? };
        Ok(Arc::new(SumPool { window: Window::read(r)?, kind }))
    },
    kernels: &[&AVERAGE_KERNEL],
    samples: super::samples::average,
};

pub(in crate::ops) static LP: OpDef = OpDef {
    name: "LpPool",
    onnx: &["LpPool"],
    read: read_lp,
    kernels: &[&NORM_KERNEL],
    samples: super::samples::lp,
};

#[derive(Debug)]
enum Kind {
    /// `padded`: the padding counts as elements.
    Average {
        padded: bool,
    },
    Lp {
        p: u8,
    },
}

#[derive(Debug)]
struct SumPool {
    window: Window,
    kind: Kind,
}

fn read_lp(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let p = r.int("p", 2)?;
    let known = u8::try_from(p).ok().filter(|p| (1..=8).contains(p));
    let p = known.ok_or_else(|| r.unsupported("p", p, "1 to 8"))?;
    Ok(Arc::new(SumPool { window: Window::read(r)?, kind: Kind::Lp { p } }))
}

impl SumPool {
    fn plane(&self, axes: &[Axis; 3], x: &[f32], y: &mut [f32]) {
        let [d, h, w] = axes;
        let columns: Vec<Vec<usize>> = (0..w.output).map(|o| w.taps(o).collect()).collect();
        for (o, y) in y.iter_mut().enumerate() {
            let (od, oh, ow) = (o / w.output / h.output, o / w.output % h.output, o % w.output);
            let mut total = 0.0f32;
            let mut inside = 0;
            for pd in d.taps(od) {
                for ph in h.taps(oh) {
                    let row = &x[(pd * h.input + ph) * w.input..][..w.input];
                    inside += columns[ow].len();
                    match self.kind {
                        Kind::Average { .. } => columns[ow].iter().for_each(|p| total += row[*p]),
                        Kind::Lp { p: power } => {
                            columns[ow].iter().for_each(|p| total += row[*p].abs().powi(i32::from(power)));
                        }
                    }
                }
            }
            *y = match self.kind {
                Kind::Average { padded } => {
                    let all = d.padded_taps(od) * h.padded_taps(oh) * w.padded_taps(ow);
                    let counted = if padded { all } else { inside };
                    #[allow(clippy::cast_precision_loss, reason = "a window has fewer than 2^24 taps")]
                    let counted = counted.max(1) as f32;
                    total / counted
                }
                Kind::Lp { p: 1 } => total,
                Kind::Lp { p: 2 } => total.sqrt(),
                Kind::Lp { p } => total.powf(1.0 / f32::from(p)),
            };
        }
    }
}

/// Whether means are taken in f32, and the zero point is added before they are rounded, as ONNX Runtime does.
fn in_f32(params: &CodeParams, axes: &[Axis; 3]) -> bool {
    let codes = params.output != CodeOutput::Real;
    codes && params.arithmetic.requantize == Requantize::Float && !axes.iter().all(Axis::is_whole)
}

impl Op for SumPool {
    fn def(&self) -> &'static OpDef {
        match self.kind {
            Kind::Average { .. } => &AVERAGE,
            Kind::Lp { .. } => &LP,
        }
    }

    fn attrs(&self) -> Attrs {
        match self.kind {
            Kind::Average { padded } => self.window.attrs().int("count_include_pad", i64::from(padded)),
            Kind::Lp { p } => self.window.attrs().int("p", i64::from(p)),
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        let out = TensorType { dtype: inputs[0].dtype, shape: self.window.infer(inputs)? };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let shape = self.infer(&[x.ty()])?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let mut y = cx.take(shape.iter().product());
        let axes = self.window.axes(x.shape()).expect("checked by infer");
        let pixels = |f: fn(&Axis) -> usize| axes.iter().map(f).product::<usize>();
        let planes = y.par_chunks_mut(pixels(|a| a.output)).zip(x.f32s().par_chunks(pixels(|a| a.input)));
        planes.for_each(|(y, x)| self.plane(&axes, x, y));
        Ok(vec![Tensor::from_f32(shape, y)])
    }

    fn has_integer_form(&self) -> bool {
        matches!(self.kind, Kind::Average { .. })
    }

    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let Kind::Average { padded } = self.kind else { return Ok(None) };
        let params = &if padded { params.clone() } else { params.of_mean() };
        let shape = inputs[0].shape();
        let ty = TensorType::new(DType::F32, shape.to_vec());
        let out = self.infer(&[ty])?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let x = params.input(0)?;
        let axes = self.window.axes(shape).expect("checked by infer");
        if in_f32(params, &axes) {
            let y = params.output()?;
            let numbers: Vec<f32> = codes_of(inputs, 0)?.into_iter().map(|q| x.dequantize(q)).collect();
            let mut means = vec![0.0; out.iter().product()];
            let pixels = |f: fn(&Axis) -> usize| axes.iter().map(f).product::<usize>().max(1);
            let planes =
                means.par_chunks_mut(pixels(|a| a.output)).zip(numbers.par_chunks(pixels(|a| a.input)));
            planes.for_each(|(y, x)| self.plane(&axes, x, y));
            #[allow(clippy::cast_precision_loss, reason = "zero points have at most 16 bits")]
            let codes: Vec<i32> =
                means.iter().map(|m| y.place_code(m / y.scale() + y.zero_point() as f32)).collect();
            return Ok(Some(params.store(&out, &codes)));
        }
        let codes = codes_of(inputs, 0)?;
        let [d, h, w] = axes;
        let (plane, pixels) = (d.input * h.input * w.input, d.output * h.output * w.output);
        let place = |o: usize| (o / w.output / h.output, o / w.output % h.output, o % w.output);
        // The same for a position in all planes.
        let counts = (0..pixels).map(place).map(|(od, oh, ow)| {
            let inside = d.taps(od).count() * h.taps(oh).count() * w.taps(ow).count();
            let all = d.padded_taps(od) * h.padded_taps(oh) * w.padded_taps(ow);
            if padded { all } else { inside }
        });
        let means = Means::new(params, counts)?;
        let y = means.output(params, &out, |i| {
            let (codes, o) = (&codes[i / pixels * plane..][..plane], i % pixels);
            let (od, oh, ow) = place(o);
            let mut sum = 0i64;
            for pd in d.taps(od) {
                for ph in h.taps(oh) {
                    let row = &codes[(pd * h.input + ph) * w.input..][..w.input];
                    sum += w.taps(ow).map(|p| x.steps(row[p])).sum::<i64>();
                }
            }
            (sum, o)
        });
        Ok(Some(y))
    }

    fn integer_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        Layouts::Exact {
            inputs: vec![Layout::channels_last(inputs[0].dtype)],
            outputs: vec![Layout::channels_last(params.output.dtype())],
        }
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        let Kind::Average { padded } = self.kind else { return Ok(None) };
        let params = &if padded { params.clone() } else { params.of_mean() };
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        let axes = self.window.axes(&x.shape).ok_or_else(|| OpError::shape(0, "one that fits", &x.ty()))?;
        let finisher = if in_f32(params, &axes) {
            let scales = [params.input(0)?.scale(), params.output()?.scale()].map(f32::to_bits);
            Finisher::of_words(
                params,
                MEAN_IN_F32,
                scales.into_iter().flat_map(|s| four([s, 0, 0])).collect(),
            )?
        } else {
            let taps = axes.iter().map(|a| a.kernel).product::<usize>();
            Means::new(params, 0..=taps)?.finisher(params)?
        };
        let [n4, _, c, c4] = extent(y);
        let of = MeanParams {
            finish: finisher.params,
            window: WindowParams::new(&axes),
            n4,
            c4,
            c,
            padded: u32::from(padded),
            none: 0,
        };
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let dispatch = Dispatch::new(&CODES, &of, bind, flat_grid(n4 as usize));
        Ok(Some(finisher.run(dispatch.with("X_FORM", x.form()).with("Y_FORM", y.form()))))
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Exact { inputs: vec![Layout::ChannelsLast], outputs: vec![Layout::ChannelsLast] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        let axes = self.window.axes(&x.shape).ok_or_else(|| OpError::shape(0, "one that fits", &x.ty()))?;
        let n4 = y.place().len() / 4;
        let (padded, p) = match self.kind {
            Kind::Average { padded } => (u32::from(padded), 1),
            Kind::Lp { p } => (0, u32::from(p)),
        };
        let c4 = u32(x.shape[1].div_ceil(4));
        let params = Params { window: WindowParams::new(&axes), n4: u32(n4), c4, padded, p };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(self.def().kernels[0], &params, bind, flat_grid(n4))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match self.kind {
            Kind::Lp { .. } => QuantRule::Float,
            Kind::Average { .. } => QuantRule::Mean,
        }
    }
}
