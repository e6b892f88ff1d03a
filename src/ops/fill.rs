//! `Fill` (ONNX `ConstantOfShape`): one value in every element.
//!
//! *Shapes*: no inputs, `-> shape`. The shape is known at import up to the batch.

use crate::graph::attrs::AttrValue;
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch, Source};
use crate::tensor::{DType, Data, Dim, Tensor, TensorType};
use std::sync::Arc;

crate::params! {
    /// `Params` of `fill.wgsl`.
    struct Params { n4: u32, word: u32 }
}

static KERNEL: Kernel = crate::kernel!("fill", Params, ["shared/grid.wgsl", "fill.wgsl"]);

pub(super) static DEF: OpDef =
    OpDef { name: "Fill", onnx: &["ConstantOfShape"], read, kernels: &[&KERNEL], samples };

#[derive(Debug)]
struct Fill {
    shape: Vec<Dim>,
    /// A tensor of one element.
    value: Tensor,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let value = match r.source() {
        Source::Onnx(_) => of_onnx(r)?,
        Source::Graph => of_graph(r)?,
    };
    let sizes = r.sym_ints_or_input("shape", 0)?.ok_or(OpError::MissingInput { input: 0 })?;
    let shape: Option<Vec<Dim>> = sizes.iter().map(|s| s.dim()).collect();
    let text = || sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let shape = shape.ok_or_else(|| r.unsupported("shape", format!("[{}]", text()), "no negative sizes"))?;
    Ok(Arc::new(Fill { shape, value }))
}

fn of_onnx(r: &mut Reader) -> Result<Tensor, OpError> {
    match r.raw("value") {
        None => Ok(Tensor::from_f32([1], vec![0.0])),
        Some(AttrValue::Tensor(t)) if t.len() == 1 => Ok(t.reshaped([1])),
        Some(v) => Err(r.unsupported("value", v, "a tensor of one element")),
    }
}

fn of_graph(r: &mut Reader) -> Result<Tensor, OpError> {
    let dtype = r.dtype("dtype", DType::F32)?;
    if dtype == DType::F32 {
        return Ok(Tensor::from_f32([1], vec![r.float("value", 0.0)?]));
    }
    let v = r.int("value", 0)?;
    let tensor = match dtype {
        DType::Bool => u8::try_from(v).ok().filter(|v| *v < 2).map(|v| Tensor::from_bool([1], vec![v])),
        _ => i32::try_from(v).ok().and_then(|v| Tensor::from_codes(dtype, &[1], &[v])),
    };
    tensor.ok_or_else(|| r.unsupported("value", v, &format!("values of {dtype}")))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(1, 40);
    let float =
        |shape: &[usize], v: f32| Attrs::new().sizes("shape", shape).str("dtype", "f32").float("value", v);
    let int =
        |dtype: &str, v: i64| Attrs::new().sizes("shape", &[7, 3, w]).str("dtype", dtype).int("value", v);
    let all = [
        float(&[], 1.5),
        float(&[w], -0.0),
        float(&[1, 3, w], f32::INFINITY),
        float(&[2, 1, 3, 1, 2, w], 1e-40),
        float(&[2, 0, 3], 1.0),
        int("i32", -7),
        int("bool", 1),
        int("i8", -128),
        int("u8", 255),
        int("i16", -32768),
        int("u4", 15),
    ];
    all.into_iter().map(|a| Sample::new(a, [])).collect()
}

impl Fill {
    /// The value where it is no float.
    #[allow(clippy::cast_possible_truncation, reason = "an i32 or narrower")]
    fn int(&self) -> i32 {
        self.value.number(0) as i32
    }

    /// The value as a device holds it.
    fn word(&self) -> u32 {
        match self.value.data() {
            Data::F32(v) => v[0].to_bits(),
            _ => self.int().cast_unsigned(),
        }
    }
}

impl Op for Fill {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().dims("shape", &self.shape).at_place(Place::Input(0));
        let attrs = attrs.str("dtype", self.value.dtype().name()).at_place(Place::Implied);
        match self.value.data() {
            Data::F32(v) => attrs.float("value", v[0]),
            _ => attrs.int("value", self.int().into()),
        }
        .at_place(Place::Tensor)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 0, 0, "no (the shape is an attribute)")?;
        let out = TensorType { dtype: self.value.dtype(), shape: self.shape.clone() };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, _inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let ty = self.infer(&[])?.remove(0);
        let axis = self.shape.iter().position(|d| d.fixed().is_none()).unwrap_or(0);
        let shape = ty.dims().ok_or(OpError::SymbolicDim { input: 0, axis })?;
        let n = shape.iter().product();
        Ok(vec![match self.value.data() {
            Data::F32(v) => {
                let mut y = cx.take(n);
                y.fill(v[0]);
                Tensor::from_f32(shape, y)
            }
            Data::I32(v) => Tensor::from_i32(shape, vec![v[0]; n]),
            _ => {
                let bytes = self.value.bytes().repeat(n);
                Tensor::from_bytes(ty.dtype, &shape, &bytes).expect("copies of a legal element")
            }
        }])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let n4 = io.outputs[0].len().div_ceil(4);
        if n4 == 0 {
            return Ok(Lowering::run([]));
        }
        let params = Params { n4: u32(n4), word: self.word() };
        Ok(Lowering::run([Dispatch::new(&KERNEL, &params, [Operand::Output(0)], flat_grid(n4))]))
    }
}
