//! `Trilu`: the upper or lower triangle of matrices, zero elsewhere.
//!
//! *Shapes*: `[.., h, w] -> [.., h, w]`. Diagonal `k` counts from the main one to the right.

use super::element::{Element, Movement, moved};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch};
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `trilu.wgsl`.
    struct Params { n: u32, h: u32, w: u32, k: i32, upper: u32 }
}

static KERNEL: Kernel = crate::kernel!("trilu", Params, ["shared/grid.wgsl", "trilu.wgsl"]);

pub(super) static DEF: OpDef = OpDef { name: "Trilu", onnx: &["Trilu"], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct Trilu {
    k: i64,
    upper: bool,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let upper = r.flag("upper", true)?;
    let k = r.int_or_input("k", 1)?.unwrap_or(0);
    Ok(Arc::new(Trilu { k, upper }))
}

/// One tensor's triangle.
struct Triangle<'a> {
    op: &'a Trilu,
    shape: &'a [usize],
}

impl Movement for Triangle<'_> {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        let [.., h, w] = *self.shape else { return Ok(()) };
        if y.is_empty() {
            return Ok(());
        }
        y.par_chunks_mut(w).zip(inputs[0].par_chunks(w)).enumerate().for_each(|(row, (y, x))| {
            // First column right of the diagonal's left edge.
            let edge = self.op.k.saturating_add(i64::try_from(row % h).unwrap_or(i64::MAX));
            let edge = if self.op.upper { edge } else { edge.saturating_add(1) };
            let edge = usize::try_from(edge.max(0)).unwrap_or(w).min(w);
            let (zero, kept) = if self.op.upper { (0..edge, edge..w) } else { (edge..w, 0..edge) };
            y[kept.clone()].copy_from_slice(&x[kept]);
            y[zero].fill(T::default());
        });
        Ok(())
    }
}

impl Op for Trilu {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().int("k", self.k).at_place(Place::Input(1)).int("upper", i64::from(self.upper))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (k is an attribute)")?;
        let x = &inputs[0];
        if x.rank() < 2 {
            return Err(OpError::Rank { input: 0, expected: "at least 2", got: x.rank() });
        }
        check::frames_apart(inputs, 0, [x.rank() - 2, x.rank() - 1])?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let shape = inputs[0].shape();
        Ok(vec![moved(cx, shape, &[&inputs[0]], &Triangle { op: self, shape })?])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let n = x.len();
        let (h, w) = (x.shape[x.shape.len() - 2], x.shape[x.shape.len() - 1]);
        // Beyond every matrix it makes no difference how far.
        let k = i32::try_from(self.k.clamp(i64::from(i32::MIN), i64::from(i32::MAX))).expect("clamped");
        let params = Params { n: u32(n), h: u32(h), w: u32(w), k, upper: u32::from(self.upper) };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, bind, flat_grid(n))]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (h, w) = (rng.int(1, 12), rng.int(1, 40));
    let mut out = Vec::new();
    for upper in 0..2 {
        for k in [0, 2, -3, 100, i64::MIN, i64::MAX] {
            let attrs = Attrs::new().int("k", k).int("upper", upper);
            out.push(Sample::new(attrs.clone(), [SampleInput::f32([7, h, w])]));
            out.push(Sample::new(attrs.clone(), [SampleInput::of([h, w], Fill::Ints(-9, 9))]));
            out.push(Sample::new(attrs, [SampleInput::of([0, w], Fill::Bools)]));
        }
    }
    out
}
