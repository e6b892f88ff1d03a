//! Element-wise functions of one tensor with up to two numbers as attributes: one row each, in `float.rs` and
//! `integer.rs`.
//!
//! *Shapes*: `[..] -> [..]`.

mod exact;
mod float;
mod integer;
#[cfg(test)]
mod tests;

pub(super) use float::*;
pub(super) use integer::*;

use crate::graph::epilogue::EpilogueParams;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::ops::integer::table;
use crate::tensor::{DType, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `unary.wgsl`.
    struct Params { epilogue: EpilogueParams, n4: u32, c: u32, c4: u32, a: f32, b: f32 }
}

/// An attribute that becomes a number of the function.
#[derive(Clone, Copy, Debug)]
enum Parameter {
    /// A number and its default.
    Float(&'static str, f32),
    /// 0 or 1, and its default.
    Flag(&'static str, bool),
    /// One of two texts, the default first, which count as 0 and 1.
    OneOf(&'static str, [&'static str; 2]),
}

/// A function of slices of one length and of both attributes.
type Slices<T, R> = fn(&[T], &mut [R], f32, f32);

/// The CPU meaning for one element type.
#[derive(Debug)]
enum Apply {
    F32(Slices<f32, f32>),
    F32Bool(Slices<f32, u8>),
    I32(Slices<i32, i32>),
    Bool(Slices<u8, u8>),
}

impl Apply {
    /// Types of input and output.
    fn dtypes(&self) -> (DType, DType) {
        match self {
            Apply::F32(_) => (DType::F32, DType::F32),
            Apply::F32Bool(_) => (DType::F32, DType::Bool),
            Apply::I32(_) => (DType::I32, DType::I32),
            Apply::Bool(_) => (DType::Bool, DType::Bool),
        }
    }
}

/// A function for one element type.
#[derive(Debug)]
struct Form {
    apply: Apply,
    kernel: &'static Kernel,
    /// Domains of the samples, for f32.
    domains: &'static [(f32, f32)],
}

/// What tells one function from another.
#[derive(Debug)]
struct Row {
    def: &'static OpDef,
    /// They become `a` and `b`.
    parameters: &'static [Parameter],
    forms: &'static [Form],
    /// Which element types there are, for messages.
    supported: &'static str,
    /// Ulp of the largest result by which the device may differ beyond the 5 that every operator may.
    extra_ulps: f32,
}

/// Elements that one task computes on the CPU.
pub(super) const CHUNK: usize = 16 * 1024;

/// `f` of each element; inlined, so that each row has a loop of its own.
#[inline(always)]
fn each<T: Copy, R>(x: &[T], y: &mut [R], f: impl Fn(T) -> R) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = f(*x);
    }
}

/// A row: `module, "Name", ["onnx types"], [parameters], "element types", extra ulps`, and for each element type
/// `Type: "function file", ["files it needs"], [domains], f(x, a, b)`.
macro_rules! unary {
    ($(#[$meta:meta])* $id:ident, $name:literal, [$($onnx:literal),*], [$($parameter:expr),*], $supported:literal, $ulps:expr,
     $($form:ident: $file:literal, [$($shared:literal),*], [$($domain:expr),*], $f:expr);+ $(;)?) => {
        $(#[$meta])*
        pub(in crate::ops) mod $id {
            #[allow(unused_imports, reason = "not every row has parameters or calls functions of its file")]
            use super::{super::{Apply, Form, Parameter::*, Params, Row, each, read, samples}, *};
            use crate::graph::OpDef;
            #[allow(non_upper_case_globals, reason = "named like the variants of Apply")]
            mod kernels {
                use crate::ops::unary::{Params, unary};
                $(pub(super) static $form: crate::graph::lower::Kernel =
                    unary!(@kernel $form, $file, [$($shared),*]);)+
            }
            static ROW: Row = Row {
                def: &DEF,
                parameters: &[$($parameter),*],
                forms: &[$(Form {
                    apply: Apply::$form(|x, y, a, b| each(x, y, |x| ($f)(x, a, b))),
                    kernel: &kernels::$form,
                    domains: &[$($domain),*],
                }),+],
                supported: $supported,
                extra_ulps: $ulps,
            };
            pub(in crate::ops) static DEF: OpDef = OpDef {
                name: $name,
                onnx: &[$($onnx),*],
                read: |r| read(&ROW, r),
                kernels: &[$(&kernels::$form),+],
                samples: |rng| samples(&ROW, rng),
            };
        }
    };
    (@kernel F32, $file:literal, $shared:tt) => { unary!(@file concat!($file, " f32"), $file, ["shared/unary_f32.wgsl", "shared/quantize.wgsl", "shared/nan_count.wgsl", "shared/epilogue.wgsl"], $shared) };
    (@kernel F32Bool, $file:literal, $shared:tt) => { unary!(@file $file, $file, ["shared/unary_f32_bool.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@kernel I32, $file:literal, $shared:tt) => { unary!(@file concat!($file, " i32"), $file, ["shared/unary_i32.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@kernel Bool, $file:literal, $shared:tt) => { unary!(@file $file, $file, ["shared/unary_bool.wgsl", "shared/no_epilogue.wgsl"], $shared) };
    (@file $name:expr, $file:literal, [$($types:literal),*], [$($shared:literal),*]) => {
        crate::kernel!(
            $name,
            Params,
            ["shared/grid.wgsl", "shared/lanes.wgsl", "shared/bits.wgsl", $($types,)* $($shared,)* $file, "unary.wgsl"]
        )
    };
}
use unary;

#[derive(Debug)]
struct Unary {
    row: &'static Row,
    /// Values of the row's parameters.
    values: [f32; 2],
}

fn read(row: &'static Row, r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let mut values = [0.0; 2];
    for (v, parameter) in values.iter_mut().zip(row.parameters) {
        *v = match parameter {
            Parameter::Float(name, default) => r.float(name, *default)?,
            Parameter::Flag(name, default) => f32::from(u8::from(r.flag(name, *default)?)),
            Parameter::OneOf(name, texts) => {
                f32::from(u8::from(r.one_of(name, texts[0], texts)? == texts[1]))
            }
        };
    }
    Ok(Arc::new(Unary { row, values }))
}

fn attrs(row: &Row, values: [f32; 2]) -> Attrs {
    row.parameters.iter().zip(values).fold(Attrs::new(), |attrs, (parameter, v)| match parameter {
        Parameter::Float(name, _) => attrs.float(name, v),
        Parameter::Flag(name, _) => attrs.int(name, i64::from(v != 0.0)),
        Parameter::OneOf(name, texts) => attrs.str(name, texts[usize::from(v != 0.0)]),
    })
}

fn samples(row: &'static Row, rng: &mut Rng) -> Vec<Sample> {
    let defaults = |p: &Parameter| match p {
        Parameter::Float(_, v) => *v,
        Parameter::Flag(_, v) => f32::from(u8::from(*v)),
        Parameter::OneOf(..) => 0.0,
    };
    let mut out = Vec::new();
    for form in row.forms {
        let (c, w) = (rng.int(1, 9), rng.int(1, 40));
        let shapes = [
            vec![],
            vec![w],
            vec![7, c, 3, w],
            vec![1, c, w],
            vec![2, 1, 3, 1, 2, w],
            vec![2, 0, 3],
            vec![1, 6, 50, 40],
        ];
        for (i, shape) in shapes.into_iter().enumerate() {
            let mut values = [0.0; 2];
            for (v, p) in values.iter_mut().zip(row.parameters) {
                *v = match p {
                    _ if i % 2 == 0 => defaults(p),
                    Parameter::Float(_, default) => default * rng.float(0.5, 1.5) + 0.1,
                    Parameter::Flag(..) | Parameter::OneOf(..) => f32::from(u8::from(rng.bits() & 1 == 1)),
                };
            }
            let inputs = match form.apply.dtypes() {
                (DType::F32, DType::Bool) => {
                    vec![SampleInput::of(shape.clone(), special_values(&shape, rng))]
                }
                (DType::I32, _) => vec![SampleInput::of(shape, Fill::Ints(-9, 9))],
                (DType::Bool, _) => vec![SampleInput::of(shape, Fill::Bools)],
                _ => {
                    let ranges = form.domains.iter().map(|(low, high)| Fill::Range(*low, *high));
                    ranges.map(|fill| SampleInput::of(shape.clone(), fill)).collect()
                }
            };
            let extra = |x: &SampleInput| match (&form.apply, &x.fill) {
                (Apply::F32(f), Fill::Range(low, high)) => {
                    let mut ends = [0.0; 2];
                    f(&[*low, *high], &mut ends, values[0], values[1]);
                    row.extra_ulps * f32::EPSILON / 2.0 * ends[0].abs().max(ends[1].abs())
                }
                _ => 0.0,
            };
            out.extend(inputs.into_iter().map(|x| {
                let extra = extra(&x);
                Sample::new(attrs(row, values), [x]).extra(extra)
            }));
        }
    }
    out
}

/// Floats among which are NaN, infinities, both zeros and a denormal.
pub(super) fn special_values(shape: &[usize], rng: &mut Rng) -> Fill {
    let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, 1.0, -2.5];
    let n = shape.iter().product();
    let values = (0..n).map(|_| rng.pick(&special)).collect();
    Fill::Exact(Tensor::from_f32(shape, values))
}

impl Unary {
    fn form(&self, dtype: DType) -> Option<&'static Form> {
        self.row.forms.iter().find(|f| f.apply.dtypes().0 == dtype)
    }
}

/// Runs `f` over chunks in parallel.
fn in_chunks<T: Sync, R: Send>(x: &[T], y: &mut [R], [a, b]: [f32; 2], f: Slices<T, R>) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| f(x, y, a, b));
}

impl Op for Unary {
    fn def(&self) -> &'static OpDef {
        self.row.def
    }

    fn attrs(&self) -> Attrs {
        attrs(self.row, self.values)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        let got = inputs[0].dtype;
        let form = self.form(got).ok_or(OpError::DType { input: 0, expected: self.row.supported, got })?;
        Ok(vec![TensorType { dtype: form.apply.dtypes().1, shape: inputs[0].shape.clone() }])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let got = x.dtype();
        let form = self.form(got).ok_or(OpError::DType { input: 0, expected: self.row.supported, got })?;
        let bytes = || x.as_bool().expect("the type was checked");
        let y = match form.apply {
            Apply::F32(f) => {
                let mut y = cx.take(x.len());
                in_chunks(x.f32s(), &mut y, self.values, f);
                Tensor::from_f32(x.shape(), y)
            }
            Apply::F32Bool(f) => {
                let mut y = vec![0; x.len()];
                in_chunks(x.f32s(), &mut y, self.values, f);
                Tensor::from_bool(x.shape(), y)
            }
            Apply::I32(f) => {
                let mut y = vec![0; x.len()];
                in_chunks(x.i32s(), &mut y, self.values, f);
                Tensor::from_i32(x.shape(), y)
            }
            Apply::Bool(f) => {
                let mut y = vec![0; x.len()];
                in_chunks(bytes(), &mut y, self.values, f);
                Tensor::from_bool(x.shape(), y)
            }
        };
        Ok(vec![y])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let form = self.form(x.dtype).ok_or(OpError::DType {
            input: 0,
            expected: self.row.supported,
            got: x.dtype,
        })?;
        let [n4, c, c4] = x.groups();
        let [a, b] = self.values;
        let epilogue = EpilogueParams::default();
        let params = Params { epilogue, n4, c, c4, a, b };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(form.kernel, &params, bind, flat_grid(n4 as usize))]))
    }

    fn exact(&self, x: f64) -> Option<f64> {
        let [a, b] = self.values.map(f64::from);
        exact::exact(self.row.def.name, x, a, b)
    }

    /// By a table. Passes put the table itself in its place.
    fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        table::integer(cx, self, params, inputs)
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match self.row.forms[0].apply {
            _ if self.row.def.name == "Relu" => QuantRule::Clamp { low: 0.0, high: f32::INFINITY },
            Apply::F32(_) => QuantRule::Compute,
            _ => QuantRule::Float,
        }
    }
}
