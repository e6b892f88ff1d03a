//! Weighted sums of a few elements along up to three axes at once: what resizing by interpolation does.

use super::integer::device::{FinishParams, Finisher};
use crate::graph::OpError;
use crate::graph::lower::{Dispatch, Kernel, Lowering, Operand, View, axes, flat_grid, u32};
use rayon::prelude::*;
use std::ops::{AddAssign, Mul};

crate::params! {
    /// `Params` of `shared/resample_f32.wgsl`.
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

crate::params! {
    /// `Params` of `shared/resample_codes.wgsl`.
    struct CodeParams {
        finish: FinishParams,
        n: u32,
        rank: u32,
        fill: i32,
        c: u32,
        dims: [u32; 8],
        strides: [u32; 8],
        slots: [u32; 8],
        tables: [u32; 4],
        taps: [u32; 4],
        c4: u32,
        pad0: u32,
        pad1: u32,
        pad2: u32,
    }
}

macro_rules! kernel {
    ($name:literal, $main:literal) => {
        crate::kernel!(
            $name,
            Params,
            ["shared/grid.wgsl", "shared/resample_f32.wgsl", "shared/resample.wgsl", $main]
        )
    };
}

static RESAMPLE: Kernel = kernel!("resample", "resample.wgsl");
static RESAMPLE4: Kernel = kernel!("resample4", "resample4.wgsl");
macro_rules! code_kernel {
    ($name:literal, $main:literal) => {
        crate::kernel!(
            $name,
            CodeParams,
            [
                "shared/grid.wgsl",
                "shared/lanes.wgsl",
                "shared/wide.wgsl",
                "shared/requantize.wgsl",
                "shared/finish.wgsl",
                "shared/sums_i64.wgsl",
                "shared/resample.wgsl",
                "shared/resample_codes.wgsl",
                $main
            ]
        )
    };
}

pub(super) static CODES: Kernel = code_kernel!("resample_codes", "resample_codes.wgsl");
pub(super) static CODES4: Kernel = code_kernel!("resample4_codes", "resample4_codes.wgsl");

/// The kernels that [`Resample::lower`] names.
pub(super) static KERNELS: [&Kernel; 2] = [&RESAMPLE, &RESAMPLE4];

const OUTSIDE: u32 = u32::MAX;
const SLOTS: usize = 3;

/// Weights, elements and sums: numbers, or integers in which no sum overflows.
pub(super) trait Weight: Copy + Send + Sync + Mul<Output = Self> + AddAssign + From<u8> {}

impl Weight for f32 {}
impl Weight for i64 {}

/// The taps of one axis: `taps` pairs of an index in x and a weight for each index in y.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taps<W> {
    /// Pairs an index.
    pub(super) taps: usize,
    /// Row after row. An index of `None` in a row's first pair: the fill stands there.
    pub(super) pairs: Vec<(Option<u32>, W)>,
}

#[derive(Clone, Debug)]
enum Source<W> {
    Stride(usize),
    /// As in [`Taps`], with offsets for indices.
    Taps(usize, Vec<(u32, W)>),
}

/// `y[i] = sum over taps of w0 * w1 * .. * x[sum of offsets]`, in the order of the taps.
#[derive(Debug)]
pub(super) struct Resample<W> {
    /// Length and source of each axis, from slowest to fastest in the memory of y, which is dense.
    axes: Vec<(usize, Source<W>)>,
}

impl<W: Weight> Resample<W> {
    /// `taps[axis]` for each logical axis; `None` is the same index with weight 1.
    pub(super) fn new(x: &View, y: &View, taps: &[Option<Taps<W>>]) -> Self {
        let (from, to) = (x.place(), y.place());
        let mut axes: Vec<(usize, Source<W>)> = Vec::new();
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
        Resample { axes }
    }

    /// The sum at element `i` of y; `None` where the fill stands. `x` gives the elements of x.
    pub(super) fn element<'a>(
        &'a self,
        i: usize,
        x: &impl Fn(usize) -> W,
        taps: &mut Vec<&'a [(u32, W)]>,
    ) -> Option<W> {
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
            return None;
        }
        let mut acc = W::from(0);
        sum(taps, x, at, W::from(1), &mut acc);
        Some(acc)
    }

    /// Computes on the CPU, in the kernel's order: `put` makes an element of a sum, or of what stands outside.
    pub(super) fn run<T: Send>(
        &self,
        x: impl Fn(usize) -> W + Sync,
        y: &mut [T],
        put: impl Fn(Option<W>) -> T + Sync,
    ) {
        const ROW: usize = 256;
        y.par_chunks_mut(ROW).enumerate().for_each(|(chunk, y)| {
            let mut taps: Vec<&[(u32, W)]> = Vec::with_capacity(self.axes.len());
            for (i, y) in y.iter_mut().enumerate() {
                *y = put(self.element(chunk * ROW + i, &x, &mut taps));
            }
        });
    }
}

/// What `shared/resample.wgsl` reads.
struct Tables {
    rank: u32,
    dims: [u32; 8],
    strides: [u32; 8],
    slots: [u32; 8],
    tables: [u32; 4],
    taps: [u32; 4],
    table: Vec<u32>,
}

impl<W: Weight> Resample<W> {
    fn count(&self) -> usize {
        self.axes.iter().map(|a| a.0).product()
    }

    /// The tables of taps, weights as words.
    fn tables(&self, word: impl Fn(W) -> u32) -> Result<Tables, OpError> {
        // The row of a slot that no axis uses.
        let mut table = vec![0, word(W::from(1))];
        let (mut strides, mut slots) = ([0; 8], [3; 8]);
        let (mut tables, mut taps) = ([0; 4], [1; 4]);
        let mut used = 0;
        for (i, (_, source)) in self.axes.iter().enumerate() {
            match source {
                Source::Stride(s) => strides[i] = u32(*s),
                Source::Taps(..) if used == SLOTS => {
                    return Err(OpError::NoKernel { reason: "interpolates along more than 3 axes" });
                }
                Source::Taps(count, pairs) => {
                    (slots[i], tables[used], taps[used]) = (u32(used), u32(table.len()), u32(*count));
                    table.extend(pairs.iter().flat_map(|(offset, w)| [*offset, word(*w)]));
                    used += 1;
                }
            }
        }
        let dims = axes(&self.axes.iter().map(|a| a.0).collect::<Vec<_>>(), 1);
        Ok(Tables { rank: u32(self.axes.len()), dims, strides, slots, tables, taps, table })
    }

    /// The same counted in groups of four elements.
    fn in_groups(&self) -> Option<Resample<W>> {
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
        Some(Resample { axes })
    }
}

impl Resample<f32> {
    /// The dispatch from input 0 to output 0 with its table.
    pub(super) fn lower(&self, fill: f32) -> Result<Lowering, OpError> {
        if self.count() == 0 {
            return Ok(Lowering::run([]));
        }
        let grouped = self.in_groups();
        let (kernel, r) = match &grouped {
            Some(g) => (&RESAMPLE4, g),
            None => (&RESAMPLE, self),
        };
        let n = r.count();
        let Tables { rank, dims, strides, slots, tables, taps, table } = r.tables(f32::to_bits)?;
        let params = Params { n: u32(n), rank, fill, pad0: 0, dims, strides, slots, tables, taps };
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let dispatches = vec![Dispatch::new(kernel, &params, bind, flat_grid(n))];
        Ok(Lowering::Run { dispatches, temps: Vec::new(), tables: vec![table] })
    }
}

impl Resample<i64> {
    /// The same of codes, with factors as table 0; `channels` of them where they lie channels-last, and the channels
    /// among these axes keep their place.
    pub(super) fn lower_codes(
        &self,
        finisher: Finisher,
        fill: i32,
        channels: Option<usize>,
    ) -> Result<Lowering, OpError> {
        let grouped = channels.and_then(|c| Some((c, self.in_groups()?)));
        let (kernel, r, c) = match &grouped {
            Some((c, g)) => (&CODES4, g, *c),
            None => (&CODES, self, 0),
        };
        let n = r.count();
        let word = |w: i64| u32(usize::try_from(w).unwrap_or(0));
        let Tables { rank, dims, strides, slots, tables, taps, table } = r.tables(word)?;
        let params = CodeParams {
            finish: finisher.params,
            n: u32(n),
            rank,
            fill,
            c: u32(c),
            dims,
            strides,
            slots,
            tables,
            taps,
            c4: u32(c.div_ceil(4)),
            pad0: 0,
            pad1: 0,
            pad2: 0,
        };
        let bind = [Operand::Input(0), Operand::Table(1), Operand::Table(0), Operand::Output(0)];
        let dispatch = finisher.told(Dispatch::new(kernel, &params, bind, flat_grid(n)));
        let tables = vec![finisher.table, table];
        Ok(Lowering::Run { dispatches: vec![dispatch], temps: Vec::new(), tables })
    }
}

/// Adds the products of the last axis of `taps` on the outside and its first on the inside.
fn sum<W: Weight>(taps: &[&[(u32, W)]], x: &impl Fn(usize) -> W, at: usize, w: W, acc: &mut W) {
    match taps.split_last() {
        None => *acc += w * x(at),
        Some((row, rest)) => {
            for (offset, weight) in *row {
                sum(rest, x, at + *offset as usize, w * *weight, acc);
            }
        }
    }
}
