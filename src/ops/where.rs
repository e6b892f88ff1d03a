//! `Where`: of two tensors, the elements that a condition picks.
//!
//! *Shapes*: `[..] bool, [..], [..] -> [..]`, as NumPy broadcasts.

use super::broadcast::{self, Walk, addresses, extent};
use super::element::{Element, Movement, moved};
use super::unary::CHUNK;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `where.wgsl`.
    struct Params {
        n4: u32, n: u32, c: u32, c4: u32, dims: [u32; 8],
        cond_how: [u32; 4], cond_strides: [u32; 8],
        x_how: [u32; 4], x_strides: [u32; 8],
        y_how: [u32; 4], y_strides: [u32; 8],
    }
}

static KERNEL: Kernel = crate::kernel!(
    "where",
    Params,
    ["shared/grid.wgsl", "shared/lanes.wgsl", "shared/broadcast.wgsl", "where.wgsl"]
);

pub(super) static DEF: OpDef = OpDef { name: "Where", onnx: &["Where"], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct Where;

fn read(_r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    Ok(Arc::new(Where))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for (i, [a, b]) in super::binary::sample_shapes(rng).into_iter().enumerate() {
        let fill = if i % 3 == 0 { Fill::Ints(-99, 99) } else { Fill::Range(-2.0, 2.0) };
        let both = broadcast::concrete(&[&a, &b]);
        let x = |shape: &[usize]| SampleInput::of(shape, fill.clone());
        let shapes = match i % 3 {
            0 => [&a, &b, &both],
            1 => [&b, &both, &a],
            _ => [&both, &a, &b],
        };
        let inputs = [SampleInput::of(shapes[0].clone(), Fill::Bools), x(shapes[1]), x(shapes[2]).constant()];
        out.push(Sample::new(Attrs::new(), inputs));
    }
    let cond = SampleInput::of([7, 3, 5], Fill::Bools);
    out.push(Sample::new(Attrs::new(), [cond.clone(), cond.clone(), cond.clone()]));
    let scalar = |v: u8| SampleInput::of([], Fill::Exact(Tensor::from_u8([], vec![v])));
    out.push(Sample::new(Attrs::new(), [cond, scalar(7), scalar(200).constant()]));
    out
}

struct Pick<'a> {
    cond: &'a [u8],
    walk: Walk<3>,
}

impl Movement for Pick<'_> {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        let sources = [inputs[0], inputs[1]];
        let step = [0, 1, 2].map(|k| usize::from(!self.walk.is_splat(k)));
        y.par_chunks_mut(CHUNK).enumerate().for_each(|(i, y)| {
            self.walk.rows(i * CHUNK..i * CHUNK + y.len(), |piece, [cond, a, b]| {
                for (j, y) in y[piece].iter_mut().enumerate() {
                    let picked = self.cond[cond + j * step[0]] != 0;
                    *y = if picked { sources[0][a + j * step[1]] } else { sources[1][b + j * step[2]] };
                }
            });
        });
        Ok(())
    }
}

impl Op for Where {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 3, 3, "3")?;
        check::dtype(inputs, 0, DType::Bool, "bool")?;
        let dtype = inputs[1].dtype;
        check::dtype(inputs, 2, dtype, "of the type of input 1")?;
        Ok(vec![TensorType { dtype, shape: broadcast::shape(inputs)? }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [cond, x, y] = inputs else { return Err(OpError::Arity { expected: "3", got: inputs.len() }) };
        let shapes = [cond.shape(), x.shape(), y.shape()];
        let out = broadcast::concrete(&shapes);
        let cond = cond.as_bool().expect("the type was checked");
        let pick = Pick { cond, walk: Walk::new(&out, shapes) };
        Ok(vec![moved(cx, &out, &[x, y], &pick)?])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let out = &io.outputs[0];
        if out.is_empty() {
            return Ok(Lowering::run([]));
        }
        let (dims, [cond, x, y]) = addresses(out, [&io.inputs[0], &io.inputs[1], &io.inputs[2]]);
        let [n4, n, c, c4] = extent(out);
        let params = Params {
            n4,
            n,
            c,
            c4,
            dims,
            cond_how: cond.how,
            cond_strides: cond.strides,
            x_how: x.how,
            x_strides: x.strides,
            y_how: y.how,
            y_strides: y.strides,
        };
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Input(2), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(n4 as usize))]))
    }
}
