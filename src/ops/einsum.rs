//! `Einsum`: sums of products over labelled axes, such as `bij,bjk->bik`.
//!
//! *Shapes*: each label has one length, or 1 in some operands; the output has the labels behind `->`, or, without it,
//! those that occur once, in alphabetical order behind those of the ellipsis.
//!
//! More than two operands are contracted from left to right, two at a time.

use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, axes, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType, element_count, strides};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `einsum.wgsl`.
    struct Params {
        n: u32,
        out_rank: u32,
        terms: u32,
        sum_rank: u32,
        pair: u32,
        pad0: u32,
        pad1: u32,
        pad2: u32,
        out_dims: [u32; 8],
        out_a: [u32; 8],
        out_b: [u32; 8],
        sum_dims: [u32; 8],
        sum_a: [u32; 8],
        sum_b: [u32; 8],
    }
}

static KERNEL: Kernel = crate::kernel!("einsum", Params, ["shared/grid.wgsl", "einsum.wgsl"]);

/// Labels that one kernel holds, of the output and summed.
const MAX_LABELS: usize = 8;

/// A letter, or an axis of the ellipsis counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

#[derive(Debug)]
struct Einsum {
    equation: String,
}

/// The labels of each operand's axes and of the output's.
#[derive(Debug)]
struct Labels {
    operands: Vec<Vec<Label>>,
    output: Vec<Label>,
}

/// One label of a contraction: its length and its step in the two operands.
#[derive(Clone, Copy, Debug)]
struct Axis {
    len: usize,
    a: usize,
    b: usize,
}

/// `y[i] = sum over j of a[i, j] * b[i, j]`.
#[derive(Debug)]
struct Contraction {
    out: Vec<Axis>,
    sum: Vec<Axis>,
}

pub(super) static DEF: OpDef =
    OpDef { name: "Einsum", onnx: &["Einsum"], read, kernels: &[&KERNEL], samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let Some(equation) = r.opt_str("equation")? else {
        return Err(r.unsupported("equation", "none", "an equation such as bij,bjk->bik"));
    };
    let equation = equation.chars().filter(|c| !c.is_whitespace()).collect();
    Ok(Arc::new(Einsum { equation }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(1, 9), rng.int(1, 12));
    let of = |equation: &str, shapes: &[&[usize]], reduction: usize| {
        let inputs: Vec<_> = shapes.iter().map(|s| SampleInput::f32(*s)).collect();
        Sample::new(Attrs::new().str("equation", equation), inputs).reduction(reduction)
    };
    vec![
        of("ij->ji", &[&[a, b]], 1),
        of("ij->", &[&[a, b]], a * b),
        of("ii->i", &[&[a, a]], 1),
        of("ii", &[&[a, a]], a),
        of("ba", &[&[a, b]], 1),
        of("i,i->", &[&[b], &[b]], b),
        of("i,j->ij", &[&[a], &[b]], 1),
        of("ij,jk", &[&[a, b], &[b, 3]], b),
        of("bij,bjk->bik", &[&[7, a, b], &[7, b, 3]], b),
        of("bhqd,bhkd->bhqk", &[&[1, 2, a, b], &[1, 2, 5, b]], b),
        of("nchw,cd->ndhw", &[&[7, a, 3, 2], &[a, 5]], a),
        of("...ij,...jk->...ik", &[&[7, 1, a, b], &[3, b, 2]], b),
        of("...i->...", &[&[2, 3, b]], b),
        of("ij,jk,kl->il", &[&[a, 3], &[3, b], &[b, 2]], 3 * b),
        of("ij,jk->ik", &[&[a, 1], &[b, 3]], b),
        of("ij,jk->ik", &[&[a, 0], &[0, 3]], 1),
        of("ij,jk->ik", &[&[0, b], &[b, 3]], 1),
    ]
}

impl Einsum {
    fn bad(&self, supported: impl Into<String>) -> OpError {
        OpError::Attribute {
            name: "equation".into(),
            value: self.equation.clone(),
            supported: supported.into(),
        }
    }

    fn term(&self, text: &str, ellipsis: usize) -> Result<Vec<Label>, OpError> {
        let mut out = Vec::new();
        let mut rest = text;
        let mut dots = false;
        while let Some(c) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("...") {
                if std::mem::replace(&mut dots, true) {
                    return Err(self.bad("one ellipsis an operand"));
                }
                out.extend((0..ellipsis).rev().map(Label::Ellipsis));
                rest = behind;
            } else if c.is_ascii_alphabetic() {
                out.push(Label::Letter(c));
                rest = &rest[1..];
            } else {
                return Err(self.bad("letters, commas, ... and one ->"));
            }
        }
        Ok(out)
    }

    fn labels(&self, ranks: &[usize]) -> Result<Labels, OpError> {
        let (left, right) = match self.equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (self.equation.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(OpError::Arity {
                expected: "one for each operand of its equation",
                got: ranks.len(),
            });
        }
        let mut operands = Vec::new();
        let mut broadcast = 0;
        for (input, (term, rank)) in terms.iter().zip(ranks).enumerate() {
            let letters = term.replacen("...", "", 1).len();
            let ellipsis = if term.contains("...") { rank.saturating_sub(letters) } else { 0 };
            broadcast = broadcast.max(ellipsis);
            let labels = self.term(term, ellipsis)?;
            if labels.len() != *rank {
                return Err(OpError::Rank { input, expected: "the number of its labels", got: *rank });
            }
            operands.push(labels);
        }
        let output = match right {
            Some(text) => self.term(text, broadcast)?,
            None => {
                let all: Vec<Label> = operands.iter().flatten().copied().collect();
                let times = |l: &Label| all.iter().filter(|o| *o == l).count();
                let mut letters: Vec<Label> =
                    all.iter().copied().filter(|l| matches!(l, Label::Letter(_)) && times(l) == 1).collect();
                letters.sort_unstable();
                (0..broadcast).rev().map(Label::Ellipsis).chain(letters).collect()
            }
        };
        let known = |l: &Label| operands.iter().any(|o| o.contains(l));
        let twice = |(i, l): (usize, &Label)| output[..i].contains(l);
        if !output.iter().all(known) || output.iter().enumerate().any(twice) {
            return Err(self.bad("output labels of the operands, each once"));
        }
        Ok(Labels { operands, output })
    }

    /// The length of a label over all operands, where 1 broadcasts.
    fn length(&self, label: Label, labels: &Labels, inputs: &[TensorType]) -> Result<Dim, OpError> {
        let mut out = Dim::Fixed(1);
        for (input, (names, ty)) in labels.operands.iter().zip(inputs).enumerate() {
            for (_, d) in names.iter().zip(&ty.shape).filter(|(l, _)| **l == label) {
                match (out, *d) {
                    (_, Dim::Fixed(1)) => {}
                    (Dim::Fixed(1), d) => out = d,
                    (out, d) if out == d => {}
                    (out, _) => {
                        let expected = format!("{out} along {label:?} of {}", self.equation);
                        return Err(OpError::shape(input, expected, ty));
                    }
                }
            }
        }
        Ok(out)
    }

    /// The contractions from left to right, each with its result's labels and shape.
    fn plan(&self, shapes: &[Vec<usize>]) -> Result<Vec<(Contraction, Vec<usize>)>, OpError> {
        let ranks: Vec<usize> = shapes.iter().map(Vec::len).collect();
        let labels = self.labels(&ranks)?;
        let mut left = (labels.operands[0].clone(), shapes[0].clone());
        let mut out = Vec::new();
        for step in 1..shapes.len().max(2) {
            let right = match shapes.get(step) {
                Some(shape) => (labels.operands[step].clone(), shape.clone()),
                None => (Vec::new(), Vec::new()),
            };
            let later = labels.operands.get(step + 1..).unwrap_or_default();
            let mut all: Vec<Label> = Vec::new();
            for l in left.0.iter().chain(&right.0) {
                if !all.contains(l) {
                    all.push(*l);
                }
            }
            let is_last = later.is_empty();
            let kept: Vec<Label> = if is_last {
                labels.output.clone()
            } else {
                let needed = |l: &Label| labels.output.contains(l) || later.iter().any(|o| o.contains(l));
                all.iter().copied().filter(needed).collect()
            };
            let axis = |l: &Label| {
                // In between, a label is as long as the operands so far make it.
                let here = |(names, shape): &(Vec<Label>, Vec<usize>)| {
                    names.iter().zip(shape).filter(|(n, _)| *n == l).map(|(_, d)| *d).find(|d| *d != 1)
                };
                let len = here(&left).or_else(|| here(&right)).unwrap_or(1);
                Axis { len, a: step_of(*l, &left), b: step_of(*l, &right) }
            };
            let summed: Vec<Label> = all.iter().copied().filter(|l| !kept.contains(l)).collect();
            let contraction =
                Contraction { out: kept.iter().map(axis).collect(), sum: summed.iter().map(axis).collect() };
            let shape: Vec<usize> = contraction.out.iter().map(|a| a.len).collect();
            let ty = TensorType::new(DType::F32, shape.iter().copied());
            if !is_last && element_count(&shape).is_none() {
                return Err(OpError::TooLarge { shape: ty.to_string() });
            }
            out.push((contraction, shape.clone()));
            left = (kept, shape);
        }
        Ok(out)
    }
}

/// The step of a label in an operand: a repeated one walks its diagonal, an axis of 1 stands still.
fn step_of(label: Label, (labels, shape): &(Vec<Label>, Vec<usize>)) -> usize {
    let steps = strides(shape);
    let own = labels.iter().zip(shape).zip(&steps).filter(|((l, d), _)| **l == label && **d != 1);
    own.map(|(_, s)| *s).sum()
}

impl Contraction {
    fn run(&self, a: &[f32], b: Option<&[f32]>, y: &mut [f32]) {
        const ROW: usize = 64;
        y.par_chunks_mut(ROW).enumerate().for_each(|(chunk, y)| {
            for (i, y) in y.iter_mut().enumerate() {
                let (mut rest, mut at) = (chunk * ROW + i, (0, 0));
                for axis in self.out.iter().rev() {
                    let c = rest % axis.len;
                    rest /= axis.len;
                    at = (at.0 + c * axis.a, at.1 + c * axis.b);
                }
                let mut acc = 0.0;
                sum(&self.sum, a, b, at, &mut acc);
                *y = acc;
            }
        });
    }

    fn dispatch(&self, a: Operand, b: Option<Operand>, y: Operand) -> Result<Option<Dispatch>, OpError> {
        let of = |axes: &[Axis], f: fn(&Axis) -> usize| axes.iter().map(f).collect::<Vec<_>>();
        let n: usize = of(&self.out, |a| a.len).iter().product();
        if n == 0 {
            return Ok(None);
        }
        // Axes of one element need no room in the kernel.
        let long = |axes: &[Axis]| axes.iter().copied().filter(|a| a.len != 1).collect::<Vec<_>>();
        let (out, inner) = (long(&self.out), long(&self.sum));
        if out.len() > MAX_LABELS || inner.len() > MAX_LABELS {
            return Err(OpError::NoKernel {
                reason: "a contraction has more than 8 output or 8 summed labels",
            });
        }
        let params = Params {
            n: u32(n),
            out_rank: u32(out.len()),
            terms: u32(of(&inner, |a| a.len).iter().product()),
            sum_rank: u32(inner.len()),
            pair: u32::from(b.is_some()),
            out_dims: axes(&of(&out, |a| a.len), 1),
            out_a: axes(&of(&out, |a| a.a), 0),
            out_b: axes(&of(&out, |a| a.b), 0),
            sum_dims: axes(&of(&inner, |a| a.len), 1),
            sum_a: axes(&of(&inner, |a| a.a), 0),
            sum_b: axes(&of(&inner, |a| a.b), 0),
            ..Params::default()
        };
        Ok(Some(Dispatch::new(&KERNEL, &params, [a, b.unwrap_or(a), y], flat_grid(n))))
    }
}

fn sum(axes: &[Axis], a: &[f32], b: Option<&[f32]>, at: (usize, usize), acc: &mut f32) {
    match axes.split_first() {
        None => *acc += b.map_or(a[at.0], |b| a[at.0] * b[at.1]),
        Some((axis, rest)) => {
            for c in 0..axis.len {
                sum(rest, a, b, (at.0 + c * axis.a, at.1 + c * axis.b), acc);
            }
        }
    }
}

impl Op for Einsum {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().str("equation", &self.equation)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, usize::MAX, "1 or more")?;
        for i in 0..inputs.len() {
            check::f32(inputs, i)?;
        }
        let ranks: Vec<usize> = inputs.iter().map(TensorType::rank).collect();
        let labels = self.labels(&ranks)?;
        for label in labels.operands.iter().flatten() {
            self.length(*label, &labels, inputs)?;
        }
        let dims = labels.output.iter().map(|l| self.length(*l, &labels, inputs));
        let out = TensorType::new(inputs[0].dtype, dims.collect::<Result<Vec<Dim>, _>>()?);
        check::size(&out)?;
        if let Some(shapes) = inputs.iter().map(|t| t.at(1)?.dims()).collect::<Option<Vec<_>>>() {
            self.plan(&shapes)?;
        }
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let mut left = inputs[0].clone();
        for (i, (contraction, shape)) in self.plan(&shapes)?.into_iter().enumerate() {
            let mut y = cx.take(shape.iter().product());
            contraction.run(left.f32s(), inputs.get(i + 1).map(Tensor::f32s), &mut y);
            left = Tensor::from_f32(shape, y);
        }
        Ok(vec![left])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let shapes: Vec<Vec<usize>> = io.inputs.iter().map(|v| v.shape.clone()).collect();
        if io.outputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let plan = self.plan(&shapes)?;
        let mut left = Operand::Input(0);
        let (mut dispatches, mut temps) = (Vec::new(), Vec::new());
        for (i, (contraction, shape)) in plan.iter().enumerate() {
            let right = (i + 1 < io.inputs.len()).then_some(Operand::Input(i + 1));
            let to = if i + 1 == plan.len() { Operand::Output(0) } else { Operand::Temp(i) };
            dispatches.extend(contraction.dispatch(left, right, to)?);
            if to == Operand::Temp(i) {
                // A buffer has at least one element, even where a label is empty.
                temps.push(4 * shape.iter().product::<usize>().max(1) as u64);
            }
            left = to;
        }
        Ok(Lowering::Run { dispatches, temps, tables: Vec::new() })
    }
}
