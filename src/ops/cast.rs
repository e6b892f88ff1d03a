//! `Cast`, and `CastLike`: elements in another type, as Rust's `as` converts. A float is truncated toward zero and
//! saturates, NaN gives 0; an integer wraps; a bool is whether the element is not 0.
//!
//! ONNX's `float16` and `bfloat16` are f32 here whose elements are rounded to what the type has, ties to even: the
//! attribute `precision`. `CastLike` cannot do that, as it sees an f32.
//!
//! *Shapes*: `[..] -> [..]`.

use crate::graph::attrs::AttrValue;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch, Source};
use crate::tensor::{DType, Data, Tensor, TensorType};
use half::{bf16, f16};
use std::sync::Arc;

crate::params! {
    /// `Params` of `cast.wgsl`.
    struct Params { n4: u32, c: u32, c4: u32 }
}

/// Values of `precision`, numbered as in `cast.wgsl`.
const PRECISIONS: &[&str] = &["f32", "f16", "bf16"];

static KERNEL: Kernel = crate::kernel!(
    "cast",
    Params,
    ["shared/grid.wgsl", "shared/lanes.wgsl", "shared/bits.wgsl", "shared/round_half.wgsl", "cast.wgsl"]
);

pub(super) static DEF: OpDef =
    OpDef { name: "Cast", onnx: &["Cast", "CastLike"], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct Cast {
    to: DType,
    /// What f32 elements are rounded to, one of [`PRECISIONS`].
    precision: &'static str,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    // It speaks of 8-bit floats only.
    r.ignore("saturate");
    if r.op_type() == "CastLike" {
        let to = r.input(1)?.dtype;
        r.consume(1);
        return Ok(Arc::new(Cast { to, precision: "f32" }));
    }
    let precision = match r.source() {
        Source::Graph => r.one_of("precision", "f32", PRECISIONS)?,
        Source::Onnx(_) => match r.raw("to") {
            Some(AttrValue::Int(10)) => "f16",
            Some(AttrValue::Int(16)) => "bf16",
            _ => "f32",
        },
    };
    let to = r.dtype("to", DType::F32)?;
    if precision != "f32" && to != DType::F32 {
        return Err(r.unsupported("precision", format!("{precision:?}"), "\"f32\" beside another type"));
    }
    Ok(Arc::new(Cast { to, precision }))
}

/// Values of every type among which are those that do not fit others.
fn draw(dtype: DType, shape: &[usize], rng: &mut Rng) -> Fill {
    let n: usize = shape.iter().product();
    let special = [f32::NAN, f32::INFINITY, -f32::INFINITY, 3e9, -3e9, 255.5, -128.9, -0.9, 1e-40, -0.0, 0.0];
    match dtype {
        DType::F32 => {
            let mut value = || if rng.int(0, 2) == 0 { rng.pick(&special) } else { rng.float(-300.0, 300.0) };
            Fill::Exact(Tensor::from_f32(shape, (0..n).map(|_| value()).collect()))
        }
        DType::I32 if rng.int(0, 1) == 0 => Fill::Ints(-300, 300),
        DType::I32 => Fill::Ints(i32::MIN, i32::MAX),
        DType::Bool => Fill::Bools,
        narrow => {
            let (low, high) = narrow.limits().expect("an integer type");
            let codes: Vec<i32> = (0..n).map(|_| rng.code(low, high)).collect();
            Fill::Exact(Tensor::from_codes(narrow, shape, &codes).expect("drawn in range"))
        }
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    let targets = DType::ALL.into_iter().map(|to| (to, "f32"));
    let targets: Vec<_> = targets.chain([(DType::F32, "f16"), (DType::F32, "bf16")]).collect();
    for from in DType::ALL {
        // The same type is an alias, without a kernel to compare.
        for &(to, precision) in targets.iter().filter(|(to, p)| *to != from || *p != "f32") {
            let (c, w) = (rng.int(1, 9), rng.int(1, 20));
            for shape in [vec![7, c, 3, w], vec![w], vec![], vec![0, 2]] {
                let fill = draw(from, &shape, rng);
                let attrs = Cast { to, precision }.attrs();
                out.push(Sample::new(attrs, [SampleInput::of(shape, fill)]));
            }
        }
    }
    out
}

/// The nearest number that the type of this name has; NaN stays as it is.
fn rounded(x: f32, precision: &str) -> f32 {
    match precision {
        "f16" if !x.is_nan() => f16::from_f32(x).to_f32(),
        "bf16" if !x.is_nan() => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// `$v` with every element as the type `$to`.
macro_rules! convert {
    ($to:expr, $shape:expr, $v:expr, $zero:expr) => {
        match $to {
            DType::F32 => Tensor::from_f32($shape, $v.iter().map(|x| *x as f32).collect()),
            DType::I32 => Tensor::from_i32($shape, $v.iter().map(|x| *x as i32).collect()),
            DType::Bool => Tensor::from_bool($shape, $v.iter().map(|x| u8::from(*x != $zero)).collect()),
            DType::I8 => Tensor::from_i8($shape, $v.iter().map(|x| *x as i8).collect()),
            DType::U8 => Tensor::from_u8($shape, $v.iter().map(|x| *x as u8).collect()),
            DType::I16 => Tensor::from_i16($shape, $v.iter().map(|x| *x as i16).collect()),
            DType::U16 => Tensor::from_u16($shape, $v.iter().map(|x| *x as u16).collect()),
            DType::I4 | DType::U4 => unreachable!("no Rust type has four bits"),
        }
    };
}

/// A float is truncated and saturates, an integer keeps its lowest four bits.
#[allow(clippy::cast_possible_truncation, reason = "a float saturates, numbers of the other types are i32")]
fn four_bits(x: &Tensor, to: DType) -> Tensor {
    let (low, high) = to.limits().expect("an integer type");
    let code = |i: usize| match x.as_f32() {
        Some(v) => (v[i] as i32).clamp(low, high),
        None => ((x.number(i) as i32 - low) & 15) + low,
    };
    let codes: Vec<i32> = (0..x.len()).map(code).collect();
    Tensor::from_codes(to, x.shape(), &codes).expect("four bits")
}

/// The numbers of the types in `cast.wgsl`.
fn number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::I32 => 1,
        DType::Bool => 2,
        DType::I8 => 3,
        DType::U8 => 4,
        DType::I16 => 5,
        DType::U16 => 6,
        DType::I4 => 7,
        DType::U4 => 8,
    }
}

impl Op for Cast {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().str("to", self.to.name()).at_place(Place::Type);
        if self.precision == "f32" {
            attrs
        } else {
            attrs.str("precision", self.precision).at_place(Place::Unsaid)
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        Ok(vec![TensorType { dtype: self.to, shape: inputs[0].shape.clone() }])
    }

    #[allow(clippy::unnecessary_cast, reason = "one macro for every pair of types")]
    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let (x, shape) = (&inputs[0], inputs[0].shape());
        if x.dtype() == self.to && self.precision == "f32" {
            return Ok(vec![x.clone()]);
        }
        if matches!(self.to, DType::I4 | DType::U4) {
            return Ok(vec![four_bits(x, self.to)]);
        }
        let converted = match x.data() {
            Data::F32(v) => convert!(self.to, shape, v, 0.0),
            Data::I32(v) => convert!(self.to, shape, v, 0),
            Data::Bool(v) | Data::U8(v) | Data::U4(v) => convert!(self.to, shape, v, 0),
            Data::I8(v) | Data::I4(v) => convert!(self.to, shape, v, 0),
            Data::I16(v) => convert!(self.to, shape, v, 0),
            Data::U16(v) => convert!(self.to, shape, v, 0),
        };
        Ok(vec![match converted.as_f32() {
            Some(v) if self.precision != "f32" => {
                Tensor::from_f32(shape, v.iter().map(|x| rounded(*x, self.precision)).collect())
            }
            _ => converted,
        }])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if x.dtype == self.to && self.precision == "f32" {
            return Ok(Lowering::Alias);
        }
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        let [n4, c, c4] = x.groups();
        let params = Params { n4, c, c4 };
        let bind = [Operand::Input(0), Operand::Output(0)];
        let dispatch = Dispatch::new(&KERNEL, &params, bind, flat_grid(n4 as usize));
        let precision = PRECISIONS.iter().position(|p| *p == self.precision).map_or(0, u32);
        let dispatch = dispatch.with("FROM", number(x.dtype)).with("TO", number(self.to));
        Ok(Lowering::run([dispatch.with("PRECISION", precision)]))
    }
}
