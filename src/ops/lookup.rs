//! Copies whose source is looked up axis by axis: padding, repeating, resizing to the nearest pixel.

use super::element::{Element, Movement};
use crate::graph::OpError;
use crate::graph::lower::{Dispatch, Kernel, Layout, Lowering, Operand, View, axes, flat_grid, u32};
use rayon::prelude::*;

crate::params! {
    /// `Params` of `shared/lookup.wgsl`.
    struct Params {
        n: u32,
        rank: u32,
        fill: u32,
        c: u32,
        c4: u32,
        pad0: u32,
        pad1: u32,
        pad2: u32,
        dims: [u32; 8],
        strides: [u32; 8],
        tables: [u32; 8],
    }
}

static LOOKUP: Kernel =
    crate::kernel!("lookup", Params, ["shared/grid.wgsl", "shared/lookup.wgsl", "lookup.wgsl"]);
static LOOKUP4: Kernel =
    crate::kernel!("lookup4", Params, ["shared/grid.wgsl", "shared/lookup.wgsl", "lookup4.wgsl"]);

/// The kernels that [`Lookup::lower`] names.
pub(super) static KERNELS: &[&Kernel] = &[&LOOKUP, &LOOKUP4];

/// No element of the source: the fill instead.
pub(super) const OUTSIDE: u32 = u32::MAX;

/// One axis of the result.
#[derive(Clone, Debug)]
struct Axis {
    len: usize,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The index times this.
    Stride(usize),
    /// An offset an index, or [`OUTSIDE`].
    Table(Vec<u32>),
}

impl Source {
    fn at(&self, i: usize) -> Option<usize> {
        match self {
            Source::Stride(s) => Some(i * s),
            Source::Table(t) => (t[i] != OUTSIDE).then_some(t[i] as usize),
        }
    }
}

/// The value outside, for each kind of element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FillValue {
    /// Of f32.
    pub(super) float: f32,
    /// Of every other type.
    pub(super) int: i32,
}

/// `y[i] = x[sum of the axes' sources at i]`, or the fill where one of them is outside.
#[derive(Debug)]
pub(super) struct Lookup {
    /// From slowest to fastest in the memory of y, which is dense.
    axes: Vec<Axis>,
    fill: FillValue,
    /// Channels of a channels-last result, 0 otherwise.
    c: usize,
}

impl Lookup {
    /// `indices[axis]` says for each index of y's axis the index of x's, or [`OUTSIDE`]; `None` is the same index.
    pub(super) fn new(x: &View, y: &View, indices: &[Option<Vec<u32>>], fill: FillValue) -> Self {
        let (from, to) = (x.place(), y.place());
        let mut axes: Vec<Axis> = Vec::new();
        for (&axis, &len) in to.order.iter().zip(&to.dims) {
            let step = from.strides[axis];
            let offset = |i: &u32| if *i == OUTSIDE { OUTSIDE } else { u32(*i as usize * step) };
            let source = match &indices[axis] {
                Some(t) => Source::Table(t.iter().map(offset).collect()),
                None => Source::Stride(step),
            };
            match (axes.last_mut(), &source) {
                (Some(Axis { len: outer, source: Source::Stride(s) }), Source::Stride(step))
                    if *s == step * len =>
                {
                    (*outer, *s) = (*outer * len, *step);
                }
                _ => axes.push(Axis { len, source }),
            }
        }
        let c = if y.layout == Layout::ChannelsLast { y.shape[1] } else { 0 };
        Lookup { axes, fill, c }
    }

    fn len(&self) -> usize {
        self.axes.iter().map(|a| a.len).product()
    }

    /// The dispatch from input 0 to output 0 with its table.
    pub(super) fn lower(&self, fill_word: u32) -> Lowering {
        let n = self.len();
        if n == 0 {
            return Lowering::run([]);
        }
        let grouped = self.in_groups();
        let (kernel, lookup, n) = match &grouped {
            Some(g) => (&LOOKUP4, g, n / 4),
            None => (&LOOKUP, self, n),
        };
        // A binding has at least one word.
        let mut table = vec![0];
        let (mut strides, mut tables) = ([0; 8], [OUTSIDE; 8]);
        for (i, axis) in lookup.axes.iter().enumerate() {
            match &axis.source {
                Source::Stride(s) => strides[i] = u32(*s),
                Source::Table(t) => {
                    tables[i] = u32(table.len());
                    table.extend(t);
                }
            }
        }
        let dims = axes(&lookup.axes.iter().map(|a| a.len).collect::<Vec<_>>(), 1);
        let params = Params {
            n: u32(n),
            rank: u32(lookup.axes.len()),
            fill: fill_word,
            c: u32(self.c),
            c4: u32(self.c.div_ceil(4)),
            dims,
            strides,
            tables,
            ..Params::default()
        };
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let dispatches = vec![Dispatch::new(kernel, &params, bind, flat_grid(n))];
        Lowering::Run { dispatches, temps: Vec::new(), tables: vec![table] }
    }

    /// The same lookup counted in groups of four elements.
    fn in_groups(&self) -> Option<Lookup> {
        let (last, outer) = self.axes.split_last()?;
        if !matches!(last.source, Source::Stride(1)) || !last.len.is_multiple_of(4) {
            return None;
        }
        let mut axes = Vec::with_capacity(self.axes.len());
        for a in outer {
            let source = match &a.source {
                Source::Stride(s) => Source::Stride(s.is_multiple_of(4).then_some(s / 4)?),
                Source::Table(t) => {
                    let group = |i: &u32| match *i {
                        OUTSIDE => Some(OUTSIDE),
                        i => i.is_multiple_of(4).then_some(i / 4),
                    };
                    Source::Table(t.iter().map(group).collect::<Option<_>>()?)
                }
            };
            axes.push(Axis { len: a.len, source });
        }
        axes.push(Axis { len: last.len / 4, source: Source::Stride(1) });
        Some(Lookup { axes, fill: self.fill, c: self.c })
    }
}

impl Movement for Lookup {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        if !y.is_empty() {
            let fill = T::constant(self.fill.float, self.fill.int);
            rows(&self.axes, inputs[0], Some(0), fill, y);
        }
        Ok(())
    }
}

fn rows<T: Element>(axes: &[Axis], x: &[T], at: Option<usize>, fill: T, y: &mut [T]) {
    const SMALL: usize = 32 * 1024;
    let Some(base) = at else { return y.fill(fill) };
    let Some((axis, rest)) = axes.split_first() else {
        y[0] = x[base];
        return;
    };
    if rest.is_empty() {
        match &axis.source {
            Source::Stride(1) => y.copy_from_slice(&x[base..][..y.len()]),
            source => {
                for (i, y) in y.iter_mut().enumerate() {
                    *y = source.at(i).map_or(fill, |offset| x[base + offset]);
                }
            }
        }
        return;
    }
    let chunk = y.len() / axis.len;
    let row = |(i, y): (usize, &mut [T])| rows(rest, x, axis.source.at(i).map(|o| base + o), fill, y);
    if y.len() < SMALL {
        y.chunks_mut(chunk).enumerate().for_each(row);
    } else {
        y.par_chunks_mut(chunk).enumerate().for_each(row);
    }
}
