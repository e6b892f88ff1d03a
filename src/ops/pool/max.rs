//! `MaxPool`.

use super::window::{Window, WindowParams};
use crate::graph::codes::codes_of;
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Data, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `max_pool.wgsl`.
    struct Params { window: WindowParams, n4: u32, c4: u32, c: u32, lowest: u32 }
}

crate::params! {
    /// `Params` of `max_pool_indices.wgsl`.
    struct IndexParams { window: WindowParams, step: [u32; 4], n4: u32, c4: u32, c: u32, lowest: u32 }
}

macro_rules! kernel {
    ($name:literal, $params:ty, $dtype:literal, $($main:literal),+) => {
        crate::kernel!($name, $params, ["shared/grid.wgsl", "shared/pool_window.wgsl", $dtype, $($main),+])
    };
}

static FLOAT: Kernel = kernel!("max_pool", Params, "pool/f32.wgsl", "pool/groups_f32.wgsl", "max_pool.wgsl");
static CODES: Kernel = kernel!(
    "max_pool_codes",
    Params,
    "pool/i32.wgsl",
    "pool/groups_codes.wgsl",
    "shared/codes.wgsl",
    "shared/load_codes.wgsl",
    "shared/store_codes.wgsl",
    "max_pool.wgsl"
);
static FLOAT_INDICES: Kernel =
    kernel!("max_pool_indices", IndexParams, "pool/f32.wgsl", "max_pool_indices.wgsl");
static INT_INDICES: Kernel =
    kernel!("max_pool_indices_i32", IndexParams, "pool/i32.wgsl", "max_pool_indices.wgsl");

pub(in crate::ops) static DEF: OpDef = OpDef {
    name: "MaxPool",
    onnx: &["MaxPool"],
    read,
    kernels: &[&FLOAT, &CODES, &FLOAT_INDICES, &INT_INDICES],
    samples: super::samples::max,
};

#[derive(Debug)]
struct MaxPool {
    window: Window,
    indices: bool,
    /// Indices count an image's axes from the first, not from the last.
    column_major: bool,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let indices = r.own_int("indices", i64::from(r.outputs() > 1))? != 0;
    let column_major = r.flag("storage_order", false)?;
    Ok(Arc::new(MaxPool { window: Window::read(r)?, indices, column_major }))
}

impl MaxPool {
    /// Steps of depth, height and width in an index.
    fn steps(&self, shape: &[usize]) -> [usize; 3] {
        let spatial = &shape[2..];
        let mut own = crate::tensor::strides(spatial);
        if self.column_major {
            let reversed: Vec<usize> = spatial.iter().rev().copied().collect();
            own = crate::tensor::strides(&reversed).into_iter().rev().collect();
        }
        let mut out = [0; 3];
        out[3 - own.len()..].copy_from_slice(&own);
        out
    }

    /// Largest elements: a line of outputs at once, first over the lines of the window, then along them.
    fn pool<T: Copy + PartialOrd + Send + Sync>(&self, shape: &[usize], x: &[T], y: &mut [T], lowest: T) {
        let [d, h, w] = self.window.axes(shape).expect("checked by infer");
        let (pixels_in, pixels_out) = (d.input * h.input * w.input, d.output * h.output * w.output);
        let runs: Vec<_> = (0..w.kernel).map(|t| w.run(t)).collect();
        let planes = y.par_chunks_mut(pixels_out).zip(x.par_chunks(pixels_in));
        planes.for_each_init(
            || vec![lowest; w.input],
            |line, (y, x)| {
                for (o, y) in y.chunks_exact_mut(w.output).enumerate() {
                    line.fill(lowest);
                    for pd in d.taps(o / h.output) {
                        for ph in h.taps(o % h.output) {
                            larger(line, x[(pd * h.input + ph) * w.input..].iter());
                        }
                    }
                    y.fill(lowest);
                    for (outputs, first, step) in &runs {
                        if !outputs.is_empty() {
                            larger(&mut y[outputs.clone()], line[*first..].iter().step_by(*step));
                        }
                    }
                }
            },
        );
    }

    /// Largest elements and their indices.
    fn pool_with_indices<T: Copy + PartialOrd + Send + Sync>(
        &self,
        shape: &[usize],
        x: &[T],
        y: &mut [T],
        indices: &mut [i32],
        lowest: T,
    ) {
        let [d, h, w] = self.window.axes(shape).expect("checked by infer");
        let [step_d, step_h, step_w] = self.steps(shape);
        let (pixels_in, pixels_out) = (d.input * h.input * w.input, d.output * h.output * w.output);
        let columns: Vec<Vec<usize>> = (0..w.output).map(|o| w.taps(o).collect()).collect();
        let planes = y.par_chunks_mut(pixels_out).zip(indices.par_chunks_mut(pixels_out));
        planes.enumerate().for_each(|(n, (y, indices))| {
            let x = &x[n * pixels_in..][..pixels_in];
            for (o, (y, index)) in y.iter_mut().zip(indices).enumerate() {
                let (od, oh, ow) = (o / w.output / h.output, o / w.output % h.output, o % w.output);
                let mut best = (lowest, -1);
                for pd in d.taps(od) {
                    for ph in h.taps(oh) {
                        for &pw in &columns[ow] {
                            let v = x[(pd * h.input + ph) * w.input + pw];
                            if v > best.0 {
                                let at = n * pixels_in + pd * step_d + ph * step_h + pw * step_w;
                                best = (v, i32::try_from(at).unwrap_or(i32::MAX));
                            }
                        }
                    }
                }
                (*y, *index) = best;
            }
        });
    }

    /// The outputs of elements of one type.
    fn outputs<T: Copy + PartialOrd + Send + Sync>(
        &self,
        x: (&[usize], &[T]),
        mut y: Vec<T>,
        lowest: T,
        tensor: impl FnOnce(Vec<T>) -> Tensor,
    ) -> Vec<Tensor> {
        if !self.indices {
            self.pool(x.0, x.1, &mut y, lowest);
            return vec![tensor(y)];
        }
        let mut at = vec![0; y.len()];
        self.pool_with_indices(x.0, x.1, &mut y, &mut at, lowest);
        let y = tensor(y);
        let at = Tensor::from_i32(y.shape(), at);
        vec![y, at]
    }
}

/// Keeps the larger ones; a NaN is larger than nothing.
fn larger<'a, T: Copy + PartialOrd + 'a>(best: &mut [T], x: impl Iterator<Item = &'a T>) {
    for (b, x) in best.iter_mut().zip(x) {
        *b = if *x > *b { *x } else { *b };
    }
}

impl Op for MaxPool {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = self.window.attrs().int("storage_order", i64::from(self.column_major));
        let attrs = attrs.int("indices", i64::from(self.indices)).at_place(Place::Implied);
        if self.indices { attrs.wide_output(1) } else { attrs }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        let dtype = inputs[0].dtype;
        if dtype != DType::F32 && dtype.limits().is_none() {
            return Err(OpError::DType { input: 0, expected: "f32 or codes", got: dtype });
        }
        let out = TensorType { dtype, shape: self.window.infer(inputs)? };
        check::size(&out)?;
        if self.indices {
            // They count over the whole tensor: a frame's result would depend on its place in the batch.
            check::dims(inputs, 0)?;
        }
        let indices = TensorType { dtype: DType::I32, shape: out.shape.clone() };
        Ok(if self.indices { vec![out, indices] } else { vec![out] })
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let shape = self.infer(&[x.ty()])?[0].dims().expect("concrete inputs give concrete outputs");
        let n: usize = shape.iter().product();
        Ok(match x.data() {
            Data::F32(v) => {
                let y = cx.take(n);
                self.outputs((x.shape(), v), y, f32::NEG_INFINITY, |y| Tensor::from_f32(shape, y))
            }
            Data::I8(v) => {
                let y = bytemuck::cast_vec(cx.take_bytes(n));
                self.outputs((x.shape(), v), y, i8::MIN, |y| Tensor::from_i8(shape, y))
            }
            Data::U8(v) => {
                self.outputs((x.shape(), v), cx.take_bytes(n), u8::MIN, |y| Tensor::from_u8(shape, y))
            }
            _ => {
                let (codes, dtype) = (codes_of(inputs, 0)?, x.dtype());
                let (lowest, _) = dtype.limits().unwrap_or_default();
                let codes = (x.shape(), &codes[..]);
                self.outputs(codes, vec![0; n], lowest, |y| {
                    Tensor::from_codes(dtype, &shape, &y)
                        .expect("they are codes of the input, or the lowest one")
                })
            }
        })
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        if self.indices {
            let outputs = vec![Layout::ChannelsLast; 2];
            return Layouts::Exact { inputs: vec![Layout::ChannelsLast], outputs };
        }
        let layout = Layout::channels_last(inputs[0].dtype);
        Layouts::Exact { inputs: vec![layout], outputs: vec![layout] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        let axes = self.window.axes(&x.shape).ok_or_else(|| OpError::shape(0, "one that fits", &x.ty()))?;
        let window = WindowParams::new(&axes);
        let n4 = y.place().len() / 4;
        let c = x.shape[1];
        let (c4, lowest) = (u32(c.div_ceil(4)), lowest(x.dtype));
        let dispatch = if self.indices {
            let mut step = [0; 4];
            self.steps(&x.shape).iter().zip(&mut step).for_each(|(s, p)| *p = u32(*s));
            let params = IndexParams { window, step, n4: u32(n4), c4, c: u32(c), lowest };
            let kernel = if x.dtype == DType::F32 { &FLOAT_INDICES } else { &INT_INDICES };
            let bind = [Operand::Input(0), Operand::Output(0), Operand::Output(1)];
            Dispatch::new(kernel, &params, bind, flat_grid(n4))
        } else {
            let params = Params { window, n4: u32(n4), c4, c: u32(c), lowest };
            let bind = [Operand::Input(0), Operand::Output(0)];
            if x.dtype == DType::F32 {
                Dispatch::new(&FLOAT, &params, bind, flat_grid(n4))
            } else {
                let dispatch = Dispatch::new(&CODES, &params, bind, flat_grid(n4));
                dispatch.with("X_FORM", x.form()).with("Y_FORM", y.form())
            }
        };
        Ok(Lowering::run([dispatch]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}

/// Bits of the word that stands below every element.
fn lowest(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => f32::NEG_INFINITY.to_bits(),
        _ => dtype.limits().map_or(0, |(low, _)| low.cast_unsigned()),
    }
}
