//! `Table`: codes through a table of codes, the form that functions of one number have on integers.
//!
//! *Shapes*: codes `[..]`, table `[codes that the type has] -> [..]`. The table begins with the entry of the least code.

use super::filled::through;
use super::runtime::logistic;
use super::{read_params, write};
use crate::graph::codes::codes_of;
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeOutput, CodeParams, Op, OpDef, OpError, Reader, Scratch};
use crate::ops::unary::CHUNK;
use crate::quant::{QParams, Requantize, Step};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `table.wgsl`.
    struct Params { n4: u32, c: u32, c4: u32, low: i32, last: i32 }
}

static KERNEL: Kernel = crate::kernel!(
    "table",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/codes.wgsl",
        "shared/load_codes.wgsl",
        "shared/store_codes.wgsl",
        "table.wgsl"
    ]
);

pub(in crate::ops) static DEF: OpDef = OpDef { name: "Table", onnx: &[], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct Table {
    /// The function, by our name of it.
    function: String,
    output: QParams,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let function = r.opt_str("function")?.unwrap_or_default();
    match read_params(r, "out")? {
        Some(output) if output.scales().len() == 1 => Ok(Arc::new(Table { function, output })),
        _ => Err(r.unsupported("out", "other parameters", "one scale and one zero point")),
    }
}

/// The operator, and the table that it takes as input 1.
pub type Tabled = (Arc<dyn Op>, Tensor);

/// The table of a function of codes, and the operator that takes it as input 1; `None` where the operator is no function of
/// one number, or does not compute codes of one.
///
/// # Errors
/// Parameters of several scales.
pub fn table(op: &dyn Op, params: &CodeParams) -> Result<Option<Tabled>, OpError> {
    let CodeOutput::Codes { params: output, .. } = &params.output else { return Ok(None) };
    let Some(entries) = entries(op, params)? else { return Ok(None) };
    let tensor = params.store(&[entries.len()], &entries);
    let function = op.def().name.to_owned();
    Ok(Some((Arc::new(Table { function, output: output.clone() }), tensor)))
}

/// How far a table is from its function, over all codes of the input: in what the output stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableError {
    /// Entries.
    pub entries: usize,
    /// The largest difference; what lies beyond the codes of the output counts.
    pub worst: f64,
    /// Mean of the magnitudes of all.
    pub mean: f64,
    /// One step of the output.
    pub step: f64,
    /// Codes at which the function is infinite or not defined; they count in neither of both.
    pub not_finite: usize,
}

/// The error of the table that [`table`] gives, against the function in f64.
///
/// # Errors
/// Parameters of several scales, and an operator that has no table.
pub fn table_error(op: &dyn Op, params: &CodeParams) -> Result<TableError, OpError> {
    let no_table = || OpError::Arithmetic { message: format!("{} has no table", op.def().name) };
    let entries = entries(op, params)?.ok_or_else(no_table)?;
    let (x, y) = (params.input(0)?, params.output()?);
    let low = x.codes().0;
    let mut out =
        TableError { entries: entries.len(), worst: 0.0, mean: 0.0, step: y.scale().into(), not_finite: 0 };
    for (q, entry) in (low..).zip(&entries) {
        #[allow(clippy::cast_precision_loss, reason = "codes of 16 bits")]
        let (number, got) =
            (x.steps(q) as f64 * f64::from(x.scale()), y.steps(*entry) as f64 * f64::from(y.scale()));
        match op.exact(number).filter(|v| v.is_finite()) {
            None => out.not_finite += 1,
            Some(v) => {
                out.worst = out.worst.max((v - got).abs());
                out.mean += (v - got).abs();
            }
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "65536 at most")]
    let counted = (entries.len() - out.not_finite).max(1) as f64;
    out.mean /= counted;
    Ok(out)
}

/// Whether [`table`] gives one for an input of this type.
pub fn has_table(op: &dyn Op, input: DType) -> bool {
    op.exact(0.0).is_some() && input.limits().is_some() && input != DType::I32
}

/// The integer form of a function of one number.
pub(in crate::ops) fn integer(
    cx: &Scratch,
    op: &dyn Op,
    params: &CodeParams,
    inputs: &[Tensor],
) -> Result<Option<Tensor>, OpError> {
    let Some(entries) = entries(op, params)? else { return Ok(None) };
    if let Some(y) = through(cx, &inputs[0], &entries, params.output.dtype()) {
        return Ok(Some(y));
    }
    let low = params.input(0)?.codes().0;
    let codes: Vec<i32> =
        codes_of(inputs, 0)?.into_iter().map(|q| entries[q.abs_diff(low) as usize]).collect();
    Ok(Some(params.store(inputs[0].shape(), &codes)))
}

/// Codes of `f` of each code of the input, from the least on. An infinite number saturates. Where the function is not
/// defined, as a logarithm below zero, the entry is that of the nearest code at which it is, of two as near the lower one:
/// codes of an input get there by their errors alone.
fn entries(op: &dyn Op, params: &CodeParams) -> Result<Option<Vec<i32>>, OpError> {
    let (x, y) = (params.input(0)?, params.output()?);
    let dtype = params.inputs.first().and_then(Option::as_ref).map(QParams::dtype);
    let Some((low, high)) = dtype.filter(|d| has_table(op, *d)).and_then(DType::limits) else {
        return Ok(None);
    };
    let in_f32 = params.arithmetic.requantize == Requantize::Float;
    let one = |q: i32| match in_f32.then(|| in_f32s(op, x.dequantize(q))).flatten() {
        Some(number) => Some(quotient(&y, number)),
        None => {
            #[allow(clippy::cast_precision_loss, reason = "codes of 16 bits")]
            let number = x.steps(q) as f64 * f64::from(x.scale());
            op.exact(number).filter(|v| !v.is_nan()).map(|v| y.quantize_exact(v))
        }
    };
    let all: Vec<Option<i32>> = (low..=high).map(one).collect();
    Ok(Some(with_nearest(&all).unwrap_or_else(|| vec![y.place(0); all.len()])))
}

/// Each entry, or the nearest one that is there, of two as near the lower one; `None` where there is none at all.
fn with_nearest(all: &[Option<i32>]) -> Option<Vec<i32>> {
    let there: Vec<usize> = (0..all.len()).filter(|i| all[*i].is_some()).collect();
    let nearest = |i: usize| {
        let behind = there.partition_point(|at| *at < i);
        let sides = [behind.checked_sub(1), Some(behind)].into_iter().flatten();
        let at = sides.filter_map(|k| there.get(k)).min_by_key(|at| at.abs_diff(i))?;
        all[*at]
    };
    (0..all.len()).map(nearest).collect()
}

/// Functions that ONNX Runtime has on codes, as it computes them.
fn in_f32s(op: &dyn Op, x: f32) -> Option<f32> {
    match op.def().name {
        "Sigmoid" => Some(logistic(x)),
        "Identity" => Some(x),
        "LeakyRelu" => {
            #[allow(clippy::cast_possible_truncation, reason = "alpha is an f32, and f64 holds its product")]
            let y = op.exact(f64::from(x))? as f32;
            Some(y)
        }
        _ => None,
    }
}

/// The code of a number, the quotient formed in f32.
#[allow(clippy::cast_possible_truncation, reason = "clamped by `place`")]
fn quotient(y: &Step, number: f32) -> i32 {
    y.place((number / y.scale()).round_ties_even() as i64)
}

impl Op for Table {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        write(Attrs::new().str("function", &self.function), "out", &self.output)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2")?;
        let x = &inputs[0];
        let Some((low, high)) = x.dtype.limits().filter(|_| x.dtype != DType::I32) else {
            let expected = "i4, i8, i16, u4, u8 or u16";
            return Err(OpError::DType { input: 0, expected, got: x.dtype });
        };
        check::dtype(inputs, 1, self.output.dtype(), self.output.dtype().name())?;
        let entries = high.abs_diff(low) as usize + 1;
        if inputs[1].shape != [Dim::Fixed(entries)] {
            return Err(OpError::shape(1, format!("[{entries}]"), &inputs[1]));
        }
        Ok(vec![TensorType { dtype: self.output.dtype(), shape: x.shape.clone() }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let table = codes_of(inputs, 1)?;
        if let Some(y) = through(cx, &inputs[0], &table, self.output.dtype()) {
            return Ok(vec![y]);
        }
        let (low, _) = inputs[0].dtype().limits().unwrap_or((0, 0));
        let mut codes = codes_of(inputs, 0)?;
        codes.par_chunks_mut(CHUNK).for_each(|c| {
            c.iter_mut().for_each(|q| *q = table[q.abs_diff(low) as usize]);
        });
        let y = Tensor::from_codes(self.output.dtype(), inputs[0].shape(), &codes);
        Ok(vec![y.expect("entries are codes")])
    }

    /// The table has no channels, so that `Any` would not do: pictures as convolutions have them, all else linear.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let last = inputs[0].rank() >= 4;
        let of = |dtype| if last { Layout::channels_last(dtype) } else { Layout::Linear };
        let inputs = vec![of(inputs[0].dtype), Layout::Linear];
        Layouts::Exact { inputs, outputs: vec![of(self.output.dtype())] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let [n4, c, c4] = x.groups();
        let (low, high) = x.dtype.limits().unwrap_or((0, 0));
        let params = Params { n4, c, c4, low, last: high - low };
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Output(0)];
        let dispatch = Dispatch::new(&KERNEL, &params, bind, flat_grid(n4 as usize));
        Ok(Lowering::run([dispatch.with("X_FORM", x.form()).with("Y_FORM", io.outputs[0].form())]))
    }

    fn codes(&self) -> Option<CodeOutput> {
        Some(CodeOutput::codes(self.output.clone()))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, w) = (rng.int(1, 9), rng.int(1, 30));
    let mut out = Vec::new();
    for (from, to) in [
        (DType::I4, DType::I8),
        (DType::U4, DType::U16),
        (DType::I8, DType::U8),
        (DType::U8, DType::I8),
        (DType::I16, DType::I16),
        (DType::U16, DType::U4),
    ] {
        let limits = |d: DType| d.limits().expect("codes");
        let draw = |rng: &mut Rng, dtype: DType, shape: &[usize]| {
            let (low, high) = limits(dtype);
            let codes: Vec<i32> = (0..shape.iter().product::<usize>()).map(|_| rng.code(low, high)).collect();
            Tensor::from_codes(dtype, shape, &codes).expect("within the type")
        };
        for shape in [vec![7, c, 3, w], vec![2, c, w], vec![w], vec![], vec![0, 3]] {
            let (low, high) = limits(from);
            let table = draw(rng, to, &[high.abs_diff(low) as usize + 1]);
            let table = SampleInput::of([table.len()], Fill::Exact(table)).constant();
            let x = SampleInput::of(shape.clone(), Fill::Exact(draw(rng, from, &shape)));
            let output = QParams::per_tensor(to, rng.float(0.01, 1.0), limits(to).0).expect("legal");
            let attrs = write(Attrs::new().str("function", "Tanh"), "out", &output);
            out.push(Sample::new(attrs, [x, table]));
        }
    }
    out
}
