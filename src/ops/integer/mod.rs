//! `Integer`: an operator on codes. It holds the operator whose meaning on numbers it has, the parameters of the codes,
//! and the target's arithmetic; what it computes is that operator's [`Op::integer`].
//!
//! *Shapes*: those of the operator, and one addend of the output's shape where it has one.

pub(super) mod bound;
pub(super) mod bytes;
pub(super) mod dense;
pub(super) mod device;
pub(super) mod filled;
pub(super) mod isa;
mod lanes;
pub(super) mod means;
pub(super) mod pairs;
pub(super) mod qoperator;
pub(super) mod quantize;
mod rounded;
pub(super) mod runtime;
mod samples;
pub(super) mod sums;
pub(super) mod table;
pub(super) mod whole;

use super::{binary, conv, conv_transpose, grid_sample, identity, pool, product, reduce, resample};
use crate::graph::lower::{Io, Kernel, Layouts, Lowering};
use crate::graph::op::check;
use crate::graph::{
    AttrValue, Attrs, CodeOutput, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch, Source, Value,
};
use crate::quant::{Accumulator, Arithmetic, Division, QParams, Requantize, Rounding};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;

pub(super) static DEF: OpDef =
    OpDef { name: "Integer", onnx: &[], read, kernels: KERNELS, samples: samples::samples };

/// What [`Op::lower_integer`] of all operators may name.
static KERNELS: &[&Kernel] = &[
    &device::STEPS,
    &device::FOLD,
    &conv::codes::DOTS,
    &conv::codes::DENSE,
    &conv::codes::GROUPED,
    &conv::codes::DEPTHWISE,
    &conv::codes::WIDE,
    &conv::codes::PAIRS,
    &product::DOTS_TILED,
    &product::DOTS_BY_ROW,
    &product::CODES_TILED,
    &product::CODES_BY_ROW,
    &product::CODES_WIDE,
    &product::CODES_PAIRS,
    &binary::codes::ADD,
    &binary::codes::MUL,
    &identity::REQUANTIZE,
    &pool::average::CODES,
    &reduce::MEAN_OF_CODES,
    &conv_transpose::device::DENSE,
    &conv_transpose::device::GROUPED,
    &conv_transpose::device::WIDE,
    &grid_sample::codes::CODES,
    &resample::CODES,
    &resample::CODES4,
];

/// An operator on codes.
#[derive(Debug)]
struct Integer {
    op: Arc<dyn Op>,
    params: CodeParams,
}

/// The operator on codes of an operator on numbers.
pub fn integer(op: Arc<dyn Op>, params: CodeParams) -> Arc<dyn Op> {
    Arc::new(Integer { op, params })
}

/// Writes parameters under a name.
fn write(mut attrs: Attrs, name: &str, p: &QParams) -> Attrs {
    attrs = attrs.str(name, p.dtype().name()).floats(&format!("{name}.scale"), p.scales());
    attrs = attrs.ints(&format!("{name}.zero_point"), p.zero_points().iter().map(|z| i64::from(*z)));
    if let Some(axis) = p.axis() {
        attrs = attrs.int(&format!("{name}.axis"), i64::try_from(axis).unwrap_or(i64::MAX));
    }
    if p.narrow() {
        attrs = attrs.int(&format!("{name}.narrow"), 1);
    }
    if p.rounding != Rounding::default() {
        attrs = attrs.str(&format!("{name}.rounding"), p.rounding.name());
    }
    if p.division != Division::default() {
        attrs = attrs.str(&format!("{name}.division"), p.division.name());
    }
    attrs
}

/// Reads what [`write`] wrote; `None` where there is nothing of this name.
fn read_params(r: &mut Reader, name: &str) -> Result<Option<QParams>, OpError> {
    let Some(dtype) = r.opt_str(name)? else { return Ok(None) };
    let bad = |r: &Reader, v: String| r.unsupported(name, v, "parameters of codes");
    let dtype = DType::from_name(&dtype).ok_or_else(|| bad(r, dtype))?;
    let scales = r.floats(&format!("{name}.scale"))?.unwrap_or_default();
    let zeros = r.ints(&format!("{name}.zero_point"))?.unwrap_or_default();
    let zeros: Option<Vec<i32>> = zeros.iter().map(|z| i32::try_from(*z).ok()).collect();
    let zeros = zeros.ok_or_else(|| bad(r, "zero points".to_owned()))?;
    let axis = r.opt_int(&format!("{name}.axis"))?;
    let axis = axis.map(|a| usize::try_from(a).map_err(|_| bad(r, a.to_string()))).transpose()?;
    let narrow = r.flag(&format!("{name}.narrow"), false)?;
    let params = QParams::new(dtype, narrow, scales, zeros, axis).map_err(|e| bad(r, e.to_string()))?;
    let rounding = r.named(&format!("{name}.rounding"), &Rounding::ALL, Rounding::name)?;
    let division = r.named(&format!("{name}.division"), &Division::ALL, Division::name)?;
    Ok(Some(params.rounded(rounding).divided(division)))
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let count = r.inputs();
    let addend = read_params(r, "addend")?;
    let of_op = count.saturating_sub(usize::from(addend.is_some()));
    let inputs = (0..of_op).map(|i| read_params(r, &format!("in{i}"))).collect::<Result<Vec<_>, _>>()?;
    let mut internals = Vec::new();
    while let Some(p) = read_params(r, &format!("tap{}", internals.len()))? {
        internals.push(p);
    }
    let output = match r.one_of("result", "codes", &["codes", "sums", "real"])? {
        "sums" => CodeOutput::Sums,
        "real" => CodeOutput::Real,
        _ => {
            let Some(params) = read_params(r, "out")? else {
                return Err(r.unsupported("out", "nothing", "parameters of codes"));
            };
            let (least, most) = params.codes();
            let mut bound = |name: &str, default: i32| -> Result<i32, OpError> {
                let v = r.int(name, default.into())?;
                i32::try_from(v)
                    .ok()
                    .filter(|v| (least..=most).contains(v))
                    .ok_or_else(|| r.unsupported(name, v, "a code of the output"))
            };
            let (low, high) = (bound("low", least)?, bound("high", most)?);
            CodeOutput::Codes { params, low, high }
        }
    };
    let bound = r.int("bound", 0)?;
    let bound = u64::try_from(bound).map_err(|_| r.unsupported("bound", bound, "0 or more"))?;
    let arithmetic = Arithmetic {
        requantize: r.named("requantize", &Requantize::ALL, Requantize::name)?,
        rounding: r.named("rounding", &Rounding::ALL, Rounding::name)?,
        accumulator: r.named("accumulator", &Accumulator::ALL, Accumulator::name)?,
    };
    let params = CodeParams { inputs, output, internals, addend, bound, arithmetic };
    let op = read_op(r, &params)?;
    Ok(integer(op, params))
}

/// The operator inside, from the attributes under `op`.
fn read_op(r: &mut Reader, params: &CodeParams) -> Result<Arc<dyn Op>, OpError> {
    let name = r.opt_str("op")?.unwrap_or_default();
    let Some(def) = super::by_name(&name).filter(|d| !std::ptr::eq(*d, &DEF)) else {
        return Err(r.unsupported("op", name, "an operator that has an integer form"));
    };
    let attrs = Attrs::from(r.raw_under("op."));
    let mut inputs = Vec::new();
    for (i, p) in params.inputs.iter().enumerate() {
        let ty = on_numbers(r.input(i)?, p.is_some() || is_bias(i, params));
        inputs.push(Some(crate::graph::attrs::Input { ty, known: None }));
    }
    let mut inner = Reader::new(Source::Graph, def.name, attrs, inputs, r.outputs());
    let op = (def.read)(&mut inner)?;
    match inner.unread().first() {
        Some((name, value)) => Err(r.unsupported(&format!("op.{name}"), value, "an attribute that it has")),
        None => Ok(op),
    }
}

/// Whether an input without parameters is a bias: of products, in i32, where the operator wants f32.
fn is_bias(i: usize, params: &CodeParams) -> bool {
    i == 2 && params.inputs.iter().take(2).all(Option::is_some)
}

fn on_numbers(ty: &TensorType, codes: bool) -> TensorType {
    TensorType { dtype: if codes { DType::F32 } else { ty.dtype }, shape: ty.shape.clone() }
}

impl Integer {
    /// Types of the operator's inputs as numbers.
    fn types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let p = &self.params;
        let count = p.inputs.len() + usize::from(p.addend.is_some());
        if inputs.len() != count {
            return Err(OpError::Arity { expected: "as many as it has parameters for", got: inputs.len() });
        }
        for (i, (ty, p)) in inputs.iter().zip(p.inputs.iter().chain([&p.addend])).enumerate() {
            if let Some(want) = p.as_ref().map(QParams::dtype).filter(|d| *d != ty.dtype) {
                return Err(OpError::DType { input: i, expected: want.name(), got: ty.dtype });
            }
        }
        let each = inputs.iter().zip(&p.inputs).enumerate();
        each.map(|(i, (ty, p))| {
            if p.is_none() && is_bias(i, &self.params) && ty.dtype != DType::I32 {
                return Err(OpError::DType { input: i, expected: "i32", got: ty.dtype });
            }
            Ok(on_numbers(ty, p.is_some() || is_bias(i, &self.params)))
        })
        .collect()
    }
}

impl Op for Integer {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let p = &self.params;
        let mut attrs = Attrs::new().str("op", self.op.def().name);
        attrs.0.extend(self.op.attrs().0.into_iter().map(|(k, v)| (format!("op.{k}"), v)));
        for (i, p) in p.inputs.iter().enumerate() {
            if let Some(p) = p {
                attrs = write(attrs, &format!("in{i}"), p);
            }
        }
        if let Some(p) = &p.addend {
            attrs = write(attrs, "addend", p);
        }
        for (i, p) in p.internals.iter().enumerate() {
            attrs = write(attrs, &format!("tap{i}"), p);
        }
        attrs = match &p.output {
            CodeOutput::Sums => attrs.str("result", "sums"),
            CodeOutput::Real => attrs.str("result", "real"),
            CodeOutput::Codes { params, low, high } => {
                let attrs = write(attrs, "out", params);
                let (least, most) = params.codes();
                let attrs = if *low > least { attrs.int("low", i64::from(*low)) } else { attrs };
                if *high < most { attrs.int("high", i64::from(*high)) } else { attrs }
            }
        };
        if p.bound > 0 {
            attrs = attrs.int("bound", i64::try_from(p.bound).unwrap_or(i64::MAX));
        }
        let a = p.arithmetic;
        attrs
            .str("requantize", a.requantize.name())
            .str("rounding", a.rounding.name())
            .str("accumulator", a.accumulator.name())
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let types = self.types(inputs)?;
        if matches!(self.op.quant_rule(), QuantRule::Gemm { .. }) {
            pairs::check(&self.params)?;
        }
        let mut out = match types.as_slice() {
            // `MatMul` has no bias of its own: it is an addition behind it.
            [a, b, bias] if self.op.def().name == "MatMul" => {
                let out = self.op.infer(&[a.clone(), b.clone()])?;
                let channels = b.shape.last().filter(|_| b.rank() > 1);
                let fits =
                    bias.rank() == 1 && (bias.shape.last() == channels || bias.shape == [Dim::Fixed(1)]);
                if !fits {
                    let expected = "one number, or one for each column";
                    return Err(OpError::shape(2, expected, &inputs[2]));
                }
                out
            }
            _ => self.op.infer(&types)?,
        };
        out.truncate(1);
        let [y] = out.as_mut_slice() else { return Err(OpError::Arity { expected: "some", got: 0 }) };
        y.dtype = self.params.output.dtype();
        if self.params.addend.is_some() && inputs[types.len()].shape != y.shape {
            return Err(OpError::shape(
                types.len(),
                format!("that of the output, {y}"),
                &inputs[types.len()],
            ));
        }
        check::size(y)?;
        Ok(out)
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let y = self.op.integer(cx, &self.params, inputs)?;
        let y =
            y.ok_or(OpError::Arithmetic { message: format!("{} has no integer form", self.op.def().name) })?;
        Ok(vec![y])
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        self.op.integer_layouts(&self.params, inputs)
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        if io.outputs[0].is_empty() {
            return Ok(Lowering::run([]));
        }
        let lowering =
            if device::has_kernel(&self.params) { self.op.lower_integer(&self.params, io)? } else { None };
        lowering.ok_or(OpError::NoKernel { reason: "its integer form runs on the CPU only" })
    }

    fn codes(&self) -> Option<CodeOutput> {
        Some(self.params.output.clone())
    }

    fn check_constants(&self, inputs: &[&Value]) -> Result<(), OpError> {
        bound::check(self.op.as_ref(), &self.params, inputs)
    }

    fn integer_of(&self) -> Option<(&Arc<dyn Op>, &CodeParams)> {
        Some((&self.op, &self.params))
    }
}

impl Reader {
    /// The attributes whose names begin so, without it, marked as read.
    fn raw_under(&mut self, prefix: &str) -> Vec<(String, AttrValue)> {
        let names: Vec<String> = self.names().filter(|n| n.starts_with(prefix)).map(str::to_owned).collect();
        names.into_iter().filter_map(|n| Some((n[prefix.len()..].to_owned(), self.raw(&n)?))).collect()
    }
}
