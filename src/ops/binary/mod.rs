//! Element-wise functions of two tensors that broadcast, and chains of them over more: one row each, in `table.rs`.
//!
//! *Shapes*: `[..], [..] -> [..]`, as NumPy broadcasts.

pub(super) mod codes;
mod quotient;
mod table;
#[cfg(test)]
mod tests;

pub(super) use table::*;

use super::broadcast::{self, Address, Walk, addresses};
use super::unary::CHUNK;
use crate::graph::epilogue::EpilogueParams;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, View, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Internals, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `binary.wgsl`.
    struct Params {
        epilogue: EpilogueParams, n4: u32, n: u32, c: u32, c4: u32, dims: [u32; 8],
        a_how: [u32; 4], a_strides: [u32; 8], b_how: [u32; 4], b_strides: [u32; 8],
        p: f32,
    }
}

/// An operand within a row.
#[derive(Clone, Copy)]
enum Arg<'a, T> {
    Slice(&'a [T]),
    Splat(T),
}

/// A function of a row and of `p`.
type Rows<A, B, R> = fn(&mut [R], Arg<'_, A>, Arg<'_, B>, f32);

/// The CPU meaning for one pair of element types.
#[derive(Debug)]
enum Apply {
    F32(Rows<f32, f32, f32>),
    I32(Rows<i32, i32, i32>),
    F32Bool(Rows<f32, f32, u8>),
    I32Bool(Rows<i32, i32, u8>),
    Bool(Rows<u8, u8, u8>),
    F32I32(Rows<f32, i32, f32>),
}

impl Apply {
    /// Types of the operands and of the result.
    fn dtypes(&self) -> [DType; 3] {
        match self {
            Apply::F32(_) => [DType::F32; 3],
            Apply::I32(_) => [DType::I32; 3],
            Apply::F32Bool(_) => [DType::F32, DType::F32, DType::Bool],
            Apply::I32Bool(_) => [DType::I32, DType::I32, DType::Bool],
            Apply::Bool(_) => [DType::Bool; 3],
            Apply::F32I32(_) => [DType::F32, DType::I32, DType::F32],
        }
    }
}

/// A function for one pair of element types.
#[derive(Debug)]
struct Form {
    apply: Apply,
    kernel: &'static Kernel,
    /// Values of the samples' operands.
    fills: [Fill; 2],
}

/// What an operator takes beside two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Pair,
    /// A second operand that does not widen the first.
    IntoFirst,
    /// More operands, combined from the left.
    Chain,
    /// The same, divided by their number in the end, which is `p` there and else 1.
    Mean,
    /// Attribute `fmod`, which is `p`.
    Modulo,
}

/// What tells one function from another.
#[derive(Debug)]
struct Row {
    def: &'static OpDef,
    kind: Kind,
    forms: &'static [Form],
    /// Which element types there are, for messages.
    supported: &'static str,
    /// Ulp of the largest result by which the device may differ beyond the 5 that every operator may.
    extra_ulps: f32,
}

/// `f` of each pair; inlined, so that each row has loops of its own.
#[inline(always)]
fn each<A: Copy, B: Copy, R>(y: &mut [R], a: Arg<'_, A>, b: Arg<'_, B>, f: impl Fn(A, B) -> R) {
    match (a, b) {
        (Arg::Slice(a), Arg::Slice(b)) => {
            for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                *y = f(*a, *b);
            }
        }
        (Arg::Slice(a), Arg::Splat(b)) => {
            for (y, a) in y.iter_mut().zip(a) {
                *y = f(*a, b);
            }
        }
        (Arg::Splat(a), Arg::Slice(b)) => {
            for (y, b) in y.iter_mut().zip(b) {
                *y = f(a, *b);
            }
        }
        (Arg::Splat(a), Arg::Splat(b)) => {
            for y in y {
                *y = f(a, b);
            }
        }
    }
}

#[derive(Debug)]
struct Binary {
    row: &'static Row,
    /// Attribute `fmod`.
    fmod: bool,
}

fn read(row: &'static Row, r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let fmod = row.kind == Kind::Modulo && r.flag("fmod", false)?;
    if matches!(row.kind, Kind::Chain | Kind::Mean) && r.inputs() == 1 {
        return Ok(super::identity::new());
    }
    Ok(Arc::new(Binary { row, fmod }))
}

fn bytes(t: &Tensor) -> &[u8] {
    t.as_bool().expect("the type was checked")
}

/// Runs `f` over an output of this shape in parallel.
fn in_rows<A: Copy + Sync, B: Copy + Sync, R: Send>(
    out: &[usize],
    (a_shape, a): (&[usize], &[A]),
    (b_shape, b): (&[usize], &[B]),
    y: &mut [R],
    p: f32,
    f: Rows<A, B, R>,
) {
    let walk = Walk::new(out, [a_shape, b_shape]);
    let splat = [walk.is_splat(0), walk.is_splat(1)];
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(i, y)| {
        walk.rows(i * CHUNK..i * CHUNK + y.len(), |piece, [at_a, at_b]| {
            let n = piece.len();
            let a = if splat[0] { Arg::Splat(a[at_a]) } else { Arg::Slice(&a[at_a..at_a + n]) };
            let b = if splat[1] { Arg::Splat(b[at_b]) } else { Arg::Slice(&b[at_b..at_b + n]) };
            f(&mut y[piece], a, b, p);
        });
    });
}

impl Binary {
    /// How input `input` of type `got` is taken in by what is of type `first`.
    fn form(&self, first: DType, input: usize, got: DType) -> Result<&'static Form, OpError> {
        let form = self.row.forms.iter().find(|f| f.apply.dtypes()[..2] == [first, got]);
        form.ok_or(OpError::DTypes { first, input, got, supported: self.row.supported })
    }

    fn is_chain(&self) -> bool {
        matches!(self.row.kind, Kind::Chain | Kind::Mean)
    }

    /// The number `p` of the step that takes in operand `i` of `n`.
    #[allow(clippy::cast_precision_loss, reason = "a node has few operands")]
    fn p(&self, i: usize, n: usize) -> f32 {
        match self.row.kind {
            Kind::Mean if i + 1 == n => n as f32,
            Kind::Mean => 1.0,
            _ => f32::from(u8::from(self.fmod)),
        }
    }

    fn apply(&self, cx: &Scratch, form: &Form, a: &Tensor, b: &Tensor, p: f32) -> Tensor {
        let out = broadcast::concrete(&[a.shape(), b.shape()]);
        let n = out.iter().product();
        let (a_shape, b_shape) = (a.shape(), b.shape());
        match form.apply {
            Apply::F32(f) => {
                let mut y = cx.take(n);
                in_rows(&out, (a_shape, a.f32s()), (b_shape, b.f32s()), &mut y, p, f);
                Tensor::from_f32(out, y)
            }
            Apply::I32(f) => {
                let mut y = vec![0; n];
                in_rows(&out, (a_shape, a.i32s()), (b_shape, b.i32s()), &mut y, p, f);
                Tensor::from_i32(out, y)
            }
            Apply::F32Bool(f) => {
                let mut y = vec![0; n];
                in_rows(&out, (a_shape, a.f32s()), (b_shape, b.f32s()), &mut y, p, f);
                Tensor::from_bool(out, y)
            }
            Apply::I32Bool(f) => {
                let mut y = vec![0; n];
                in_rows(&out, (a_shape, a.i32s()), (b_shape, b.i32s()), &mut y, p, f);
                Tensor::from_bool(out, y)
            }
            Apply::Bool(f) => {
                let mut y = vec![0; n];
                in_rows(&out, (a_shape, bytes(a)), (b_shape, bytes(b)), &mut y, p, f);
                Tensor::from_bool(out, y)
            }
            Apply::F32I32(f) => {
                let mut y = cx.take(n);
                in_rows(&out, (a_shape, a.f32s()), (b_shape, b.i32s()), &mut y, p, f);
                Tensor::from_f32(out, y)
            }
        }
    }
}

impl Op for Binary {
    fn def(&self) -> &'static OpDef {
        self.row.def
    }

    fn attrs(&self) -> Attrs {
        if self.row.kind == Kind::Modulo {
            return Attrs::new().int("fmod", i64::from(self.fmod));
        }
        Attrs::new()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        if self.is_chain() {
            check::arity(inputs, 2, usize::MAX, "at least 2")?;
        } else {
            check::arity(inputs, 2, 2, "2")?;
        }
        let first = inputs[0].dtype;
        if !self.row.forms.iter().any(|f| f.apply.dtypes()[0] == first) {
            return Err(OpError::DType { input: 0, expected: self.row.supported, got: first });
        }
        let mut result = first;
        for (input, t) in inputs.iter().enumerate().skip(1) {
            result = self.form(first, input, t.dtype)?.apply.dtypes()[2];
        }
        if self.row.kind == Kind::Modulo && first == DType::F32 && !self.fmod {
            let (name, value, supported) = ("fmod".to_owned(), "0".to_owned(), "1 for f32".to_owned());
            return Err(OpError::Attribute { name, value, supported });
        }
        let shape = broadcast::shape(inputs)?;
        if self.row.kind == Kind::IntoFirst && shape != inputs[0].shape {
            return Err(OpError::shape(1, format!("that broadcasts to {}", inputs[0]), &inputs[1]));
        }
        Ok(vec![TensorType { dtype: result, shape }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let mut y = inputs[0].clone();
        for (i, b) in inputs.iter().enumerate().skip(1) {
            let form = self.form(y.dtype(), i, b.dtype())?;
            let next = self.apply(cx, form, &y, b, self.p(i, inputs.len()));
            cx.give_tensor(std::mem::replace(&mut y, next));
        }
        Ok(vec![y])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let out = &io.outputs[0];
        if out.is_empty() {
            return Ok(Lowering::run([]));
        }
        let n = io.inputs.len();
        // What a chain has computed so far: a linear or channels-last tensor like the output.
        let partial = View { dtype: io.inputs[0].dtype, ..out.clone() };
        let mut dispatches = Vec::new();
        for (i, b) in io.inputs.iter().enumerate().skip(1) {
            let (a, a_operand) = match i {
                1 => (&io.inputs[0], Operand::Input(0)),
                _ => (&partial, Operand::Temp(i % 2)),
            };
            let y = if i + 1 == n { Operand::Output(0) } else { Operand::Temp((i + 1) % 2) };
            let form = self.form(a.dtype, i, b.dtype)?;
            let (dims, [to_a, to_b]) = addresses(out, [a, b]);
            let params = params(out, dims, to_a, to_b, self.p(i, n));
            let bind = [a_operand, Operand::Input(i), y];
            dispatches.push(Dispatch::new(form.kernel, &params, bind, flat_grid(params.n4 as usize)));
        }
        let temps = vec![out.size_bytes(); n.saturating_sub(2).min(2)];
        Ok(Lowering::Run { dispatches, temps, tables: Vec::new() })
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match self.row.forms[0].apply {
            Apply::F32(_) if self.row.kind != Kind::Modulo => QuantRule::Compute,
            _ => QuantRule::Float,
        }
    }

    fn has_integer_form(&self) -> bool {
        ["Add", "Sub", "Mul", "Div"].contains(&self.row.def.name)
    }

    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        Ok(Some(match self.row.def.name {
            "Add" => codes::sum(params, inputs, false)?,
            "Sub" => codes::sum(params, inputs, true)?,
            "Mul" => codes::product(params, inputs)?,
            "Div" => quotient::integer(params, inputs)?,
            _ => return Ok(None),
        }))
    }

    fn integer_layouts(&self, _params: &CodeParams, _inputs: &[TensorType]) -> Layouts {
        Layouts::AnyPacked
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        Ok(match self.row.def.name {
            "Add" => Some(codes::lower_sum(params, io, false)?),
            "Sub" => Some(codes::lower_sum(params, io, true)?),
            "Mul" => Some(codes::lower_product(params, io)?),
            _ => None,
        })
    }

    fn internals(&self, inputs: &[TensorType]) -> Result<Internals, OpError> {
        match self.row.def.name {
            "Div" if inputs[1].dtype == DType::F32 => quotient::internals(&inputs[1]),
            _ => Ok(Internals::default()),
        }
    }
}

fn params(out: &View, dims: [u32; 8], a: Address, b: Address, p: f32) -> Params {
    let [n4, n, c, c4] = broadcast::extent(out);
    let (a_how, a_strides, b_how, b_strides) = (a.how, a.strides, b.how, b.strides);
    let epilogue = EpilogueParams::default();
    Params { epilogue, n4, n, c, c4, dims, a_how, a_strides, b_how, b_strides, p }
}

/// Pairs of shapes that broadcast in every way that a kernel tells apart.
pub(super) fn sample_shapes(rng: &mut Rng) -> Vec<[Vec<usize>; 2]> {
    let (c, h, w) = (rng.int(2, 9), rng.int(2, 6), rng.int(2, 11));
    vec![
        [vec![], vec![]],
        [vec![w], vec![]],
        [vec![], vec![7, c, w]],
        [vec![7, c, h, w], vec![7, c, h, w]],
        [vec![1, c, h, w], vec![c, 1, 1]],
        [vec![7, c, 4, 8], vec![1, c, 1, 1]],
        [vec![2, c, h, w], vec![2, 1, h, w]],
        [vec![2, c, h, w], vec![2, c, 1, 1]],
        [vec![2, 1, h, w], vec![1, c, 1, w]],
        [vec![7, w, 8], vec![8]],
        [vec![7, h, 3], vec![h, 1]],
        [vec![1, 1, h, 1], vec![2, c, 1, w]],
        [vec![2, 1, 3, 1, 2, w], vec![4, 1, 3, 1, w]],
        [vec![3, 1], vec![1, w]],
        [vec![2, 0, 3], vec![1, 1, 3]],
        [vec![2, 6, 30, 40], vec![1, 6, 30, 40]],
        [vec![3, 17, 65], vec![3, 17, 65]],
    ]
}

fn samples(row: &'static Row, rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    for form in row.forms {
        for (i, [a, b]) in sample_shapes(rng).into_iter().enumerate() {
            if row.kind == Kind::IntoFirst && broadcast::concrete(&[&a, &b]) != a {
                continue;
            }
            let fmod = i % 2 == 0 || form.apply.dtypes()[0] == DType::F32;
            let attrs = match row.kind {
                Kind::Modulo => Attrs::new().int("fmod", i64::from(fmod)),
                _ => Attrs::new(),
            };
            let [fill_a, fill_b] = form.fills.clone();
            let draw = |fill: &Fill, shape: &[usize], rng: &mut Rng| match fill {
                // Stands for values among which a comparison can go wrong.
                Fill::Range(low, high) if low == high => super::unary::special_values(shape, rng),
                other => other.clone(),
            };
            let mut inputs = vec![
                SampleInput::of(a.clone(), draw(&fill_a, &a, rng)),
                SampleInput::of(b.clone(), draw(&fill_b, &b, rng)).constant(),
            ];
            if i % 3 == 0 {
                inputs[1].constant = false;
            }
            if matches!(row.kind, Kind::Chain | Kind::Mean) {
                for _ in 0..i % 4 {
                    inputs.push(SampleInput::of(a.clone(), fill_a.clone()));
                }
            }
            let reduction = inputs.len() - 1;
            let largest = match fill_a {
                Fill::Range(low, high) => low.abs().max(high.abs()),
                _ => 0.0,
            };
            let extra = row.extra_ulps * f32::EPSILON / 2.0 * largest;
            out.push(Sample::new(attrs, inputs).reduction(reduction).extra(extra));
        }
    }
    out
}
