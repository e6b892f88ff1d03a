//! `Conv`: convolution over one, two or three spatial axes, with groups.
//!
//! *Shapes*: `[n, c, spatial..], [o, c / group, kernel..], [o]? -> [n, o, spatial..]`.

pub(super) mod codes;
mod cpu;
mod depthwise;
mod pairs;
mod samples;
pub(super) mod window;

use crate::graph::epilogue::EpilogueParams;
use crate::graph::lower::{
    Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, summable, u32,
};
use crate::graph::op::check;
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::ops::integer::pairs::saturate;
use crate::ops::integer::sums::{Finish, is_narrow, steps_of};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;
use window::{AutoPad, Window, check_operands, three};

crate::params! {
    /// `Params` of `shared/window.wgsl`.
    pub(super) struct Params {
        epilogue: EpilogueParams,
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

/// Output pixels and channels of one invocation of `conv.wgsl`, pixels of one of `conv_depthwise.wgsl`.
pub(super) const TILE: (usize, usize) = (8, 16);
const DEPTHWISE_PIXELS: usize = 4;

/// A kernel of convolutions of numbers.
macro_rules! kernel {
    ($name:literal, $slide:literal, $($main:literal),+) => {
        crate::kernel!(
            $name,
            $crate::ops::conv::Params,
            [
                "shared/grid.wgsl",
                "shared/lanes.wgsl",
                "shared/bits.wgsl",
                "shared/quantize.wgsl",
                "shared/nan_count.wgsl",
                "shared/epilogue.wgsl",
                "shared/sums_f32.wgsl",
                "shared/window.wgsl",
                "shared/window_f32.wgsl",
                $slide,
                $($main),+
            ]
        )
    };
}

pub(super) use kernel;

static DENSE: Kernel = kernel!("conv", "shared/slide.wgsl", "shared/tile_rows.wgsl", "conv.wgsl");
static GROUPED: Kernel = kernel!("conv_grouped", "shared/slide.wgsl", "conv_grouped.wgsl");
static DEPTHWISE: Kernel = kernel!("conv_depthwise", "shared/slide.wgsl", "conv_depthwise.wgsl");

pub(super) static DEF: OpDef = OpDef {
    name: "Conv",
    onnx: &["Conv"],
    read,
    kernels: &[&DENSE, &GROUPED, &DEPTHWISE],
    samples: samples::samples,
};

#[derive(Debug)]
struct Conv {
    window: Window,
    groups: usize,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let groups = read_groups(r)?;
    let (mut window, auto) = Window::read(r)?;
    if matches!(auto, AutoPad::SameUpper | AutoPad::SameLower) {
        let x = r.input(0)?;
        if x.rank() != window.rank() + 2 {
            let expected = ["3", "4", "5"][window.rank() - 1];
            return Err(OpError::Rank { input: 0, expected, got: x.rank() });
        }
        let lengths: Vec<Option<usize>> = x.shape[2..].iter().map(|d| d.fixed()).collect();
        for (i, len) in lengths.into_iter().enumerate() {
            let len = len.ok_or(OpError::SymbolicDim { input: 0, axis: i + 2 })?;
            let stride = window.strides[i];
            let covered =
                (len.div_ceil(stride).max(1) - 1).saturating_mul(stride).saturating_add(window.extent(i));
            window.pad(i, covered.saturating_sub(len), auto);
        }
    }
    Ok(Arc::new(Conv { window, groups }))
}

/// Attribute `group`.
pub(super) fn read_groups(r: &mut Reader) -> Result<usize, OpError> {
    let v = r.int("group", 1)?;
    let groups = usize::try_from(v).ok().filter(|g| *g > 0);
    groups.ok_or_else(|| r.unsupported("group", v, "1 or more"))
}

impl Conv {
    fn kernel(&self, c_group: usize, o: usize) -> &'static Kernel {
        let o_group = o / self.groups;
        if self.groups > 1 && c_group == 1 && o_group == 1 {
            &DEPTHWISE
        } else if self.groups == 1 || (c_group.is_multiple_of(4) && o_group.is_multiple_of(TILE.1)) {
            &DENSE
        } else {
            &GROUPED
        }
    }
}

impl Op for Conv {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        self.window.attrs(Attrs::new()).int("group", i64::try_from(self.groups).unwrap_or(i64::MAX))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let (spatial, weights) = check_operands(&self.window, inputs)?;
        let (o, c) = (weights[0], check::fixed(inputs, 0, 1)?);
        if !o.is_multiple_of(self.groups) || self.groups.checked_mul(weights[1]) != Some(c) {
            let expected = format!("[multiple of {g}, {c} / {g}, ..] for {g} groups", g = self.groups);
            return Err(OpError::shape(1, expected, &inputs[1]));
        }
        if inputs.get(2).is_some_and(|b| b.shape != [Dim::Fixed(o)]) {
            return Err(OpError::shape(2, format!("[{o}]"), &inputs[2]));
        }
        let mut shape = vec![inputs[0].shape[0], Dim::Fixed(o)];
        for (i, len) in spatial.iter().enumerate() {
            let (w, extent) = (&self.window, self.window.extent(i));
            let padded = len + w.pads_begin[i] + w.pads_end[i];
            if padded < extent {
                let expected = format!("at least {extent} on axis {} with its padding", i + 2);
                return Err(OpError::shape(0, expected, &inputs[0]));
            }
            shape.push(Dim::Fixed((padded - extent) / w.strides[i] + 1));
        }
        let out = TensorType { dtype: DType::F32, shape };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
        let out = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let y = cpu::conv(cx, &self.window, self.groups, inputs, &out);
        Ok(vec![Tensor::from_f32(out, y)])
    }

    fn has_integer_form(&self) -> bool {
        true
    }

    fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let [x, w] = [inputs[0].shape(), inputs[1].shape()];
        let types = [x, w].map(|s| TensorType::new(DType::F32, s.to_vec()));
        let out = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let finish = Finish::new(params, inputs, &out, 1)?;
        if saturate(params) {
            let sums = pairs::sums(&self.window, self.groups, params, inputs, &out)?;
            return Ok(Some(finish.apply(cx, params, &out, &sums)));
        }
        if let Some(y) = depthwise::of_codes(cx, &self.window, self.groups, params, inputs, &out, &finish) {
            return Ok(Some(y));
        }
        if let Some(y) = cpu::of_bytes(cx, &self.window, self.groups, params, inputs, &out, &finish) {
            return Ok(Some(y));
        }
        let x = (x, &steps_of(params, inputs, 0)?[..]);
        let w = (w, &steps_of(params, inputs, 1)?[..]);
        let (window, groups) = (&self.window, self.groups);
        if let Some(sums) = cpu::float_sums(cx, window, groups, params, x, w, &out) {
            return Ok(Some(finish.apply(cx, params, &out, &sums)));
        }
        Ok(Some(if is_narrow(params) {
            finish.apply(cx, params, &out, &cpu::sums::<i32>(window, groups, x, w, &out))
        } else {
            finish.apply(cx, params, &out, &cpu::sums::<i64>(window, groups, x, w, &out))
        }))
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let dim = |axis: usize| inputs[1].shape[axis].fixed().unwrap_or(0);
        let depthwise = std::ptr::eq(self.kernel(dim(1), dim(0)), &DEPTHWISE);
        let weights = if depthwise { Layout::DepthwiseWeights } else { Layout::ConvWeights };
        let all = [Layout::ChannelsLast, weights, Layout::Vector4];
        Layouts::Exact { inputs: all[..inputs.len()].to_vec(), outputs: vec![Layout::ChannelsLast] }
    }

    fn integer_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        self.code_layouts(params, inputs)
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        self.lower_codes(params, io).map(Some)
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, w, y) = (&io.inputs[0].shape, &io.inputs[1].shape, &io.outputs[0].shape);
        if io.outputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        summable(w[1..].iter().product())?;
        let kernel = self.kernel(w[1], w[0]);
        let bias = io.inputs.len() > 2;
        let params = window_params(&self.window, x, y, w[1], w[0] / self.groups, bias);
        let (pixels, o4) = (params.pixels as usize, y[1].div_ceil(4));
        let invocations = if std::ptr::eq(kernel, &DENSE) {
            pixels.div_ceil(TILE.0) * y[1].div_ceil(TILE.1)
        } else if std::ptr::eq(kernel, &DEPTHWISE) {
            pixels.div_ceil(DEPTHWISE_PIXELS) * o4
        } else {
            pixels * o4
        };
        // Without a bias its binding is not read.
        let b = Operand::Input(if bias { 2 } else { 1 });
        let bind = [Operand::Input(0), Operand::Input(1), b, Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(invocations))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Gemm { channel_axis: 0 }
    }
}

/// Parameters of a window over `x` that gives `y`, with groups of `cg` input and `og` output channels.
pub(super) fn window_params(
    window: &Window,
    x: &[usize],
    y: &[usize],
    cg: usize,
    og: usize,
    bias: bool,
) -> Params {
    let axes = window.three();
    let four = |v: [usize; 3], last: usize| [u32(v[0]), u32(v[1]), u32(v[2]), u32(last)];
    Params {
        epilogue: EpilogueParams::default(),
        input: four(three(x), x[1].div_ceil(4)),
        output: four(three(y), y[1].div_ceil(4)),
        kernel: four(axes.map(|a| a.kernel), cg.div_ceil(4)),
        stride: four(axes.map(|a| a.stride), 0),
        dilation: four(axes.map(|a| a.dilation), 0),
        pad: four(axes.map(|a| a.pad), 0),
        pixels: u32(y[0] * three(y).iter().product::<usize>()),
        o: u32(y[1]),
        cg: u32(cg),
        og: u32(og),
        bias: u32::from(bias),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Source;
    use crate::graph::attrs::Input;
    use crate::graph::sample::{Rng, Sample};

    fn op(attrs: &Attrs, inputs: &[Tensor]) -> Result<Arc<dyn Op>, OpError> {
        let inputs = inputs.iter().map(|t| Some(Input { ty: t.ty(), known: None })).collect();
        read(&mut Reader::new(Source::Onnx(21), "Conv", attrs.clone(), inputs, 1))
    }

    fn eval(op: &dyn Op, inputs: &[Tensor]) -> Tensor {
        op.eval(&Scratch::new(), inputs).unwrap().remove(0)
    }

    fn draw(sample: &Sample, rng: &mut Rng) -> Vec<Tensor> {
        sample.inputs.iter().map(|i| i.draw(rng)).collect()
    }

    /// One output element after ONNX's formula, in f64.
    fn element(w: &Window, groups: usize, t: &[Tensor], y: &[usize], at: usize) -> f64 {
        let ([id, ih, iw], [od, oh, ow], [ad, ah, aw]) = (three(t[0].shape()), three(y), w.three());
        let (c, o) = (t[1].shape()[1], y[1]);
        let (px, py, pz) = (at / (oh * ow) % od, at / ow % oh, at % ow);
        let (n, oc) = (at / (od * oh * ow) / o, at / (od * oh * ow) % o);
        let mut sum = t.get(2).map_or(0.0, |b| f64::from(b.f32s()[oc]));
        let inside = |o: usize, k: usize, a: window::Axis, len: usize| {
            (o * a.stride + k * a.dilation).checked_sub(a.pad).filter(|i| *i < len)
        };
        for (i, w) in t[1].f32s()[oc * c * ad.kernel * ah.kernel * aw.kernel..]
            .iter()
            .take(c * ad.kernel * ah.kernel * aw.kernel)
            .enumerate()
        {
            let (kd, kh, kw) =
                (i / (ah.kernel * aw.kernel) % ad.kernel, i / aw.kernel % ah.kernel, i % aw.kernel);
            let ci = n * t[0].shape()[1] + oc / (o / groups) * c + i / (ad.kernel * ah.kernel * aw.kernel);
            let place = (inside(px, kd, ad, id), inside(py, kh, ah, ih), inside(pz, kw, aw, iw));
            if let (Some(d), Some(h), Some(x)) = place {
                sum += f64::from(*w) * f64::from(t[0].f32s()[((ci * id + d) * ih + h) * iw + x]);
            }
        }
        sum
    }

    #[test]
    fn every_sample_is_the_sum_that_onnx_states() {
        let mut rng = Rng::new(3);
        for sample in samples::samples(&mut rng) {
            let inputs = draw(&sample, &mut rng);
            let groups = sample.attrs.0.iter().find(|(k, _)| k == "group").map_or(1, |(_, v)| match v {
                crate::graph::AttrValue::Int(g) => usize::try_from(*g).unwrap(),
                _ => unreachable!(),
            });
            let types = inputs.iter().map(|t| Some(Input { ty: t.ty(), known: None })).collect();
            let mut r = Reader::new(Source::Onnx(21), "Conv", sample.attrs.clone(), types, 1);
            let window = Window::read(&mut r).unwrap().0;
            let y = eval(&*op(&sample.attrs, &inputs).unwrap(), &inputs);
            for (i, v) in y.f32s().iter().enumerate() {
                let exact = element(&window, groups, &inputs, y.shape(), i);
                assert!((f64::from(*v) - exact).abs() < 1e-4, "{:?} element {i}: {v} {exact}", sample.attrs);
            }
        }
    }

    #[test]
    fn batch_and_threads_do_not_change_a_bit() {
        let mut rng = Rng::new(4);
        let mut draw = |shape: &[usize]| {
            let n = shape.iter().product();
            Tensor::from_f32(shape, (0..n).map(|_| rng.float(-1.0, 1.0)).collect())
        };
        let attrs = Attrs::new().sizes("pads", &[1, 1, 1, 1]);
        for (c, o, k, h) in [(40, 33, 3, 11), (70, 130, 1, 13), (3, 17, 3, 40)] {
            let (x, w, b) = (draw(&[7, c, h, h]), draw(&[o, c, k, k]), draw(&[o]));
            let all = [x.clone(), w.clone(), b.clone()];
            let op = op(&attrs, &all).unwrap();
            let want = eval(&*op, &all);
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| eval(&*op, &all)), want, "{threads} threads");
                let one = c * h * h;
                let parts = x.f32s().chunks(one).flat_map(|x| {
                    let x = Tensor::from_f32([1, c, h, h], x.to_vec());
                    pool.install(|| eval(&*op, &[x, w.clone(), b.clone()])).f32s().to_vec()
                });
                assert_eq!(
                    Tensor::from_f32(want.shape(), parts.collect()),
                    want,
                    "one by one, {threads} threads"
                );
            }
        }
    }

    fn shape_of(attrs: &Attrs, x: &[usize], w: &[usize]) -> Result<Vec<usize>, OpError> {
        let inputs = [Tensor::zeros(DType::F32, x), Tensor::zeros(DType::F32, w)];
        let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
        Ok(op(attrs, &inputs)?.infer(&types)?.remove(0).dims().unwrap())
    }

    #[test]
    fn padding_is_resolved_when_read() {
        let same = |how: &str| Attrs::new().str("auto_pad", how).sizes("strides", &[2, 3]);
        for (how, pads) in [("SAME_UPPER", [0, 1, 1, 1]), ("SAME_LOWER", [1, 1, 0, 1])] {
            let x = [Tensor::zeros(DType::F32, [1, 2, 6, 7]), Tensor::zeros(DType::F32, [5, 2, 3, 3])];
            let op = op(&same(how), &x).unwrap();
            let pads = crate::graph::AttrValue::Ints(pads.map(crate::graph::attrs::SymInt::Int).to_vec());
            assert!(op.attrs().0.contains(&("pads".to_owned(), pads)), "{how}: {:?}", op.attrs());
            assert_eq!(shape_of(&same(how), &[1, 2, 6, 7], &[5, 2, 3, 3]).unwrap(), [1, 5, 3, 3]);
        }
        assert_eq!(shape_of(&same("VALID"), &[1, 2, 6, 7], &[5, 2, 3, 3]).unwrap(), [1, 5, 2, 2]);
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let none = Attrs::new();
        let bad = [
            (none.clone(), vec![1, 2, 6], vec![5, 2, 3, 3]),
            (none.clone(), vec![1, 2, 6, 2], vec![5, 2, 3, 3]),
            (none.clone(), vec![1, 3, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().sizes("kernel_shape", &[2, 3]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().int("group", 0), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().int("group", i64::MAX), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().int("group", 2), vec![1, 4, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().ints("pads", [0, -1, 0, 0]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().ints("pads", [i64::MAX; 4]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().ints("strides", [0, 1]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().ints("strides", [1]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.clone().ints("dilations", [i64::MAX, 1]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
            (none.ints("pads", [1 << 24; 4]), vec![1, 2, 6, 6], vec![5, 2, 3, 3]),
        ];
        for (attrs, x, w) in bad {
            assert!(shape_of(&attrs, &x, &w).is_err(), "{attrs:?} {x:?} {w:?}");
        }
    }
}
