//! Weighted sums of a few elements along up to three axes at once: what resizing by interpolation does.

use crate::graph::OpError;
use crate::graph::lower::{Dispatch, Kernel, Lowering, Operand, View, axes, flat_grid, u32};
use rayon::prelude::*;

crate::params! {
    /// `Params` of `shared/resample.wgsl`.
    struct Params {
        n: u32,
        rank: u32,
        fill: f32,
        pad0: u32,
        dims: [u32; 8],
        strides: [u32; 8],
        slots: [u32; 8],
        tables: [u32; 4],
        taps: [u32; 4],
    }
}

static RESAMPLE: Kernel =
    crate::kernel!("resample", Params, ["shared/grid.wgsl", "shared/resample.wgsl", "resample.wgsl"]);
static RESAMPLE4: Kernel =
    crate::kernel!("resample4", Params, ["shared/grid.wgsl", "shared/resample.wgsl", "resample4.wgsl"]);

/// The kernels that [`Resample::lower`] names.
pub(super) static KERNELS: [&Kernel; 2] = [&RESAMPLE, &RESAMPLE4];

const OUTSIDE: u32 = u32::MAX;
const SLOTS: usize = 3;

/// The taps of one axis: `taps` pairs of an index in x and a weight for each index in y.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taps {
    /// Pairs an index.
    pub(super) taps: usize,
    /// Row after row. An index of `None` in a row's first pair: the fill stands there.
    pub(super) pairs: Vec<(Option<u32>, f32)>,
}

#[derive(Clone, Debug)]
enum Source {
    Stride(usize),
    /// As in [`Taps`], with offsets for indices.
    Taps(usize, Vec<(u32, f32)>),
}

/// `y[i] = sum over taps of w0 * w1 * .. * x[sum of offsets]`, in the order of the taps.
#[derive(Debug)]
pub(super) struct Resample {
    /// Length and source of each axis, from slowest to fastest in the memory of y, which is dense.
    axes: Vec<(usize, Source)>,
    fill: f32,
}

impl Resample {
    /// `taps[axis]` for each logical axis; `None` is the same index with weight 1.
    pub(super) fn new(x: &View, y: &View, taps: &[Option<Taps>], fill: f32) -> Self {
        let (from, to) = (x.place(), y.place());
        let mut axes: Vec<(usize, Source)> = Vec::new();
        for (&axis, &len) in to.order.iter().zip(&to.dims) {
            let step = from.strides[axis];
            let offset = |i: Option<u32>| i.map_or(OUTSIDE, |i| u32(i as usize * step));
            let source = match &taps[axis] {
                Some(t) => Source::Taps(t.taps, t.pairs.iter().map(|(i, w)| (offset(*i), *w)).collect()),
                None => Source::Stride(step),
            };
            match (axes.last_mut(), &source) {
                (Some((outer, Source::Stride(s))), Source::Stride(step)) if *s == step * len => {
                    (*outer, *s) = (*outer * len, *step);
                }
                _ => axes.push((len, source)),
            }
        }
        Resample { axes, fill }
    }

    /// The dispatch from input 0 to output 0 with its table.
    pub(super) fn lower(&self) -> Result<Lowering, OpError> {
        let n: usize = self.axes.iter().map(|a| a.0).product();
        if n == 0 {
            return Ok(Lowering::run([]));
        }
        let grouped = self.in_groups();
        let (kernel, r, n) = match &grouped {
            Some(g) => (&RESAMPLE4, g, n / 4),
            None => (&RESAMPLE, self, n),
        };
        // The row of a slot that no axis uses.
        let mut table = vec![0, 1.0f32.to_bits()];
        let (mut strides, mut slots) = ([0; 8], [3; 8]);
        let (mut tables, mut taps) = ([0; 4], [1; 4]);
        let mut used = 0;
        for (i, (_, source)) in r.axes.iter().enumerate() {
            match source {
                Source::Stride(s) => strides[i] = u32(*s),
                Source::Taps(..) if used == SLOTS => {
                    return Err(OpError::NoKernel { reason: "interpolates along more than 3 axes" });
                }
                Source::Taps(count, pairs) => {
                    (slots[i], tables[used], taps[used]) = (u32(used), u32(table.len()), u32(*count));
                    table.extend(pairs.iter().flat_map(|(offset, w)| [*offset, w.to_bits()]));
                    used += 1;
                }
            }
        }
        let dims = axes(&r.axes.iter().map(|a| a.0).collect::<Vec<_>>(), 1);
        let rank = u32(r.axes.len());
        let params = Params { n: u32(n), rank, fill: self.fill, dims, strides, slots, tables, taps, pad0: 0 };
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let dispatches = vec![Dispatch::new(kernel, &params, bind, flat_grid(n))];
        Ok(Lowering::Run { dispatches, temps: Vec::new(), tables: vec![table] })
    }

    /// The same counted in groups of four elements.
    fn in_groups(&self) -> Option<Resample> {
        let ((len, Source::Stride(1)), outer) = self.axes.split_last()? else { return None };
        if !len.is_multiple_of(4) {
            return None;
        }
        let group = |i: u32| match i {
            OUTSIDE => Some(OUTSIDE),
            i => i.is_multiple_of(4).then_some(i / 4),
        };
        let mut axes = Vec::with_capacity(self.axes.len());
        for (len, source) in outer {
            let source = match source {
                Source::Stride(s) => Source::Stride(s.is_multiple_of(4).then_some(s / 4)?),
                Source::Taps(n, pairs) => {
                    let pairs = pairs.iter().map(|(i, w)| Some((group(*i)?, *w)));
                    Source::Taps(*n, pairs.collect::<Option<_>>()?)
                }
            };
            axes.push((*len, source));
        }
        axes.push((len / 4, Source::Stride(1)));
        Some(Resample { axes, fill: self.fill })
    }

    /// Computes on the CPU, in the kernel's order.
    pub(super) fn run(&self, x: &[f32], y: &mut [f32]) {
        const ROW: usize = 256;
        y.par_chunks_mut(ROW).enumerate().for_each(|(chunk, y)| {
            let mut taps: Vec<&[(u32, f32)]> = Vec::with_capacity(self.axes.len());
            for (i, y) in y.iter_mut().enumerate() {
                *y = self.element(chunk * ROW + i, x, &mut taps);
            }
        });
    }

    fn element<'a>(&'a self, i: usize, x: &[f32], taps: &mut Vec<&'a [(u32, f32)]>) -> f32 {
        let (mut rest, mut at) = (i, 0);
        taps.clear();
        for (len, source) in self.axes.iter().rev() {
            let c = rest % len;
            rest /= len;
            match source {
                Source::Stride(s) => at += c * s,
                Source::Taps(n, pairs) => taps.push(&pairs[c * n..][..*n]),
            }
        }
        if taps.iter().any(|row| row[0].0 == OUTSIDE) {
            return self.fill;
        }
        let mut acc = 0.0;
        sum(taps, x, at, 1.0, &mut acc);
        acc
    }
}

/// Adds the products of the last axis of `taps` on the outside and its first on the inside.
fn sum(taps: &[&[(u32, f32)]], x: &[f32], at: usize, w: f32, acc: &mut f32) {
    match taps.split_last() {
        None => *acc += w * x[at],
        Some((row, rest)) => {
            for (offset, weight) in *row {
                sum(rest, x, at + *offset as usize, w * weight, acc);
            }
        }
    }
}
