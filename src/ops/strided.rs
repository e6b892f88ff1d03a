//! One copy between two strided tensors: what most data movement comes down to, on both executors.

use super::element::{Element, Movement};
use crate::graph::OpError;
use crate::graph::lower::{Dispatch, Kernel, Layout, Operand, View, axes, flat_grid, u32};
use rayon::prelude::*;

crate::params! {
    /// `Params` of `shared/strided.wgsl`.
    struct Params {
        n: u32,
        rank: u32,
        x0: u32,
        y0: u32,
        dims: [u32; 8],
        x_strides: [u32; 8],
        y_strides: [u32; 8],
    }
}

/// Copies a word an invocation.
pub(crate) static COPY: Kernel =
    crate::kernel!("strided_copy", Params, ["shared/grid.wgsl", "shared/strided.wgsl", "strided_copy.wgsl"]);

/// Copies four words an invocation.
pub(crate) static COPY4: Kernel = crate::kernel!(
    "strided_copy4",
    Params,
    ["shared/grid.wgsl", "shared/strided.wgsl", "strided_copy4.wgsl"]
);

/// The kernels that [`StridedCopy::dispatch`] may name.
pub(crate) static KERNELS: &[&Kernel] = &[&COPY, &COPY4];

/// One axis of the copied block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    len: usize,
    /// Step in the source, in elements; may be negative, or 0 to repeat.
    x: i64,
    /// Step in the target, in elements.
    y: usize,
}

/// `y[y0 + sum i_a * y_a] = x[x0 + sum i_a * x_a]` for every index `i` of a block of at most 8 axes.
///
/// Axes are kept from the largest step of the target to the smallest; those that are one in memory are merged.
/// Padding lanes are the caller's business: a block that spans them (see [`padded`]) copies them like elements.
#[derive(Clone, Debug)]
pub(crate) struct StridedCopy {
    axes: Vec<Axis>,
    x0: i64,
    y0: usize,
}

impl StridedCopy {
    /// A copy of a block of `dims`; steps are in elements. Every offset must lie in its tensor, and no two
    /// indices may share one of the target.
    pub(crate) fn new(dims: &[usize], x0: i64, x_strides: &[i64], y0: usize, y_strides: &[usize]) -> Self {
        let mut all: Vec<Axis> = (dims.iter().zip(x_strides).zip(y_strides))
            .map(|((&len, &x), &y)| Axis { len, x, y })
            .filter(|a| a.len != 1)
            .collect();
        if dims.contains(&0) {
            all = vec![Axis { len: 0, x: 0, y: 1 }];
        }
        all.sort_by_key(|a| std::cmp::Reverse(a.y));
        let mut axes: Vec<Axis> = Vec::with_capacity(all.len());
        for a in all {
            match axes.last_mut() {
                Some(outer) if outer.y == a.y * a.len && outer.x == a.x * signed(a.len) => {
                    *outer = Axis { len: outer.len * a.len, ..a };
                }
                _ => axes.push(a),
            }
        }
        StridedCopy { axes, x0, y0 }
    }

    /// Elements copied.
    pub(crate) fn len(&self) -> usize {
        self.axes.iter().map(|a| a.len).product()
    }

    /// The dispatch, `None` where there is nothing to copy.
    pub(crate) fn dispatch(&self, x: Operand, y: Operand) -> Option<Dispatch> {
        let n = self.len();
        if n == 0 {
            return None;
        }
        let bind = [x, y];
        match self.in_groups() {
            Some(g) => Some(Dispatch::new(&COPY4, &g.params(), bind, flat_grid(n / 4))),
            None => Some(Dispatch::new(&COPY, &self.params(), bind, flat_grid(n))),
        }
    }

    /// The same copy between tensors in this layout: of words where four channels share one.
    pub(crate) fn within(self, layout: Layout) -> StridedCopy {
        if layout.packed().is_none() || self.len() == 0 {
            return self;
        }
        self.in_groups().expect("operators that divide groups of channels do not ask for packed ones")
    }

    /// The same copy counted in groups of four elements.
    fn in_groups(&self) -> Option<StridedCopy> {
        let (last, outer) = self.axes.split_last()?;
        let four = |v: i64| v % 4 == 0;
        let fits = last.x == 1 && last.y == 1 && last.len.is_multiple_of(4);
        let aligned = four(self.x0) && self.y0.is_multiple_of(4);
        if !fits || !aligned || outer.iter().any(|a| !four(a.x) || !a.y.is_multiple_of(4)) {
            return None;
        }
        let mut axes: Vec<Axis> = outer.iter().map(|a| Axis { len: a.len, x: a.x / 4, y: a.y / 4 }).collect();
        axes.push(Axis { len: last.len / 4, ..*last });
        Some(StridedCopy { axes, x0: self.x0 / 4, y0: self.y0 / 4 })
    }

    fn params(&self) -> Params {
        let of = |f: fn(&Axis) -> usize, fill| axes(&self.axes.iter().map(f).collect::<Vec<_>>(), fill);
        let mut x_strides = [0; 8];
        for (s, a) in x_strides.iter_mut().zip(&self.axes) {
            *s = wrapped(a.x);
        }
        Params {
            n: u32(self.len()),
            rank: u32(self.axes.len()),
            x0: wrapped(self.x0),
            y0: u32(self.y0),
            dims: of(|a| a.len, 1),
            x_strides,
            y_strides: of(|a| a.y, 0),
        }
    }

    /// Copies on the CPU. The copied block of `y` is written, nothing else.
    pub(crate) fn run_on<T: Element>(&self, x: &[T], y: &mut [T]) {
        if self.len() > 0 {
            parallel(&self.axes, x, self.x0, &mut y[self.y0..]);
        }
    }
}

impl Movement for StridedCopy {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        self.run_on(inputs[0], y);
        Ok(())
    }
}

/// Copies that are worth more than one thread are divided along the target's slowest axes.
fn parallel<T: Element>(block: &[Axis], x: &[T], x0: i64, y: &mut [T]) {
    const SMALL: usize = 32 * 1024;
    const MANY: usize = 16;
    let len: usize = block.iter().map(|a| a.len).product();
    let Some((first, rest)) = block.split_first() else { return serial(block, x, x0, y) };
    let inner: usize = rest.iter().map(|a| (a.len - 1) * a.y).sum();
    if len < SMALL || rest.is_empty() || inner >= first.y {
        return serial(block, x, x0, y);
    }
    let chunk = |i: usize, y: &mut [T]| {
        let at = x0 + signed(i) * first.x;
        if first.len < MANY { parallel(rest, x, at, y) } else { serial(rest, x, at, y) }
    };
    y.par_chunks_mut(first.y).take(first.len).enumerate().for_each(|(i, y)| chunk(i, y));
}

fn serial<T: Element>(block: &[Axis], x: &[T], x0: i64, y: &mut [T]) {
    match block {
        [] => y[0] = x[index(x0)],
        [a] if a.x == 1 && a.y == 1 => y[..a.len].copy_from_slice(&x[index(x0)..][..a.len]),
        [a] => {
            for i in 0..a.len {
                y[i * a.y] = x[index(x0 + signed(i) * a.x)];
            }
        }
        [a, rest @ ..] => {
            for i in 0..a.len {
                serial(rest, x, x0 + signed(i) * a.x, &mut y[i * a.y..]);
            }
        }
    }
}

fn index(v: i64) -> usize {
    usize::try_from(v).expect("offsets lie in the tensor")
}

/// A size as a step.
pub(crate) fn signed(v: usize) -> i64 {
    i64::try_from(v).expect("sizes were checked")
}

/// Steps of a row-major or placed tensor as signed numbers.
pub(crate) fn signed_all(v: &[usize]) -> Vec<i64> {
    v.iter().map(|s| signed(*s)).collect()
}

/// Two's complement in 32 bits, as `shared/strided.wgsl` wants offsets.
fn wrapped(v: i64) -> u32 {
    i32::try_from(v).expect("tensors have at most 2^31 elements").cast_unsigned()
}

/// The logical shape of a placed tensor with its padding lanes counted.
pub(crate) fn padded(view: &View) -> Vec<usize> {
    let place = view.place();
    let mut shape = view.shape.clone();
    for (axis, len) in place.order.iter().zip(&place.dims) {
        shape[*axis] = *len;
    }
    shape
}

/// The part of `x` that begins at `starts` and goes on in `steps`, as a tensor of its own. In a channels-last
/// layout the channels must begin at a multiple of 4, go on one by one, and end at one or with the last.
pub(crate) fn sliced(x: &View, starts: &[usize], steps: &[i64], y: &View) -> StridedCopy {
    let (x_place, y_place) = (x.place(), y.place());
    let x0: usize = starts.iter().zip(&x_place.strides).map(|(start, s)| start * s).sum();
    let x_strides: Vec<i64> = steps.iter().zip(&x_place.strides).map(|(step, s)| step * signed(*s)).collect();
    StridedCopy::new(&padded(y), signed(x0), &x_strides, 0, &y_place.strides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn a_whole_tensor_is_one_axis() {
        let c = StridedCopy::new(&[2, 3, 4], 0, &[12, 4, 1], 0, &[12, 4, 1]);
        assert_eq!(c.axes, [Axis { len: 24, x: 1, y: 1 }]);
        assert_eq!(c.in_groups().expect("contiguous").axes, [Axis { len: 6, x: 1, y: 1 }]);
    }

    #[test]
    fn a_reversed_transpose_copies_every_element() {
        // y[j, i] = x[1 - i, j] for x of 2 x 3.
        let c = StridedCopy::new(&[2, 3], 3, &[-3, 1], 0, &[1, 2]);
        let mut y = [0.0; 6];
        c.run_on(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &mut y);
        assert_eq!(y, [3.0, 0.0, 4.0, 1.0, 5.0, 2.0]);
        assert!(c.in_groups().is_none());
    }

    #[test]
    fn the_parallel_form_copies_what_the_serial_form_copies() {
        let (a, b, c) = (3, 130, 150);
        let x: Vec<i32> = (0..a * b * c).collect();
        let [a, b, c] = [a, b, c].map(|v| v as usize);
        let copy = StridedCopy::new(&[a, b, c], 0, &signed_all(&[b * c, c, 1]), 0, &[b * c, 1, b]);
        let mut y = vec![0; x.len()];
        copy.run_on(&x, &mut y);
        let mut z = vec![0; x.len()];
        serial(&copy.axes, &x, 0, &mut z);
        assert_eq!(y, z);
        assert_eq!(y[b], x[1]);
    }

    #[test]
    fn padded_counts_channel_lanes() {
        let view = View { dtype: DType::F32, shape: vec![2, 5, 3, 1], layout: Layout::ChannelsLast };
        assert_eq!(padded(&view), [2, 8, 3, 1]);
    }
}
