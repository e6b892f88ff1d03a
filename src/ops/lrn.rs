//! `LRN`: each element over a power of the squares of its neighbours across channels.
//!
//! *Shapes*: `[n, c, ..] -> [n, c, ..]`.
//! `y = x / (bias + alpha / size * s)^beta`, `s` over the channels from `(size - 1) / 2` in front to `size / 2` behind.

use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `lrn.wgsl`.
    struct Params {
        n: u32, c: u32, width: u32, step: u32, before: u32, after: u32, scale: f32, beta: f32, bias: f32
    }
}

static KERNEL: Kernel = crate::kernel!("lrn", Params, ["shared/grid.wgsl", "lrn.wgsl"]);

pub(super) static DEF: OpDef = OpDef { name: "LRN", onnx: &["LRN"], read, kernels: &[&KERNEL], samples };

/// Largest window: its length is exact in f32.
const LARGEST: usize = 1 << 20;

#[derive(Debug)]
struct Lrn {
    size: usize,
    alpha: f32,
    beta: f32,
    bias: f32,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let (alpha, beta, bias) = (r.float("alpha", 1e-4)?, r.float("beta", 0.75)?, r.float("bias", 1.0)?);
    let size = r.int("size", 0)?;
    let known = usize::try_from(size).ok().filter(|s| (1..=LARGEST).contains(s));
    let size = known.ok_or_else(|| r.unsupported("size", size, "1 to 2^20"))?;
    Ok(Arc::new(Lrn { size, alpha, beta, bias }))
}

impl Lrn {
    fn reach(&self) -> (usize, usize) {
        ((self.size - 1) / 2, self.size / 2)
    }

    #[allow(clippy::cast_precision_loss, reason = "sizes are at most 2^20")]
    fn scale(&self) -> f32 {
        self.alpha / self.size as f32
    }
}

impl Op for Lrn {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .int("size", i64::try_from(self.size).unwrap_or(i64::MAX))
            .float("alpha", self.alpha)
            .float("beta", self.beta)
            .float("bias", self.bias)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        if inputs[0].rank() < 2 {
            return Err(OpError::Rank { input: 0, expected: "at least 2", got: inputs[0].rank() });
        }
        check::fixed(inputs, 0, 1)?;
        Ok(vec![inputs[0].clone()])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let c = x.shape()[1];
        let inner: usize = x.shape()[2..].iter().product();
        let mut y = cx.take(x.len());
        let (before, after) = self.reach();
        if !x.is_empty() {
            y.par_chunks_mut(inner).enumerate().for_each(|(plane, y)| {
                let (n, k) = (plane / c, plane % c);
                let channel = |l: usize| &x.f32s()[(n * c + l) * inner..][..inner];
                y.fill(0.0);
                for l in k.saturating_sub(before)..(k + after + 1).min(c) {
                    y.iter_mut().zip(channel(l)).for_each(|(s, v)| *s += v * v);
                }
                for (s, v) in y.iter_mut().zip(channel(k)) {
                    *s = v / (self.bias + self.scale() * *s).powf(self.beta);
                }
            });
        }
        Ok(vec![Tensor::from_f32(x.shape(), y)])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let placed = x.place();
        let c = x.shape[1];
        let width = if x.layout == Layout::ChannelsLast { c.next_multiple_of(4) } else { c };
        let (n, (before, after)) = (placed.len(), self.reach());
        let params = Params {
            n: u32(n),
            c: u32(c),
            width: u32(width),
            step: u32(placed.strides[1]),
            before: u32(before),
            after: u32(after),
            scale: self.scale(),
            beta: self.beta,
            bias: self.bias,
        };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(n))]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 20));
    let case = |size: usize, shape: &[usize]| {
        let attrs = Attrs::new().int("size", i64::try_from(size).expect("small")).float("alpha", 0.02);
        let sample = Sample::new(attrs.float("beta", 0.6).float("bias", 1.5), [SampleInput::f32(shape)]);
        // pow of a driver has the error of exp2(y * log2(x)): 2^-21 absolute of the logarithm (Vulkan specification).
        sample.reduction(size).extra(3e-6)
    };
    vec![
        case(3, &[7, c, 3, w]),
        case(4, &[1, c, w]),
        case(1, &[2, c]),
        case(5, &[2, 16, 3, 3]),
        case(100, &[1, 7, 2, 2, 2]),
        case(3, &[0, 2, 2]),
    ]
}
