//! `ConvTranspose`: the transpose of a convolution over one, two or three spatial axes, with groups.
//!
//! *Shapes*: `[n, c, spatial..], [c, o / group, kernel..], [o]? -> [n, o, spatial..]`, each spatial axis of length
//! `stride * (in - 1) + (kernel - 1) * dilation + 1 + output_padding - pads`.

mod codes;
pub(super) mod device;
mod phases;

use super::conv::window::{AutoPad, Axis, Window, check_operands, list, spatial_axes, three};
use super::conv::{TILE, kernel, read_groups, window_params};
use super::gemm_cpu::{Mat, product};
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::ops::AddAssign;
use std::sync::Arc;

/// Longest output axis and kernel extent: kernels compute positions in `i32`.
const LONGEST: usize = 1 << 30;

/// Floats of products that a thread keeps; they should stay in its second-level cache.
const KEPT: usize = 160 * 1024;

static DENSE: Kernel =
    kernel!("conv_transpose", "shared/slide_back.wgsl", "shared/tile_rows.wgsl", "conv.wgsl");
static GROUPED: Kernel =
    kernel!("conv_transpose_grouped", "shared/slide_back.wgsl", "conv_transpose_grouped.wgsl");

pub(super) static DEF: OpDef =
    OpDef { name: "ConvTranspose", onnx: &["ConvTranspose"], read, kernels: &[&DENSE, &GROUPED], samples };

#[derive(Debug)]
struct ConvTranspose {
    window: Window,
    output_padding: Vec<usize>,
    groups: usize,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let groups = read_groups(r)?;
    let output_padding = list(r, "output_padding", spatial_axes(r), 0)?;
    let wanted = r.sizes("output_shape")?;
    let (mut window, auto) = Window::read(r)?;
    let rank = window.rank();
    let mut output_padding = output_padding.unwrap_or_else(|| vec![0; rank]);
    let wanted = match wanted {
        // Some exporters write the whole shape of the output.
        Some(s) if s.len() == rank + 2 => Some(s[2..].to_vec()),
        Some(s) if s.len() == rank => Some(s),
        Some(s) => return Err(r.unsupported("output_shape", format!("{s:?}"), &format!("{rank} sizes"))),
        None => None,
    };
    if wanted.is_some() || matches!(auto, AutoPad::SameUpper | AutoPad::SameLower) {
        let x = r.input(0)?;
        if x.rank() != rank + 2 {
            return Err(OpError::Rank { input: 0, expected: ["3", "4", "5"][rank - 1], got: x.rank() });
        }
        let lengths: Vec<Option<usize>> = x.shape[2..].iter().map(|d| d.fixed()).collect();
        // Without SAME_UPPER the odd element of padding is in front.
        let auto = if auto == AutoPad::SameUpper { auto } else { AutoPad::SameLower };
        for (i, len) in lengths.into_iter().enumerate() {
            let len = len.filter(|l| *l < LONGEST).ok_or(OpError::SymbolicDim { input: 0, axis: i + 2 })?;
            let want = wanted.as_ref().map_or(len * window.strides[i], |w| w[i]);
            let full = full_length(&window, i, len, output_padding[i]);
            if want > LONGEST {
                return Err(r.unsupported("output_shape", want, "sizes up to 2^30"));
            }
            window.pad(i, full.saturating_sub(want), auto);
            output_padding[i] += want.saturating_sub(full);
        }
    }
    Ok(Arc::new(ConvTranspose { window, output_padding, groups }))
}

/// Length of output axis `i` before its padding is cut off.
fn full_length(w: &Window, i: usize, len: usize, output_padding: usize) -> usize {
    w.strides[i] * len.saturating_sub(1) + w.extent(i) + output_padding
}

impl Op for ConvTranspose {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let groups = i64::try_from(self.groups).unwrap_or(i64::MAX);
        self.window.attrs(Attrs::new()).sizes("output_padding", &self.output_padding).int("group", groups)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let (spatial, weights) = check_operands(&self.window, inputs)?;
        let c = check::fixed(inputs, 0, 1)?;
        if weights[0] != c || !c.is_multiple_of(self.groups) {
            let expected = format!("[{c}, ..] for {} groups", self.groups);
            return Err(OpError::shape(1, expected, &inputs[1]));
        }
        let o = weights[1].checked_mul(self.groups).filter(|o| *o < LONGEST);
        let o = o.ok_or_else(|| OpError::shape(1, "[c, less than 2^30 / group, ..]", &inputs[1]))?;
        if inputs.get(2).is_some_and(|b| b.shape != [Dim::Fixed(o)]) {
            return Err(OpError::shape(2, format!("[{o}]"), &inputs[2]));
        }
        let mut shape = vec![inputs[0].shape[0], Dim::Fixed(o)];
        for (i, len) in spatial.iter().enumerate() {
            let w = &self.window;
            let full = full_length(w, i, *len, self.output_padding[i]);
            let pads = w.pads_begin[i] + w.pads_end[i];
            match full.checked_sub(pads) {
                Some(out) if out > 0 && full < LONGEST => shape.push(Dim::Fixed(out)),
                _ => {
                    let expected =
                        format!("an axis {} whose {full} outputs exceed {pads}, up to 2^30", i + 2);
                    return Err(OpError::shape(0, expected, &inputs[0]));
                }
            }
        }
        let out = TensorType { dtype: DType::F32, shape };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
        let out = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let y = self.sums(cx, inputs, &out);
        Ok(vec![Tensor::from_f32(out, y)])
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let all = [Layout::ChannelsLast, Layout::ConvTransposeWeights, Layout::Vector4];
        Layouts::Exact { inputs: all[..inputs.len()].to_vec(), outputs: vec![Layout::ChannelsLast] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, w, y) = (&io.inputs[0].shape, &io.inputs[1].shape, &io.outputs[0].shape);
        if io.outputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let bias = io.inputs.len() > 2;
        let params = window_params(&self.window, x, y, x[1] / self.groups, w[1], bias);
        let pixels = params.pixels as usize;
        let (kernel, invocations) = if self.groups == 1 {
            (&DENSE, pixels.div_ceil(TILE.0) * y[1].div_ceil(TILE.1))
        } else {
            (&GROUPED, pixels * y[1].div_ceil(4))
        };
        // Without a bias its binding is not read.
        let b = Operand::Input(if bias { 2 } else { 1 });
        let bind = [Operand::Input(0), Operand::Input(1), b, Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(invocations))]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Gemm { channel_axis: 1 }
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
        self.of_codes(cx, params, inputs).map(Some)
    }

    fn integer_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        Self::code_layouts(params, inputs)
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        self.lower_codes(params, io)
    }
}

impl ConvTranspose {
    /// For a few output channels at a time: all products of weights and input pixels, then for each output element
    /// the sum of those that meet there, in the order of the taps.
    fn sums(&self, cx: &Scratch, inputs: &[Tensor], out: &[usize]) -> Vec<f32> {
        let (x, w) = (inputs[0].f32s(), inputs[1].f32s());
        let bias = inputs.get(2).map(Tensor::f32s);
        let mut y = cx.zeros(out.iter().product());
        if y.is_empty() {
            return y;
        }
        let (input, output, axes) = (three(inputs[0].shape()), three(out), self.window.three());
        let (pixels, plane) = (input.iter().product::<usize>(), output.iter().product::<usize>());
        let (cg, og) = (inputs[0].shape()[1] / self.groups, out[1] / self.groups);
        let taps: usize = axes.iter().map(|a| a.kernel).product();
        let most = (KEPT / (taps * pixels)).clamp(1, og);
        let wanted = (rayon::current_num_threads() * 2).div_ceil(out[0] * self.groups);
        let block = og.div_ceil(og.div_ceil(most).max(wanted.min(og)));
        y.par_chunks_mut(og * plane).enumerate().for_each(|(m, y)| {
            let group = m % self.groups;
            let image = Mat::rows(&x[m * cg * pixels..][..cg * pixels], pixels);
            y.par_chunks_mut(block * plane).enumerate().for_each(|(i, y)| {
                let rows = y.len() / plane * taps;
                let first = group * cg * og * taps + i * block * taps;
                let weights = Mat { data: &w[first..], rs: 1, cs: og * taps };
                let mut products = cx.take(rows * pixels);
                product(&mut products, rows, pixels, cg, weights, image);
                for (o, (y, p)) in
                    y.chunks_exact_mut(plane).zip(products.chunks_exact(taps * pixels)).enumerate()
                {
                    for (t, p) in p.chunks_exact(pixels).enumerate() {
                        add_tap(&axes, input, output, t, p, y);
                    }
                    if let Some(bias) = bias {
                        let b = bias[group * og + i * block + o];
                        y.iter_mut().for_each(|v| *v += b);
                    }
                }
                cx.give(products);
            });
        });
        y
    }
}

/// Adds the products of tap `t`, one an input pixel, to the output pixels under which they lie.
fn add_tap<T: Copy + AddAssign>(
    axes: &[Axis; 3],
    input: [usize; 3],
    output: [usize; 3],
    t: usize,
    p: &[T],
    y: &mut [T],
) {
    let [ad, ah, aw] = axes;
    let (kd, kh, kw) = (t / (ah.kernel * aw.kernel), t / aw.kernel % ah.kernel, t % aw.kernel);
    let target = |a: &Axis, i: usize, k: usize, len: usize| {
        (i * a.stride + k * a.dilation).checked_sub(a.pad).filter(|o| *o < len)
    };
    // An input meets tap k at the output at which a convolution would find it there.
    let reach = aw.reach(kw, output[2], input[2]);
    if reach.is_empty() {
        return;
    }
    let first = reach.start * aw.stride + kw * aw.dilation - aw.pad;
    for (line, p) in p.chunks_exact(input[2]).enumerate() {
        let (d, h) = (line / input[1], line % input[1]);
        let (Some(d), Some(h)) = (target(ad, d, kd, output[0]), target(ah, h, kh, output[1])) else {
            continue;
        };
        let y = &mut y[(d * output[1] + h) * output[2]..][..output[2]][first..];
        let p = &p[reach.clone()];
        if aw.stride == 1 {
            y.iter_mut().zip(p).for_each(|(y, p)| *y += *p);
        } else {
            y.iter_mut().step_by(aw.stride).zip(p).for_each(|(y, p)| *y += *p);
        }
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, o, h, w) = (rng.int(1, 9), rng.int(1, 19), rng.int(2, 7), rng.int(2, 7));
    let none = Attrs::new;
    // Attributes, x, o per group, kernel, groups, bias.
    let cases = [
        (none(), vec![7, c, h, w], o, vec![3, 3], 1, true),
        (none().sizes("strides", &[2, 2]), vec![1, c, h, w], o, vec![2, 2], 1, true),
        (
            none().sizes("strides", &[3, 2]).sizes("output_padding", &[2, 1]).sizes("pads", &[1, 0, 1, 2]),
            vec![2, 5, h, w],
            o,
            vec![3, 3],
            1,
            false,
        ),
        (
            none().sizes("dilations", &[2, 3]).sizes("strides", &[2, 1]),
            vec![1, c, h, w],
            o,
            vec![3, 2],
            1,
            true,
        ),
        (none().sizes("strides", &[2, 2]).int("group", 3), vec![7, 6, h, w], 2, vec![3, 3], 3, true),
        (none().sizes("strides", &[2, 2]).int("group", 5), vec![1, 5, h, w], 1, vec![4, 4], 5, false),
        (none().int("group", 2), vec![2, 10, h, w], 7, vec![1, 2], 2, true),
        (none().sizes("strides", &[3]).sizes("pads", &[1, 1]), vec![7, c, w], o, vec![4], 1, true),
        (none().sizes("strides", &[2, 1, 2]), vec![2, 3, 3, 2, 4], 5, vec![2, 3, 2], 1, true),
        (none(), vec![0, c, h, w], o, vec![3, 3], 1, true),
    ];
    let sample = |(i, (attrs, x, o, k, groups, bias)): (usize, Case)| {
        let reduction = x[1] / groups * k.iter().product::<usize>() + 1;
        let weights = [&[x[1], o], &k[..]].concat();
        let mut inputs = vec![SampleInput::f32(x), SampleInput::f32(weights)];
        if bias {
            inputs.push(SampleInput::f32([o * groups]));
        }
        if i % 3 != 0 {
            inputs =
                inputs.into_iter().enumerate().map(|(i, s)| if i == 0 { s } else { s.constant() }).collect();
        }
        Sample::new(attrs.sizes("kernel_shape", &k), inputs).reduction(reduction)
    };
    cases.into_iter().enumerate().map(sample).collect()
}

type Case = (Attrs, Vec<usize>, usize, Vec<usize>, usize, bool);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attrs::Input;
    use crate::graph::{AttrValue, Source};

    fn op(attrs: &Attrs, inputs: &[Tensor]) -> Result<Arc<dyn Op>, OpError> {
        let inputs = inputs.iter().map(|t| Some(Input { ty: t.ty(), known: None })).collect();
        read(&mut Reader::new(Source::Onnx(21), "ConvTranspose", attrs.clone(), inputs, 1))
    }

    fn eval(attrs: &Attrs, inputs: &[Tensor]) -> Tensor {
        op(attrs, inputs).unwrap().eval(&Scratch::new(), inputs).unwrap().remove(0)
    }

    fn ones(shape: &[usize]) -> Tensor {
        Tensor::from_f32(shape, vec![1.0; shape.iter().product()])
    }

    #[test]
    fn a_stride_spreads_the_kernel() {
        let x = Tensor::from_f32([1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let y = eval(&Attrs::new().sizes("strides", &[2, 2]), &[x.clone(), ones(&[1, 1, 2, 2])]);
        let want = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 3.0, 3.0, 4.0, 4.0];
        assert_eq!(y, Tensor::from_f32([1, 1, 4, 4], want.to_vec()));
        let y = eval(&Attrs::new().sizes("pads", &[1, 1, 1, 1]), &[x, ones(&[1, 1, 3, 3])]);
        assert_eq!(y, Tensor::from_f32([1, 1, 2, 2], vec![10.0; 4]));
    }

    /// The transpose of a convolution: sum(conv(x) * y) = sum(x * conv_transpose(y)).
    #[test]
    fn every_sample_is_the_transpose_of_a_convolution() {
        let mut rng = Rng::new(9);
        let dot = |a: &Tensor, b: &Tensor| {
            let products = a.f32s().iter().zip(b.f32s()).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum::<f64>()
        };
        for s in samples(&mut rng) {
            let mut t: Vec<Tensor> = s.inputs.iter().take(2).map(|i| i.draw(&mut rng)).collect();
            let y = eval(&s.attrs, &t);
            let forward = Attrs::from(
                s.attrs.0.iter().filter(|(n, _)| n != "output_padding").cloned().collect::<Vec<_>>(),
            );
            let v = SampleInput::f32(y.shape()).draw(&mut rng);
            let types = [&v, &t[1]].map(|t| Some(Input { ty: t.ty(), known: None })).to_vec();
            let mut r = Reader::new(Source::Onnx(21), "Conv", forward, types, 1);
            let conv = (super::super::conv::DEF.read)(&mut r).unwrap();
            let x = t.remove(0);
            let back = conv.eval(&Scratch::new(), &[v.clone(), t.remove(0)]).unwrap().remove(0);
            assert_eq!(back.shape(), x.shape(), "{:?}", s.attrs);
            assert!((dot(&y, &v) - dot(&x, &back)).abs() < 1e-2, "{:?}", s.attrs);
        }
    }

    #[test]
    fn the_output_shape_decides_the_padding() {
        let t = [ones(&[1, 1, 3, 3]), ones(&[1, 2, 3, 3])];
        let base = || Attrs::new().sizes("strides", &[3, 2]);
        let pads = |a: &Attrs| op(a, &t).unwrap().attrs();
        let has = |a: &Attrs, name: &str, v: &[usize]| {
            let want = Attrs::new().sizes(name, v).0.remove(0);
            assert!(pads(a).0.contains(&want), "{want:?} not in {:?}", pads(a));
        };
        let exact = base().sizes("output_shape", &[10, 8]);
        has(&exact, "output_padding", &[1, 1]);
        assert_eq!(eval(&exact, &t).shape(), [1, 2, 10, 8]);
        let cut = base().sizes("output_shape", &[8, 4]);
        has(&cut, "pads", &[1, 2, 0, 1]);
        assert_eq!(eval(&cut, &t).shape(), [1, 2, 8, 4]);
        has(&cut.str("auto_pad", "SAME_UPPER"), "pads", &[0, 1, 1, 2]);
        let same = base().str("auto_pad", "SAME_LOWER");
        assert_eq!(eval(&same, &t).shape(), [1, 2, 9, 6]);
        assert!(op(&base().ints("output_shape", [3]), &t).is_err());
        assert!(op(&base().ints("output_shape", [1 << 40, 3]), &t).is_err());
        assert!(matches!(pads(&same).0.iter().find(|(n, _)| n == "pads"), Some((_, AttrValue::Ints(_)))));
    }
}
