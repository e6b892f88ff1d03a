//! `Range`: numbers from `start` in steps of `delta`, as many as come before `limit`.
//!
//! *Shapes*: `-> [n]`, n = max(ceil((limit - start) / delta), 0).

use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample};
use crate::graph::{AttrValue, Attrs, Op, OpDef, OpError, Place, Reader, Scratch};
use crate::tensor::{DType, MAX_ELEMENTS, Tensor, TensorType};
use std::sync::Arc;

crate::params! {
    /// `Params` of `range.wgsl`; numbers as bits.
    struct Params { n4: u32, start: u32, delta: u32 }
}

static F32: Kernel = crate::kernel!(
    "range f32",
    Params,
    ["shared/grid.wgsl", "shared/bits.wgsl", "shared/unary_f32.wgsl", "range.wgsl"]
);
static I32: Kernel =
    crate::kernel!("range i32", Params, ["shared/grid.wgsl", "shared/unary_i32.wgsl", "range.wgsl"]);

pub(super) static DEF: OpDef =
    OpDef { name: "Range", onnx: &["Range"], read, kernels: &[&F32, &I32], samples };

/// start, limit, delta; delta is not 0.
#[derive(Clone, Copy, Debug)]
enum Range {
    F32([f32; 3]),
    I32([i32; 3]),
}

const NAMES: [&str; 3] = ["start", "limit", "delta"];

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    // A graph file has attributes and no inputs; there the kind of number tells the type.
    let floats = match r.input(0) {
        Ok(t) => match t.dtype {
            DType::F32 => true,
            DType::I32 => false,
            got => return Err(OpError::DType { input: 0, expected: "f32 or i32", got }),
        },
        Err(e @ OpError::UnknownInput { .. }) => return Err(e),
        Err(_) => matches!(r.raw("start"), Some(AttrValue::Float(_))),
    };
    if floats {
        let mut v = [0.0; 3];
        for (i, name) in NAMES.into_iter().enumerate() {
            v[i] = r.float_or_input(name, i)?.ok_or(OpError::MissingInput { input: i })?;
        }
        if !v.iter().all(|x| x.is_finite()) || v[2] == 0.0 {
            return Err(r.unsupported(
                "delta",
                format!("{} of range {}..{}", v[2], v[0], v[1]),
                "finite, not 0",
            ));
        }
        return Ok(Arc::new(Range::F32(v)));
    }
    let mut v = [0; 3];
    for (i, name) in NAMES.into_iter().enumerate() {
        let x = r.int_or_input(name, i)?.ok_or(OpError::MissingInput { input: i })?;
        v[i] = i32::try_from(x).map_err(|_| r.unsupported(name, x, "what an i32 holds"))?;
    }
    if v[2] == 0 {
        return Err(r.unsupported("delta", 0, "not 0"));
    }
    Ok(Arc::new(Range::I32(v)))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let floats = |[a, b, c]: [f32; 3]| Attrs::new().float("start", a).float("limit", b).float("delta", c);
    let ints = |[a, b, c]: [i64; 3]| Attrs::new().int("start", a).int("limit", b).int("delta", c);
    let odd = i64::try_from(rng.int(2, 300)).expect("small");
    let all = [
        floats([0.0, rng.float(1.0, 9.0), 0.25]),
        floats([3.0, -2.0, -0.7]),
        floats([1.0, 1.0, 1.0]),
        ints([0, odd, 1]),
        ints([5, -odd, -3]),
        ints([5, 1, 2]),
    ];
    all.map(|attrs| Sample::new(attrs, [])).into()
}

impl Range {
    /// Number of elements; it may be beyond what a tensor holds.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is checked after"
    )]
    fn len(self) -> usize {
        match self {
            Range::F32([a, b, d]) => ((f64::from(b) - f64::from(a)) / f64::from(d)).ceil().max(0.0) as usize,
            Range::I32([a, b, d]) => {
                let (span, d) = (i64::from(b) - i64::from(a), i64::from(d));
                let n = span / d + i64::from(span % d != 0 && (span < 0) == (d < 0));
                usize::try_from(n.max(0)).unwrap_or(usize::MAX)
            }
        }
    }
}

impl Op for Range {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        match self {
            Range::F32(v) => NAMES
                .iter()
                .zip(v)
                .enumerate()
                .fold(Attrs::new(), |a, (i, (n, v))| a.float(n, *v).at_place(Place::Element(i))),
            Range::I32(v) => NAMES
                .iter()
                .zip(v)
                .enumerate()
                .fold(Attrs::new(), |a, (i, (n, v))| a.int(n, i64::from(*v)).at_place(Place::Element(i))),
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 0, 0, "no")?;
        let n = self.len();
        if n > MAX_ELEMENTS {
            return Err(OpError::TooLarge { shape: format!("[{n}]") });
        }
        let dtype = if matches!(self, Range::F32(_)) { DType::F32 } else { DType::I32 };
        Ok(vec![TensorType::new(dtype, [n])])
    }

    #[allow(clippy::cast_precision_loss, reason = "as ONNX defines it")]
    fn eval(&self, _cx: &Scratch, _inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let n = self.len();
        Ok(vec![match *self {
            Range::F32([start, _, delta]) => {
                Tensor::from_f32([n], (0..n).map(|i| start + i as f32 * delta).collect())
            }
            Range::I32([start, _, delta]) => {
                let at = |i| start.wrapping_add(delta.wrapping_mul(i));
                Tensor::from_i32([n], (0..n).map(|i| at(u32(i).cast_signed())).collect())
            }
        }])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let out = &io.outputs[0];
        if out.is_empty() {
            return Ok(Lowering::run([]));
        }
        let (kernel, start, delta) = match *self {
            Range::F32([start, _, delta]) => (&F32, start.to_bits(), delta.to_bits()),
            Range::I32([start, _, delta]) => (&I32, start.cast_unsigned(), delta.cast_unsigned()),
        };
        let n4 = out.len().div_ceil(4);
        let params = Params { n4: u32(n4), start, delta };
        Ok(Lowering::run([Dispatch::new(kernel, &params, [Operand::Output(0)], flat_grid(n4))]))
    }
}
