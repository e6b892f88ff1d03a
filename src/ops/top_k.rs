//! `TopK`: the k largest or smallest elements along an axis, best first, of equals the one in front.
//!
//! *Shapes*: `[.., len, ..] -> [.., k, ..], i32[.., k, ..]`.

use super::order;
use super::rows::{Rows, group_grid};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch, attrs::normalize_axis};
use crate::tensor::{DType, Data, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `top_k.wgsl`.
    struct Params { n: u32, len: u32, k: u32, inner: u32, flip: u32 }
}

crate::params! {
    /// `Params` of `top_k_cutoff.wgsl`.
    struct CutoffParams { rows: u32, len: u32, k: u32, inner: u32, flip: u32 }
}

macro_rules! kernels {
    ($all:ident, $some:ident, $cutoff:ident, $order:literal, $a:literal, $b:literal, $c:literal) => {
        static $all: Kernel =
            crate::kernel!($a, Params, ["shared/grid.wgsl", $order, "top_k/all.wgsl", "top_k.wgsl"]);
        static $some: Kernel =
            crate::kernel!($b, Params, ["shared/grid.wgsl", $order, "top_k/cutoff.wgsl", "top_k.wgsl"]);
        static $cutoff: Kernel = crate::kernel!($c, CutoffParams, [$order, "top_k_cutoff.wgsl"]);
    };
}

kernels!(F_ALL, F_SOME, F_CUTOFF, "order/f32.wgsl", "top_k_f32", "top_k_some_f32", "top_k_cutoff_f32");
kernels!(I_ALL, I_SOME, I_CUTOFF, "order/i32.wgsl", "top_k_i32", "top_k_some_i32", "top_k_cutoff_i32");

/// Rows longer than this are cut down to the k best before these are ranked, which takes the square of their number.
const RANKED_WHOLE: usize = 1024;

pub(super) static DEF: OpDef = OpDef {
    name: "TopK",
    onnx: &["TopK"],
    read,
    kernels: &[&F_ALL, &F_SOME, &F_CUTOFF, &I_ALL, &I_SOME, &I_CUTOFF],
    samples,
};

#[derive(Debug)]
struct TopK {
    k: usize,
    axis: i64,
    largest: bool,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    // Without it any order will do; ours is sorted.
    r.ignore("sorted");
    let (axis, largest) = (r.int("axis", -1)?, r.flag("largest", true)?);
    let k = r.int_or_input("k", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    let k = usize::try_from(k).map_err(|_| r.unsupported("k", k, "non-negative sizes"))?;
    Ok(Arc::new(TopK { k, axis, largest }))
}

impl TopK {
    fn axis(&self, rank: usize) -> Result<usize, OpError> {
        normalize_axis(self.axis, rank).ok_or(OpError::Axis { axis: self.axis, rank })
    }

    fn flip(&self) -> i32 {
        if self.largest { 0 } else { -1 }
    }

    /// The k best of each row, rows one after the other.
    fn select(&self, rows: &Rows, keys: &[i32]) -> Vec<usize> {
        let len = rows.len();
        let of_row = |row: &[i32]| {
            let rank = |i: &usize| (std::cmp::Reverse(row[*i] ^ self.flip()), *i);
            let mut all: Vec<usize> = (0..len).collect();
            if self.k < len {
                all.select_nth_unstable_by_key(self.k, rank);
                all.truncate(self.k);
            }
            all.sort_unstable_by_key(rank);
            all
        };
        rows.gather(keys).par_chunks(len).map(of_row).flatten_iter().collect()
    }
}

impl Op for TopK {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .int("k", i64::try_from(self.k).unwrap_or(i64::MAX))
            .at_place(Place::List(1))
            .int("axis", self.axis)
            .int("largest", i64::from(self.largest))
            .wide_output(1)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (k is an attribute)")?;
        order::check(inputs)?;
        let x = &inputs[0];
        let axis = self.axis(x.rank())?;
        let len = check::fixed(inputs, 0, axis)?;
        if self.k > len {
            return Err(OpError::shape(0, format!("at least {} elements on axis {axis}", self.k), x));
        }
        let mut shape = x.shape.clone();
        shape[axis] = Dim::Fixed(self.k);
        let indices = TensorType { dtype: DType::I32, shape: shape.clone() };
        Ok(vec![TensorType { dtype: x.dtype, shape }, indices])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let axis = self.axis(x.rank())?;
        let mut shape = x.shape().to_vec();
        shape[axis] = self.k;
        if x.is_empty() || self.k == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), shape.clone()), Tensor::zeros(DType::I32, shape)]);
        }
        let rows = Rows::linear(x.shape(), &[axis]);
        let out = Rows::linear(&shape, &[axis]);
        let keys = order::keys(x);
        let chosen = self.select(&rows, &keys);
        let index = |i: &usize| i32::try_from(*i).expect("axes are shorter than 2^31");
        let indices = Tensor::from_i32(shape.clone(), out.scatter(chosen.iter().map(index).collect()));
        macro_rules! best {
            ($v:expr) => {{
                let source = rows.gather($v);
                let each = chosen.iter().enumerate();
                let best = each.map(|(n, i)| source[n / self.k * rows.len() + i]).collect();
                out.scatter(best)
            }};
        }
        let values = match x.data() {
            Data::F32(v) => Tensor::from_f32(shape, best!(v)),
            Data::I32(v) => Tensor::from_i32(shape, best!(v)),
            Data::Bool(v) => Tensor::from_bool(shape, best!(v)),
            _ => {
                let codes: Vec<i32> = best!(&keys);
                Tensor::from_codes(x.dtype(), &shape, &codes).expect("elements of the input")
            }
        };
        Ok(vec![values, indices])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if io.outputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let axis = self.axis(x.shape.len())?;
        let len = x.shape[axis];
        let inner: usize = x.shape[axis + 1..].iter().product();
        let (n, rows) = (x.len(), x.len() / len);
        let flip = self.flip().cast_unsigned();
        let params = Params { n: u32(n), len: u32(len), k: u32(self.k), inner: u32(inner), flip };
        let float = x.dtype == DType::F32;
        let mut bind = vec![Operand::Input(0), Operand::Output(0), Operand::Output(1)];
        if len <= RANKED_WHOLE {
            let kernel = if float { &F_ALL } else { &I_ALL };
            return Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(n))]));
        }
        let cut = CutoffParams { rows: u32(rows), len: u32(len), k: u32(self.k), inner: u32(inner), flip };
        let (cutoff, rank) = if float { (&F_CUTOFF, &F_SOME) } else { (&I_CUTOFF, &I_SOME) };
        bind.push(Operand::Temp(0));
        let dispatches = vec![
            Dispatch::new(cutoff, &cut, [Operand::Input(0), Operand::Temp(0)], group_grid(rows)),
            Dispatch::new(rank, &params, bind, flat_grid(n)),
        ];
        Ok(Lowering::Run { dispatches, temps: vec![rows as u64 * 8], tables: Vec::new() })
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(3, 40);
    let mut out = Vec::new();
    for largest in 0..2 {
        for (k, axis, shape) in [
            (3, -1, vec![7, w]),
            (2, 1, vec![2, w, 3]),
            (1, 0, vec![3, 2, 2]),
            (w, 0, vec![w]),
            (5, 1, vec![2, 1500, 2]),
            (300, -1, vec![1, 2049]),
            (0, 0, vec![3, 2]),
            (2, 1, vec![0, 3]),
        ] {
            let attrs = Attrs::new()
                .int("k", i64::try_from(k).expect("small"))
                .int("axis", axis)
                .int("largest", largest);
            out.push(Sample::new(attrs.clone(), [SampleInput::f32(shape.clone())]));
            // Many equal elements.
            out.push(Sample::new(attrs, [SampleInput::of(shape, Fill::Ints(-2, 2))]));
        }
    }
    out
}
