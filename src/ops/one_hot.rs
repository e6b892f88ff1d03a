//! `OneHot`: a new axis on which the element that an index names is `values[1]`, the others `values[0]`.
//!
//! *Shapes*: `[..], [2] -> [.., depth, ..]`. Negative indices count from the end; one outside names none.

use super::element::{Element, Movement, moved};
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, Reader, Scratch, attrs::normalize_axis};
use crate::tensor::{DType, Data, Dim, Tensor, TensorType};
use std::sync::Arc;

crate::params! {
    /// `Params` of `one_hot.wgsl`.
    struct Params { n: u32, depth: u32, inner: u32 }
}

static FLOAT: Kernel =
    crate::kernel!("one_hot_f32", Params, ["shared/grid.wgsl", "reduce/f32.wgsl", "one_hot.wgsl"]);
static INT: Kernel =
    crate::kernel!("one_hot_i32", Params, ["shared/grid.wgsl", "reduce/i32.wgsl", "one_hot.wgsl"]);

pub(super) static DEF: OpDef =
    OpDef { name: "OneHot", onnx: &["OneHot"], read, kernels: &[&FLOAT, &INT], samples };

#[derive(Debug)]
struct OneHot {
    depth: usize,
    axis: i64,
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let axis = r.int("axis", -1)?;
    // The depth may be written as a number of any type.
    let float = matches!(r.known(1), Some(crate::graph::attrs::Known::Tensor(t)) if t.as_f32().is_some());
    let depth = if float {
        #[allow(clippy::cast_possible_truncation, reason = "saturates; checked below")]
        r.float_or_input("depth", 1)?.map(|v| v as i64)
    } else {
        r.int_or_input("depth", 1)?
    };
    let depth = depth.ok_or(OpError::MissingInput { input: 1 })?;
    let size = usize::try_from(depth).ok().filter(|d| (1..1 << 30).contains(d));
    let depth = size.ok_or_else(|| r.unsupported("depth", depth, "1 to 2^30"))?;
    Ok(Arc::new(OneHot { depth, axis }))
}

/// Rows of one tensor's output.
struct Spread<'a> {
    depth: usize,
    inner: usize,
    indices: &'a [i32],
}

impl Movement for Spread<'_> {
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError> {
        let (depth, inner) = (self.depth, self.inner);
        y.fill(inputs[0][0]);
        for (i, index) in self.indices.iter().enumerate() {
            let Ok(len) = i64::try_from(depth) else { continue };
            let index = if *index < 0 { i64::from(*index) + len } else { i64::from(*index) };
            if let Some(d) = usize::try_from(index).ok().filter(|d| *d < depth) {
                y[(i / inner * depth + d) * inner + i % inner] = inputs[0][1];
            }
        }
        Ok(())
    }
}

impl OneHot {
    /// Where the new axis comes.
    fn axis(&self, rank: usize) -> Result<usize, OpError> {
        normalize_axis(self.axis, rank + 1).ok_or(OpError::Axis { axis: self.axis, rank: rank + 1 })
    }
}

impl Op for OneHot {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let depth = i64::try_from(self.depth).unwrap_or(i64::MAX);
        Attrs::new().int("depth", depth).at_place(Place::Input(1)).int("axis", self.axis)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2 (the depth is an attribute)")?;
        let (indices, values) = (&inputs[0], &inputs[1]);
        if indices.dtype == DType::Bool {
            return Err(OpError::DType { input: 0, expected: "a number", got: indices.dtype });
        }
        if values.shape != [Dim::Fixed(2)] {
            return Err(OpError::shape(1, "[2]", values));
        }
        let mut shape = indices.shape.clone();
        shape.insert(self.axis(indices.rank())?, Dim::Fixed(self.depth));
        let out = TensorType { dtype: values.dtype, shape };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let axis = self.axis(x.rank())?;
        let mut shape = x.shape().to_vec();
        shape.insert(axis, self.depth);
        #[allow(clippy::cast_possible_truncation, reason = "saturates, as in WGSL: outside any axis")]
        let indices: Vec<i32> = match x.data() {
            Data::F32(v) => v.iter().map(|x| *x as i32).collect(),
            _ => (0..x.len()).map(|i| x.number(i) as i32).collect(),
        };
        let inner = x.shape()[axis..].iter().product::<usize>().max(1);
        let spread = Spread { depth: self.depth, inner, indices: &indices };
        Ok(vec![moved(cx, &shape, &[&inputs[1]], &spread)?])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        let inner: usize = x.shape[self.axis(x.shape.len())?..].iter().product();
        let n = y.len();
        let params = Params { n: u32(n), depth: u32(self.depth), inner: u32(inner) };
        let kernel = if x.dtype == DType::F32 { &FLOAT } else { &INT };
        let bind = [Operand::Input(0), Operand::Input(1), Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(n))]))
    }
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(1, 20);
    let mut out = Vec::new();
    for (axis, shape) in [(-1, vec![7, w]), (0, vec![w]), (1, vec![2, 3, w]), (-1, vec![]), (-2, vec![0, 2])]
    {
        let attrs = Attrs::new().int("depth", 5).int("axis", axis);
        // From -7: some lie outside.
        let indices = SampleInput::of(shape.clone(), Fill::Ints(-7, 7));
        let on_off = || SampleInput::f32([2]).constant();
        out.push(Sample::new(attrs.clone(), [indices.clone(), on_off()]));
        out.push(Sample::new(attrs.clone(), [indices, SampleInput::of([2], Fill::Ints(-9, 9))]));
        out.push(Sample::new(attrs, [SampleInput::of(shape, Fill::Range(-7.0, 7.0)), on_off()]));
    }
    out
}
