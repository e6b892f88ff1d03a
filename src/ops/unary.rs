//! Element-wise functions of one f32 tensor with up to two numbers as attributes: one row each.
//!
//! *Shapes*: `[..] -> [..]`.

use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `unary.wgsl`.
    struct Params { n4: u32, c: u32, c4: u32, a: f32, b: f32 }
}

/// What tells one function from another.
#[derive(Debug)]
struct Row {
    def: &'static OpDef,
    /// Attribute names and defaults; they become `a` and `b`.
    attrs: &'static [(&'static str, f32)],
    f: fn(f32, f32, f32) -> f32,
    /// Domain of the samples.
    domain: (f32, f32),
    /// Absolute error of the device function over the domain.
    extra: f32,
}

/// `module, "Name", ["onnx types"], shader, [(attribute, default)], sample domain, extra error, f(x, a, b)`.
macro_rules! unary {
    ($id:ident, $name:literal, [$($onnx:literal),*], $file:literal, [$($attr:expr),*], $domain:expr, $extra:expr, $f:expr) => {
        pub(super) mod $id {
            use super::*;
            static KERNEL: Kernel = crate::kernel!(
                $file, Params, ["shared/grid.wgsl", "shared/lanes.wgsl", $file, "unary.wgsl"]
            );
            static ROW: Row = Row { def: &DEF, attrs: &[$($attr),*], f: $f, domain: $domain, extra: $extra };
            pub(in crate::ops) static DEF: OpDef = OpDef {
                name: $name,
                onnx: &[$($onnx),*],
                read: |r| read(&ROW, r),
                kernels: &[&KERNEL],
                samples: |rng| samples(&ROW, rng),
            };
        }
    };
}

unary!(
    leaky_relu,
    "LeakyRelu",
    ["LeakyRelu"],
    "unary/leaky_relu.wgsl",
    [("alpha", 0.01)],
    (-3.0, 3.0),
    0.0,
    |x, a, _| { if x >= 0.0 { x } else { a * x } }
);
unary!(relu, "Relu", ["Relu"], "unary/relu.wgsl", [], (-3.0, 3.0), 0.0, |x, _, _| x.max(0.0));
// exp of a driver is good to 3 + 2|x| ulp (Vulkan specification, precision of core operations).
unary!(sigmoid, "Sigmoid", ["Sigmoid"], "unary/sigmoid.wgsl", [], (-9.0, 9.0), 2e-6, |x, _, _| 1.0
    / (1.0 + (-x).exp()));

#[derive(Debug)]
struct Unary {
    row: &'static Row,
    /// Values of the row's attributes.
    values: [f32; 2],
}

fn read(row: &'static Row, r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let mut values = [0.0; 2];
    for (v, (name, default)) in values.iter_mut().zip(row.attrs) {
        *v = r.float(name, *default)?;
    }
    Ok(Arc::new(Unary { row, values }))
}

fn samples(row: &'static Row, rng: &mut Rng) -> Vec<Sample> {
    let attrs = row.attrs.iter().fold(Attrs::new(), |a, (name, default)| a.float(name, *default));
    let (c, w) = (rng.int(1, 9), rng.int(1, 40));
    let shapes = [vec![], vec![w], vec![7, c, 3, w], vec![1, c, w], vec![2, 1, 3, 1, 2, w], vec![2, 0, 3]];
    shapes
        .into_iter()
        .map(|s| {
            let x = SampleInput::of(s, Fill::Range(row.domain.0, row.domain.1));
            Sample::new(attrs.clone(), [x]).extra(row.extra)
        })
        .collect()
}

impl Op for Unary {
    fn def(&self) -> &'static OpDef {
        self.row.def
    }

    fn attrs(&self) -> Attrs {
        let named = self.row.attrs.iter().zip(self.values);
        named.fold(Attrs::new(), |a, ((name, _), v)| a.float(name, v))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        Ok(vec![inputs[0].clone()])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        const CHUNK: usize = 16 * 1024;
        let x = inputs[0].f32s();
        let mut y = cx.take(x.len());
        let (f, [a, b]) = (self.row.f, self.values);
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
            for (y, x) in y.iter_mut().zip(x) {
                *y = f(*x, a, b);
            }
        });
        Ok(vec![Tensor::from_f32(inputs[0].shape(), y)])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        let n4 = x.place().len().div_ceil(4);
        let c = if x.layout == Layout::ChannelsLast { x.shape[1] } else { 0 };
        let [a, b] = self.values;
        let params = Params { n4: u32(n4), c: u32(c), c4: u32(c.div_ceil(4)), a, b };
        let kernel = self.row.def.kernels[0];
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(n4))]))
    }
}
