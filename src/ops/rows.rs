//! A tensor cut into rows: some axes run within a row, the others say which row.

use crate::graph::lower::{Dispatch, Kernel, Operand, u32};
use rayon::prelude::*;
use std::borrow::Cow;

/// Length and step in elements of one axis.
type Axis = (usize, usize);

/// Rows of a tensor. Axes are in logical order; neighbours that lie one behind the other are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    kept: Vec<Axis>,
    within: Vec<Axis>,
}

fn merged(axes: impl Iterator<Item = Axis>) -> Vec<Axis> {
    let mut out: Vec<Axis> = Vec::new();
    for (len, step) in axes.filter(|(len, _)| *len != 1) {
        match out.last_mut() {
            Some(last) if last.1 == len * step => *last = (last.0 * len, step),
            _ => out.push((len, step)),
        }
    }
    out
}

fn count(axes: &[Axis]) -> usize {
    axes.iter().map(|a| a.0).product()
}

fn offset(axes: &[Axis], index: usize) -> usize {
    let mut rest = index;
    let mut at = 0;
    for (len, step) in axes.iter().rev() {
        at += rest % len * step;
        rest /= len;
    }
    at
}

/// Elements in the order of `axes`.
fn copy<T: Copy + Send + Sync>(x: &[T], axes: &[Axis]) -> Vec<T> {
    let (inner, outer) = match axes.split_last() {
        Some((last, outer)) => (*last, outer),
        None => ((1, 0), axes),
    };
    (0..count(outer))
        .into_par_iter()
        .with_min_len(4096usize.div_ceil(inner.0.max(1)))
        .flat_map_iter(|i| {
            let base = offset(outer, i);
            (0..inner.0).map(move |j| x[base + j * inner.1])
        })
        .collect()
}

impl Rows {
    /// Cuts a tensor with these lengths and steps; `axes` run within a row.
    pub(super) fn new(shape: &[usize], steps: &[usize], axes: &[usize]) -> Rows {
        let all = shape.iter().copied().zip(steps.iter().copied()).enumerate();
        let (within, kept): (Vec<_>, Vec<_>) = all.partition(|(i, _)| axes.contains(i));
        Rows { kept: merged(kept.into_iter().map(|a| a.1)), within: merged(within.into_iter().map(|a| a.1)) }
    }

    /// Cuts a row-major tensor.
    pub(super) fn linear(shape: &[usize], axes: &[usize]) -> Rows {
        Rows::new(shape, &crate::tensor::strides(shape), axes)
    }

    /// Number of rows.
    pub(super) fn count(&self) -> usize {
        count(&self.kept)
    }

    /// Elements of a row.
    pub(super) fn len(&self) -> usize {
        count(&self.within)
    }

    fn is_contiguous(&self) -> bool {
        let one = |axes: &[Axis], step| matches!(axes, [] | [_]) && axes.iter().all(|a| a.1 == step);
        one(&self.within, 1) && one(&self.kept, self.len())
    }

    /// The rows one after the other.
    pub(super) fn gather<'a, T: Copy + Send + Sync>(&self, x: &'a [T]) -> Cow<'a, [T]> {
        if self.is_contiguous() || x.is_empty() {
            return Cow::Borrowed(x);
        }
        let axes: Vec<Axis> = self.kept.iter().chain(&self.within).copied().collect();
        Cow::Owned(copy(x, &axes))
    }

    /// The tensor from its rows: the inverse of [`Rows::gather`].
    pub(super) fn scatter<T: Copy + Send + Sync>(&self, rows: Vec<T>) -> Vec<T> {
        if self.is_contiguous() || rows.is_empty() {
            return rows;
        }
        let axes: Vec<Axis> = self.kept.iter().chain(&self.within).copied().collect();
        let lens: Vec<usize> = axes.iter().map(|a| a.0).collect();
        let mut back: Vec<(Axis, usize)> = axes.into_iter().zip(crate::tensor::strides(&lens)).collect();
        back.sort_by_key(|((_, step), _)| std::cmp::Reverse(*step));
        copy(&rows, &back.iter().map(|((len, _), from)| (*len, *from)).collect::<Vec<_>>())
    }

    /// These rows as `shared/rows.wgsl` reads them.
    pub(super) fn params(&self) -> RowParams {
        let lens =
            |axes: &[Axis]| crate::graph::lower::axes(&axes.iter().map(|a| a.0).collect::<Vec<_>>(), 1);
        let steps =
            |axes: &[Axis]| crate::graph::lower::axes(&axes.iter().map(|a| a.1).collect::<Vec<_>>(), 0);
        RowParams {
            kept: lens(&self.kept),
            kept_step: steps(&self.kept),
            within: lens(&self.within),
            within_step: steps(&self.within),
            kept_rank: u32(self.kept.len()),
            within_rank: u32(self.within.len()),
            count: u32(self.count()),
            len: u32(self.len()),
        }
    }

    /// Invocations that share a row. By its length alone, because the order of sums follows from it.
    fn lanes(&self) -> u32 {
        match self.len() {
            0..32 => 1,
            32..512 => 8,
            _ => 64,
        }
    }

    /// A dispatch of a kernel over `shared/rows.wgsl`.
    pub(super) fn dispatch(
        &self,
        kernel: &'static Kernel,
        params: &impl bytemuck::NoUninit,
        bind: impl Into<Vec<Operand>>,
    ) -> Dispatch {
        const WORKGROUP: usize = 128;
        let lanes = self.lanes();
        // Neighbouring invocations read neighbouring elements, along the row or across rows.
        let across = self.within.last().is_some_and(|a| a.1 != 1);
        let groups = self.count().div_ceil(WORKGROUP / lanes as usize);
        Dispatch::new(kernel, params, bind, group_grid(groups))
            .with("LANES", lanes)
            .with("ACROSS", u32::from(across))
    }
}

/// A grid of so many workgroups, folded into y beyond the limit of one dimension.
pub(super) fn group_grid(groups: usize) -> [u32; 3] {
    const MAX: usize = 65535;
    let y = groups.div_ceil(MAX).max(1);
    [u32(groups.div_ceil(y).max(1)), u32(y), 1]
}

/// `Rows` of `shared/rows.wgsl`, the first field of the `Params` of every kernel over rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RowParams {
    kept: [u32; 8],
    kept_step: [u32; 8],
    within: [u32; 8],
    within_step: [u32; 8],
    kept_rank: u32,
    within_rank: u32,
    count: u32,
    len: u32,
}

/// Sum in f64 over eight interleaved lanes: a fixed order that vectorises.
pub(super) fn sum(row: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = row.chunks_exact(8);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (l, x) in lanes.iter_mut().zip(chunk) {
            *l += f(f64::from(*x));
        }
    }
    let tail: f64 = tail.iter().map(|x| f(f64::from(*x))).sum();
    lanes.iter().sum::<f64>() + tail
}

/// Applies `f` to each row of `x` and the same row of the result.
pub(super) fn map<T: Copy + Default + Send + Sync>(
    rows: &Rows,
    x: &[T],
    mut out: Vec<T>,
    f: impl Fn(usize, &[T], &mut [T]) + Sync,
) -> Vec<T> {
    let len = rows.len();
    if x.is_empty() {
        return out;
    }
    let source = rows.gather(x);
    out.par_chunks_mut(len)
        .zip(source.par_chunks(len))
        .enumerate()
        .with_min_len(1024usize.div_ceil(len))
        .for_each(|(i, (y, x))| f(i, x, y));
    rows.scatter(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_and_scatter_are_inverse() {
        let x: Vec<usize> = (0..2 * 3 * 4 * 5).collect();
        for axes in [&[][..], &[0], &[1], &[3], &[0, 2], &[1, 3], &[2, 3], &[0, 1, 2, 3]] {
            let rows = Rows::linear(&[2, 3, 4, 5], axes);
            let g = rows.gather(&x).into_owned();
            assert_eq!(g.len(), rows.count() * rows.len());
            assert_eq!(rows.scatter(g), x, "{axes:?}");
        }
        let rows = Rows::linear(&[2, 3, 4, 5], &[1]);
        assert_eq!(rows.gather(&x)[..6], [0, 20, 40, 1, 21, 41]);
    }

    #[test]
    fn neighbouring_axes_are_merged() {
        let rows = Rows::linear(&[2, 3, 4, 5], &[2, 3]);
        assert_eq!((rows.kept, rows.within), (vec![(6, 20)], vec![(20, 1)]));
    }
}
