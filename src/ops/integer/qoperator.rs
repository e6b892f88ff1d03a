//! ONNX's operators on codes, its own and those of ONNX Runtime, read as operators of ours with the arithmetic of ONNX
//! Runtime. Scales and zero points are inputs there and must be constants.

use super::bound::{Bias, bound, in_32_bits};
use super::integer;
use crate::graph::attrs::{Input, Known, normalize_axis};
use crate::graph::{Attrs, CodeOutput, CodeParams, Op, OpDef, OpError, Reader, Source};
use crate::ops::by_name;
use crate::quant::{Arithmetic, Division, Profile, QParams};
use crate::tensor::{DType, TensorType};
use std::sync::Arc;

pub(in crate::ops) static DEF: OpDef = OpDef {
    name: "QOperator",
    onnx: &[
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "com.microsoft:QGemm",
        "com.microsoft:QLinearAdd",
        "com.microsoft:QLinearMul",
        "com.microsoft:QLinearConcat",
        "com.microsoft:QLinearAveragePool",
        "com.microsoft:QLinearGlobalAveragePool",
        "com.microsoft:QLinearSigmoid",
        "com.microsoft:QLinearLeakyRelu",
        "com.microsoft:QLinearSoftmax",
    ],
    read,
    kernels: &[],
    samples: |_| Vec::new(),
};

/// Where a node has a tensor of codes: the tensor itself, unless it is the output, its scale and its zero point.
#[derive(Clone, Copy)]
struct At {
    codes: Option<usize>,
    scale: Option<usize>,
    zero_point: usize,
    /// Axis of several scales.
    axis: Option<i64>,
}

impl At {
    fn input(codes: usize) -> At {
        At { codes: Some(codes), scale: Some(codes + 1), zero_point: codes + 2, axis: None }
    }

    fn output(scale: usize) -> At {
        At { codes: None, scale: Some(scale), zero_point: scale + 1, axis: None }
    }

    fn along(self, axis: i64) -> At {
        At { axis: Some(axis), ..self }
    }
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let op_type = r.op_type().to_owned();
    let pair = [At::input(0), At::input(3)];
    match op_type.trim_start_matches("com.microsoft:") {
        "QLinearConv" => product(r, "Conv", [pair[0], pair[1].along(0)], Some(8), Some(6)),
        "QLinearMatMul" => product(r, "MatMul", [pair[0], pair[1].along(-1)], None, Some(6)),
        "ConvInteger" => product(r, "Conv", unscaled(0), None, None),
        "MatMulInteger" => product(r, "MatMul", unscaled(-1), None, None),
        "QGemm" => {
            let alpha = r.float("alpha", 1.0)?;
            if alpha.to_bits() != 1f32.to_bits() {
                return Err(r.unsupported("alpha", alpha, "1"));
            }
            let by_rows = r.int("transB", 0)? != 0;
            product(r, "Gemm", [pair[0], pair[1].along(i64::from(!by_rows))], Some(6), Some(7))
        }
        "QLinearAdd" => element_wise(r, "Add", &pair, At::output(6)),
        "QLinearMul" => element_wise(r, "Mul", &pair, At::output(6)),
        "QLinearConcat" => {
            let inputs: Vec<At> = (2..r.inputs()).step_by(3).map(At::input).collect();
            element_wise(r, "Concat", &inputs, At::output(0))
        }
        "QLinearAveragePool" => {
            channels_first(r)?;
            element_wise(r, "AveragePool", &pair[..1], At::output(3))
        }
        "QLinearGlobalAveragePool" => {
            channels_first(r)?;
            element_wise(r, "GlobalAveragePool", &pair[..1], At::output(3))
        }
        "QLinearSigmoid" => element_wise(r, "Sigmoid", &pair[..1], At::output(3)),
        "QLinearLeakyRelu" => element_wise(r, "LeakyRelu", &pair[..1], At::output(3)),
        _ => element_wise(r, "Softmax", &pair[..1], At::output(3)),
    }
}

/// Operands of `ConvInteger` and `MatMulInteger`, which have zero points alone.
fn unscaled(axis: i64) -> [At; 2] {
    let at = |codes, axis| At { codes: Some(codes), scale: None, zero_point: codes + 2, axis };
    [at(0, None), at(1, Some(axis))]
}

fn channels_first(r: &mut Reader) -> Result<(), OpError> {
    match r.int("channels_last", 0)? {
        0 => Ok(()),
        v => Err(r.unsupported("channels_last", v, "0")),
    }
}

/// How ONNX Runtime computes it.
fn arithmetic(op: &str) -> Arithmetic {
    Profile::builtin("onnxruntime").expect("it comes with the engine").arithmetic(op)
}

/// The parameters of a tensor of codes. What says them is no input of the operator any more.
fn params(r: &mut Reader, at: At) -> Result<QParams, OpError> {
    let scales = match at.scale {
        None => vec![1.0],
        Some(i) => {
            let missing = OpError::MissingInput { input: i };
            r.floats_or_input("scale", i)?.filter(|s| !s.is_empty()).ok_or(missing)?
        }
    };
    let mut dtype = None;
    let mut zeros = vec![0];
    if r.has_input(at.zero_point) {
        let known = match r.known(at.zero_point) {
            Some(Known::Tensor(t)) => t.codes().map(|c| (t.dtype(), c)),
            _ => None,
        };
        let Some((of, codes)) = known else {
            return Err(r.no_value(at.zero_point, "zero_point", "i8 or u8"));
        };
        (dtype, zeros) = (Some(of), codes);
    }
    r.consume(at.zero_point);
    let dtype = match (dtype, at.codes) {
        (None, Some(i)) => r.input(i)?.dtype,
        (None, None) => r.input(if at.scale == Some(0) { 2 } else { 0 })?.dtype,
        (Some(d), Some(i)) if r.input(i)?.dtype != d => {
            let (first, supported) = (r.input(i)?.dtype, "codes and zero point of one type");
            return Err(OpError::DTypes { first, input: at.zero_point, got: d, supported });
        }
        (Some(d), _) => d,
    };
    if ![DType::I8, DType::U8].contains(&dtype) {
        let input = at.codes.unwrap_or(at.zero_point);
        return Err(OpError::DType { input, expected: "i8 or u8", got: dtype });
    }
    let n = scales.len().max(zeros.len());
    let all = |count: usize| count == 1 || count == n;
    let axis = match (at.axis, at.codes) {
        _ if n == 1 => None,
        (Some(axis), Some(i)) if all(scales.len()) && all(zeros.len()) => {
            let ty = r.input(i)?;
            let axis = normalize_axis(axis, ty.rank()).filter(|a| ty.shape[*a].fixed() == Some(n));
            Some(axis.ok_or_else(|| wrong(r, &scales, &zeros))?)
        }
        _ => return Err(wrong(r, &scales, &zeros)),
    };
    let spread = |i: usize, len: usize| if len == 1 { 0 } else { i };
    let made = QParams::new(
        dtype,
        false,
        (0..n).map(|i| scales[spread(i, scales.len())]).collect(),
        (0..n).map(|i| zeros[spread(i, zeros.len())]).collect(),
        axis,
    );
    let made = made.map_err(|e| r.unsupported("scale", format!("{scales:?}"), &e.to_string()))?;
    Ok(made.divided(Division::Divide))
}

fn wrong(r: &Reader, scales: &[f32], zeros: &[i32]) -> OpError {
    let got = format!("{} scales and {} zero points", scales.len(), zeros.len());
    r.unsupported("scale", got, "one scale and zero point, or of weights one an output channel")
}

/// The operator on numbers, from the attributes that are left and the types of the inputs as numbers.
fn on_numbers(r: &mut Reader, name: &'static str, inputs: &[usize]) -> Result<Arc<dyn Op>, OpError> {
    let def = by_name(name).expect("an operator of ours");
    let opset = if name == "Softmax" { r.int("opset", 13)? } else { r.opset() };
    let names: Vec<String> = r.names().map(str::to_owned).collect();
    let ours = |n: &&String| !["channels_last", "opset"].contains(&n.as_str());
    let attrs: Vec<_> = names.iter().filter(ours).filter_map(|n| Some((n.clone(), r.raw(n)?))).collect();
    let typed = |i: &usize| {
        let ty = TensorType { dtype: DType::F32, shape: r.input(*i).ok()?.shape.clone() };
        Some(Input { ty, known: None })
    };
    // Attributes are judged also where an input is not known.
    let typed: Vec<_> = inputs.iter().map(typed).collect();
    let unknown = (0..typed.len()).filter(|i| typed[*i].is_none() && r.has_input(inputs[*i])).collect();
    let inner = Reader::new(Source::Onnx(opset), name, Attrs::from(attrs), typed, r.outputs());
    let mut inner = inner.with_unknown(unknown);
    let op = (def.read)(&mut inner)?;
    match inner.unread().first() {
        Some((name, value)) => Err(r.unsupported(name, value, "an attribute that it has")),
        None => Ok(op),
    }
}

/// Operators all of whose inputs and outputs have parameters of one scale.
fn element_wise(
    r: &mut Reader,
    name: &'static str,
    inputs: &[At],
    output: At,
) -> Result<Arc<dyn Op>, OpError> {
    let codes: Vec<usize> = inputs.iter().filter_map(|at| at.codes).collect();
    let op = on_numbers(r, name, &codes)?;
    let of_inputs = inputs.iter().map(|at| params(r, *at)).collect::<Result<Vec<_>, _>>()?;
    let mut p = CodeParams::new(of_inputs, params(r, output)?, Vec::new());
    p.arithmetic = arithmetic(name);
    Ok(integer(op, p))
}

/// Sums of products.
fn product(
    r: &mut Reader,
    name: &'static str,
    inputs: [At; 2],
    bias: Option<usize>,
    scale: Option<usize>,
) -> Result<Arc<dyn Op>, OpError> {
    let op = on_numbers(r, name, &inputs.map(|at| at.codes.unwrap_or(0)))?;
    let [x, w] = [params(r, inputs[0])?, params(r, inputs[1])?];
    let output = match scale {
        None => CodeOutput::Sums,
        Some(i) if r.has_input(i) || name != "Gemm" => CodeOutput::codes(params(r, At::output(i))?),
        Some(i) => {
            r.consume(i);
            r.consume(i + 1);
            CodeOutput::Real
        }
    };
    let given = bias.filter(|b| r.has_input(*b));
    if let Some(b) = bias.filter(|_| given.is_none()) {
        r.consume(b);
    }
    if let Some(b) = given.filter(|_| name == "Gemm") {
        let ty = r.input(b)?;
        let channels = ty.shape.last().and_then(|d| d.fixed()).unwrap_or(1);
        if ty.dims().is_none_or(|d| d.iter().product::<usize>() != channels) {
            return Err(OpError::shape(b, "that of one row", ty));
        }
    }
    let weights = inputs[1].codes.unwrap_or(1);
    let mut of_inputs = vec![Some(x), Some(w)];
    of_inputs.extend(given.map(|_| None));
    let mut p = CodeParams {
        inputs: of_inputs,
        output,
        internals: Vec::new(),
        addend: None,
        bound: 0,
        arithmetic: arithmetic(name),
    };
    let (ty, codes) = (r.input(weights)?, known_codes(r, weights));
    let of = |bias: Bias| bound(op.as_ref(), &p, ty, codes.as_deref(), bias);
    let known = given.map(|b| known_codes(r, b));
    let (known, all) = match &known {
        None => (Bias::None, Bias::None),
        Some(Some(b)) => (Bias::Known(b), Bias::Known(b)),
        // What a bias comes to that is computed is not known: the products alone must fit.
        Some(None) => (Bias::None, Bias::Computed),
    };
    // ONNX Runtime lets them wrap.
    in_32_bits(of(known)?)?;
    let bound = of(all)?;
    p.bound = bound;
    Ok(integer(op, p))
}

/// The codes of an input that is constant.
fn known_codes(r: &Reader, i: usize) -> Option<Vec<i32>> {
    match r.known(i)? {
        Known::Tensor(t) => t.codes(),
        Known::Ints { values, .. } => {
            values.iter().map(|v| v.int().and_then(|v| i32::try_from(v).ok())).collect()
        }
    }
}
