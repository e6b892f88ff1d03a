//! `BatchNormalization` with fixed statistics: `y = (x - mean) * (scale / sqrt(variance + epsilon)) + bias` by channel.
//!
//! *Shapes*: `[n, c, spatial..]`, four times `[c]` `-> [n, c, spatial..]`.

use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `batch_norm.wgsl`.
    struct Params { n: u32, stride: u32, c: u32, epsilon: f32 }
}

static KERNEL: Kernel = crate::kernel!("batch_norm", Params, ["shared/grid.wgsl", "batch_norm.wgsl"]);

pub(super) static DEF: OpDef =
    OpDef { name: "BatchNormalization", onnx: &["BatchNormalization"], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct BatchNorm {
    epsilon: f32,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    // How fast running statistics follow: training only.
    r.ignore("momentum");
    let epsilon = r.float("epsilon", 1e-5)?;
    if r.flag("training_mode", false)? {
        return Err(r.unsupported("training_mode", 1, "0 (fixed statistics)"));
    }
    if r.outputs() > 1 {
        return Err(r.unsupported("number of outputs", r.outputs(), "1 (fixed statistics)"));
    }
    Ok(Arc::new(BatchNorm { epsilon }))
}

impl Op for BatchNorm {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().float("epsilon", self.epsilon)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 5, 5, "5")?;
        for i in 0..5 {
            check::f32(inputs, i)?;
        }
        let x = &inputs[0];
        if x.rank() < 2 {
            return Err(OpError::Rank { input: 0, expected: "at least 2", got: x.rank() });
        }
        let c = check::fixed(inputs, 0, 1)?;
        let want = TensorType::new(x.dtype, [c]);
        match inputs.iter().skip(1).position(|p| *p != want) {
            Some(i) => Err(OpError::shape(i + 1, want.to_string(), &inputs[i + 1])),
            None => Ok(vec![x.clone()]),
        }
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|i: usize| inputs[i].f32s());
        let c = x.shape()[1];
        let inner = x.shape()[2..].iter().product::<usize>();
        let mut y = cx.take(x.len());
        if x.is_empty() {
            return Ok(vec![Tensor::from_f32(x.shape(), y)]);
        }
        let planes = y.par_chunks_mut(inner).zip(x.f32s().par_chunks(inner)).enumerate();
        planes.with_min_len(4096usize.div_ceil(inner)).for_each(|(i, (y, x))| {
            let k = i % c;
            let (a, b, m) = (scale[k] / (variance[k] + self.epsilon).sqrt(), bias[k], mean[k]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - m) * a + b);
        });
        Ok(vec![Tensor::from_f32(x.shape(), y)])
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        if inputs[0].rank() < 3 {
            return Layouts::Linear;
        }
        let mut layouts = vec![Layout::ChannelsLast];
        layouts.resize(5, Layout::Linear);
        Layouts::Exact { inputs: layouts, outputs: vec![Layout::ChannelsLast] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let n = x.place().len();
        let c = x.shape[1];
        let stride = if x.layout == Layout::ChannelsLast { c.next_multiple_of(4) } else { c };
        let params = Params { n: u32(n), stride: u32(stride), c: u32(c), epsilon: self.epsilon };
        let mut bind: Vec<Operand> = (0..5).map(Operand::Input).collect();
        bind.push(Operand::Output(0));
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(n))]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 40));
    let shapes =
        [vec![7, c], vec![1, c, w], vec![2, 8, 5, w], vec![1, c, 3, 2, w], vec![0, c, 2], vec![7, c, 3, 3]];
    let case = |(i, shape): (usize, Vec<usize>)| {
        let parameter = |low| SampleInput::of([shape[1]], Fill::Range(low, 2.0)).constant();
        let inputs = [
            SampleInput::f32(shape.clone()),
            parameter(-2.0),
            parameter(-2.0),
            parameter(-2.0),
            parameter(0.1),
        ];
        let mut sample = Sample::new(Attrs::new().float("epsilon", 1e-3), inputs).reduction(8);
        sample.inputs.iter_mut().for_each(|p| p.constant &= i % 2 == 0);
        sample
    };
    shapes.into_iter().enumerate().map(case).collect()
}
