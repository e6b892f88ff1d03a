//! `MatMul`: matrix products as NumPy's `matmul` does them.
//!
//! *Shapes*: `[batch.., m, k], [batch.., k, n] -> [batch.., m, n]`, the batches broadcast; a vector stands for one row
//! on the left, one column on the right, and its axis is missing in the output.

use super::product::{KERNELS, Product, code_layouts};
use crate::graph::lower::{Io, Layout, Layouts, Lowering};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType, strides};
use std::sync::Arc;

#[derive(Debug)]
struct MatMul;

pub(super) static DEF: OpDef = OpDef { name: "MatMul", onnx: &["MatMul"], read, kernels: KERNELS, samples };

fn read(_r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    Ok(Arc::new(MatMul))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (m, k, n) = (rng.int(4, 19), rng.int(1, 70), rng.int(1, 40));
    let cases = [
        (vec![m, k], vec![k, n]),
        (vec![k], vec![k]),
        (vec![k], vec![k, n]),
        (vec![m, k], vec![k]),
        (vec![3, m, k], vec![k]),
        (vec![k], vec![2, 3, k, n]),
        (vec![1, k], vec![k, n]),
        (vec![7, m, k], vec![k, n]),
        (vec![7, 1, k], vec![1, k, n]),
        (vec![m, k], vec![5, k, n]),
        (vec![7, 3, m, k], vec![7, 3, k, n]),
        (vec![7, 1, m, k], vec![3, k, n]),
        (vec![2, 1, 3, 1, 3, k], vec![2, 3, 4, k, n]),
        (vec![2, 1, 3, 2, m, k], vec![1, 3, 2, k, n]),
        (vec![m, 0], vec![0, n]),
        (vec![0, m, k], vec![k, n]),
        (vec![7, m, 300], vec![7, 300, 17]),
        (vec![m, 90], vec![90, 30]),
        (vec![m, 1100], vec![1100]),
    ];
    let sample = |(a, b): (Vec<usize>, Vec<usize>), constant: bool| {
        let k = a[a.len() - 1];
        let b = SampleInput::f32(b);
        let b = if constant { b.constant() } else { b };
        Sample::new(Attrs::new(), [SampleInput::f32(a), b]).reduction(k + 1)
    };
    cases.into_iter().enumerate().map(|(i, c)| sample(c, i % 2 == 0)).collect()
}

/// A shape as batch, rows (unless a vector) and k, from the left operand; from the right one as batch, k and columns.
fn left(shape: &[Dim]) -> (&[Dim], Option<Dim>, Dim) {
    match shape {
        [k] => (&[], None, *k),
        [batch @ .., m, k] => (batch, Some(*m), *k),
        [] => (&[], None, Dim::Fixed(1)),
    }
}

fn right(shape: &[Dim]) -> (&[Dim], Dim, Option<Dim>) {
    match shape {
        [k] => (&[], *k, None),
        [batch @ .., k, n] => (batch, *k, Some(*n)),
        [] => (&[], Dim::Fixed(1), None),
    }
}

/// The shape to which two shapes broadcast.
fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(Dim::Fixed(1), |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (Dim::Fixed(1), y) => Some(y),
            (x, Dim::Fixed(1)) => Some(x),
            _ => None,
        })
        .collect()
}

/// Steps along `batch` of an operand whose own batch axes are `own`; 0 where it is broadcast.
fn batch_steps(batch: &[usize; 4], own: &[usize], matrix: usize) -> [usize; 4] {
    let mut out = [0; 4];
    let steps = strides(own);
    for (i, (len, step)) in own.iter().zip(steps).enumerate() {
        let axis = 4 - own.len() + i;
        out[axis] = if *len == 1 && batch[axis] != 1 { 0 } else { step * matrix };
    }
    out
}

fn product(a: &[usize], b: &[usize]) -> Product {
    let k = a[a.len() - 1];
    let (a_own, m) = if a.len() == 1 { (&a[..0], 1) } else { (&a[..a.len() - 2], a[a.len() - 2]) };
    let (b_own, n) = if b.len() == 1 { (&b[..0], 1) } else { (&b[..b.len() - 2], b[b.len() - 1]) };
    let mut out = Product {
        batch: [1; 4],
        a_batch: [0; 4],
        b_batch: [0; 4],
        m,
        k,
        n,
        a: (k, 1),
        b: (n, 1),
        alpha: 1.0,
        c: None,
    };
    if b_own.iter().all(|d| *d == 1) {
        // One right operand: all rows on the left are rows of one product.
        out.m *= a_own.iter().product::<usize>();
        return out;
    }
    for own in [a_own, b_own] {
        for (i, len) in own.iter().enumerate() {
            let batch = &mut out.batch[4 - own.len() + i];
            *batch = if *batch == 1 { *len } else { *batch };
        }
    }
    out.a_batch = batch_steps(&out.batch, a_own, m * k);
    out.b_batch = batch_steps(&out.batch, b_own, k * n);
    out
}

impl Op for MatMul {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 2, "2")?;
        for (i, t) in inputs.iter().enumerate() {
            check::f32(inputs, i)?;
            if !(1..=6).contains(&t.rank()) {
                return Err(OpError::Rank { input: i, expected: "1 to 6", got: t.rank() });
            }
        }
        let (a_batch, m, k) = left(&inputs[0].shape);
        let (b_batch, b_k, n) = right(&inputs[1].shape);
        if k.fixed().is_none() {
            return Err(OpError::SymbolicDim { input: 0, axis: inputs[0].rank() - 1 });
        }
        if k != b_k {
            let expected = if n.is_some() { format!("[.., {k}, n]") } else { format!("[{k}]") };
            return Err(OpError::shape(1, expected, &inputs[1]));
        }
        let Some(mut shape) = broadcast(a_batch, b_batch) else {
            return Err(OpError::shape(
                1,
                format!("broadcastable to the batch of {}", inputs[0]),
                &inputs[1],
            ));
        };
        shape.extend(m);
        shape.extend(n);
        let out = TensorType { dtype: DType::F32, shape };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let out = self.infer(&[inputs[0].ty(), inputs[1].ty()])?.remove(0);
        let out = out.dims().expect("concrete inputs give concrete outputs");
        let product = product(inputs[0].shape(), inputs[1].shape());
        Ok(vec![Tensor::from_f32(out, product.eval(cx, inputs[0].f32s(), inputs[1].f32s(), None))])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        product(&io.inputs[0].shape, &io.inputs[1].shape).lower()
    }

    fn has_integer_form(&self) -> bool {
        true
    }

    fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let types = [&inputs[0], &inputs[1]].map(|t| TensorType::new(DType::F32, t.shape().to_vec()));
        let mut out = self.infer(&types)?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let shape = out.clone();
        if inputs[1].rank() == 1 {
            // Its one channel is no axis.
            out.push(1);
        }
        let y = product(inputs[0].shape(), inputs[1].shape()).integer(cx, params, inputs, &out)?;
        Ok(Some(y.reshaped(shape)))
    }

    fn integer_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        let b = if inputs[1].rank() == 1 { Layout::PackedRows } else { Layout::PackedColumns };
        code_layouts(params, inputs, [Layout::PackedRows, b])
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        let of = product(&io.inputs[0].shape, &io.inputs[1].shape);
        let words = product(&io.inputs[0].words(), &io.inputs[1].words());
        Product { n: of.n, ..words }.lower_codes(params, io).map(Some)
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Gemm { channel_axis: -1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(rng: &mut Rng, shape: &[usize]) -> Tensor {
        SampleInput::f32(shape).draw(rng)
    }

    fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
        MatMul.eval(&Scratch::new(), &[a.clone(), b.clone()]).unwrap().remove(0)
    }

    #[test]
    fn batches_broadcast_as_in_numpy() {
        let mut rng = Rng::new(5);
        let (a, b) = (draw(&mut rng, &[2, 1, 3, 2, 4]), draw(&mut rng, &[5, 1, 4, 3]));
        let y = matmul(&a, &b);
        assert_eq!(y.shape(), [2, 5, 3, 2, 3]);
        for (at, v) in y.f32s().iter().enumerate() {
            let (j, i, x, z, n) = (at % 3, at / 3 % 2, at / 6 % 3, at / 18 % 5, at / 90);
            let exact: f32 =
                (0..4).map(|k| a.f32s()[((n * 3 + x) * 2 + i) * 4 + k] * b.f32s()[(z * 4 + k) * 3 + j]).sum();
            assert!((v - exact).abs() < 1e-5, "element {at}: {v} {exact}");
        }
    }

    #[test]
    fn vectors_lose_their_axis() {
        let mut rng = Rng::new(6);
        let (a, v) = (draw(&mut rng, &[3, 2, 4]), draw(&mut rng, &[4]));
        assert_eq!(matmul(&a, &v).shape(), [3, 2]);
        assert_eq!(matmul(&v, &draw(&mut rng, &[3, 4, 2])).shape(), [3, 2]);
        let dot: f32 = v.f32s().iter().map(|x| x * x).sum();
        assert_eq!(matmul(&v, &v).shape(), [0usize; 0]);
        assert!((matmul(&v, &v).f32s()[0] - dot).abs() < 1e-5);
    }

    #[test]
    fn one_row_has_the_bits_that_it_has_among_many() {
        let mut rng = Rng::new(7);
        let (a, b) = (draw(&mut rng, &[64, 700]), draw(&mut rng, &[700, 90]));
        let all = matmul(&a, &b);
        for i in [0, 7, 63] {
            let row = Tensor::from_f32([1, 700], a.f32s()[i * 700..][..700].to_vec());
            assert_eq!(matmul(&row, &b).f32s(), &all.f32s()[i * 90..][..90]);
        }
    }

    #[test]
    fn integers_and_shapes_that_do_not_fit_are_refused() {
        let t = |dtype, shape: &[usize]| TensorType::new(dtype, shape.iter().copied());
        let bad = [
            (t(DType::I32, &[2, 3]), t(DType::I32, &[3, 2])),
            (t(DType::F32, &[2, 3]), t(DType::F32, &[2, 3])),
            (t(DType::F32, &[]), t(DType::F32, &[3])),
            (t(DType::F32, &[2, 2, 3]), t(DType::F32, &[3, 3, 2])),
        ];
        for (a, b) in bad {
            assert!(MatMul.infer(&[a.clone(), b.clone()]).is_err(), "{a} {b}");
        }
        let n = TensorType { dtype: DType::F32, shape: vec![Dim::Batch(1), Dim::Fixed(3)] };
        let y = MatMul.infer(&[n.clone(), t(DType::F32, &[3, 5])]).unwrap();
        assert_eq!(y[0].shape, [Dim::Batch(1), Dim::Fixed(5)]);
        assert!(MatMul.infer(&[t(DType::F32, &[3, 2]), n]).is_err());
    }
}
