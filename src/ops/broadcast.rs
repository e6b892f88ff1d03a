//! Broadcasting as NumPy defines it: shapes, walks on the CPU, addresses on the device.

use crate::graph::OpError;
use crate::graph::lower::{View, axes, u32};
use crate::graph::op::check;
use crate::tensor::{DType, Dim, TensorType, strides};
use std::ops::Range;

/// The shape to which all inputs broadcast.
pub(super) fn shape(inputs: &[TensorType]) -> Result<Vec<Dim>, OpError> {
    let rank = inputs.iter().map(TensorType::rank).max().unwrap_or(0);
    let mut out = vec![Dim::Fixed(1); rank];
    for (i, t) in inputs.iter().enumerate() {
        let skipped = rank - t.rank();
        for (o, d) in out[skipped..].iter_mut().zip(&t.shape) {
            match (*o, *d) {
                (a, b) if a == b => {}
                (_, Dim::Fixed(1)) => {}
                (Dim::Fixed(1), b) => *o = b,
                _ => {
                    let before = TensorType { dtype: t.dtype, shape: out };
                    return Err(OpError::shape(i, format!("that broadcasts with {before}"), t));
                }
            }
        }
    }
    check::size(&TensorType { dtype: DType::F32, shape: out.clone() })?;
    Ok(out)
}

/// The same of concrete shapes that [`shape`] has accepted.
pub(super) fn concrete(shapes: &[&[usize]]) -> Vec<usize> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let axis = |i: usize| {
        let dims = shapes.iter().filter(|s| s.len() >= rank - i).map(|s| s[s.len() + i - rank]);
        dims.fold(1, |a, d| if a == 1 { d } else { a })
    };
    (0..rank).map(axis).collect()
}

/// Drops axes of length 1 and joins neighbours that every operand steps through evenly. At least one axis remains.
fn collapse<const K: usize>(dims: &[usize], strides: [&[usize]; K]) -> (Vec<usize>, [Vec<usize>; K]) {
    let mut out = Vec::new();
    let mut steps: [Vec<usize>; K] = std::array::from_fn(|_| Vec::new());
    for (axis, &d) in dims.iter().enumerate().filter(|(_, d)| **d != 1) {
        let joins = !out.is_empty() && (0..K).all(|k| steps[k].last() == Some(&(strides[k][axis] * d)));
        if joins {
            *out.last_mut().expect("not empty") *= d;
            for k in 0..K {
                *steps[k].last_mut().expect("not empty") = strides[k][axis];
            }
        } else {
            out.push(d);
            for k in 0..K {
                steps[k].push(strides[k][axis]);
            }
        }
    }
    if out.is_empty() {
        return (vec![1], std::array::from_fn(|_| vec![0]));
    }
    (out, steps)
}

/// Strides of an operand along the axes of the output, 0 where it is broadcast.
fn strides_in(out: &[usize], operand: &[usize], steps: &[usize]) -> Vec<usize> {
    let skipped = out.len() - operand.len();
    let kept = operand.iter().zip(steps).zip(&out[skipped..]);
    let kept = kept.map(|((d, step), o)| if *d == 1 && *o != 1 { 0 } else { *step });
    std::iter::repeat_n(0, skipped).chain(kept).collect()
}

/// A walk over a row-major output with `K` row-major operands.
#[derive(Debug)]
pub(super) struct Walk<const K: usize> {
    dims: Vec<usize>,
    strides: [Vec<usize>; K],
}

impl<const K: usize> Walk<K> {
    /// Operands of these shapes, broadcast to `out`.
    pub(super) fn new(out: &[usize], operands: [&[usize]; K]) -> Self {
        let all: [Vec<usize>; K] = operands.map(|s| strides_in(out, s, &strides(s)));
        let (dims, strides) = collapse(out, all.each_ref().map(Vec::as_slice));
        Walk { dims, strides }
    }

    /// Whether an operand stands still within a row; if not it steps by 1.
    pub(super) fn is_splat(&self, operand: usize) -> bool {
        self.strides[operand].last() == Some(&0)
    }

    /// Calls `f` for every piece of a row within elements `range` of the output: where the piece lies in the
    /// range, and where each operand starts.
    pub(super) fn rows(&self, range: Range<usize>, mut f: impl FnMut(Range<usize>, [usize; K])) {
        let row = *self.dims.last().expect("at least one axis");
        let mut at = range.start;
        while at < range.end {
            let mut rest = at / row;
            let column = at % row;
            let mut starts: [usize; K] =
                std::array::from_fn(|k| column * self.strides[k].last().expect("at least one axis"));
            for axis in (0..self.dims.len() - 1).rev() {
                let i = rest % self.dims[axis];
                rest /= self.dims[axis];
                for (start, strides) in starts.iter_mut().zip(&self.strides) {
                    *start += i * strides[axis];
                }
            }
            let n = (row - column).min(range.end - at);
            f(at - range.start..at - range.start + n, starts);
            at += n;
        }
    }
}

/// Where the four elements of a group of the output lie in an operand: `how` and strides of `shared/broadcast.wgsl`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) how: [u32; 4],
    pub(super) strides: [u32; 8],
}

const SAME: u32 = 0;
const CYCLE: u32 = 1;
const SPLAT: u32 = 2;
const RUN: u32 = 3;
const STRIDED: u32 = 4;

/// The output's axes on the device, collapsed, and the address of each operand. All are in one layout.
pub(super) fn addresses<const K: usize>(out: &View, operands: [&View; K]) -> ([u32; 8], [Address; K]) {
    let place = out.place();
    let physical = |v: &View| {
        let by_axis = strides_in(&out.shape, &v.shape, &v.place().strides);
        place.order.iter().map(|axis| by_axis[*axis]).collect::<Vec<_>>()
    };
    let all = operands.map(physical);
    let (dims, steps) = collapse(&place.dims, all.each_ref().map(Vec::as_slice));
    let out = std::array::from_fn(|k| Address {
        how: single_run(&place.dims, &all[k]).unwrap_or([STRIDED, u32(dims.len()), 0, 0]),
        strides: axes(&steps[k], 0),
    });
    (axes(&dims, 1), out)
}

/// The address of an operand that has at most one run of axes which it does not broadcast.
fn single_run(dims: &[usize], strides: &[usize]) -> Option<[u32; 4]> {
    let (dims, [steps]) = collapse(dims, [strides]);
    let mut runs = steps.iter().enumerate().filter(|(_, s)| **s != 0);
    let Some((axis, &step)) = runs.next() else { return Some([SPLAT, 1, 1, 0]) };
    if runs.next().is_some() {
        return None;
    }
    let (length, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    Some(match (inner, step) {
        (1, 1) if dims.len() == 1 => [SAME, 1, 1, 1],
        (1, 1) if length.is_multiple_of(4) => [CYCLE, 1, u32(length / 4), 1],
        _ if inner.is_multiple_of(4) => [SPLAT, u32(inner), u32(length), u32(step)],
        _ => [RUN, u32(inner), u32(length), u32(step)],
    })
}

/// Groups of four, elements, and rows of an output as [`View::groups`] has them: the head of a kernel's `Params`.
pub(super) fn extent(out: &View) -> [u32; 4] {
    let [n4, c, c4] = out.groups();
    [n4, u32(out.place().len()), c, c4]
}
