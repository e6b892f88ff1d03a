//! `Gemm`: `y = alpha * a' * b' + beta * c`, where `'` may transpose.
//!
//! *Shapes*: `[m, k], [k, n], c? -> [m, n]`; `a` as `[k, m]` with `transA`, `b` as `[n, k]` with `transB`; `c` is
//! anything that broadcasts to `[m, n]`.

use super::product::{KERNELS, Product, code_layouts};
use crate::graph::lower::{Io, Layout, Layouts, Lowering};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;

#[derive(Debug)]
struct Gemm {
    alpha: f32,
    beta: f32,
    trans_a: bool,
    trans_b: bool,
}

pub(super) static DEF: OpDef = OpDef { name: "Gemm", onnx: &["Gemm"], read, kernels: KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    Ok(Arc::new(Gemm {
        alpha: r.float("alpha", 1.0)?,
        beta: r.float("beta", 1.0)?,
        trans_a: r.int("transA", 0)? != 0,
        trans_b: r.int("transB", 0)? != 0,
    }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (m, k, n) = (rng.int(4, 19), rng.int(1, 70), rng.int(2, 40));
    let plain = || (Attrs::new(), m, k, Some(vec![n]));
    let cases = [
        plain(),
        (Attrs::new().int("transB", 1), 1, k, Some(vec![n])),
        (Attrs::new().int("transB", 1), 7, k, Some(vec![1, n])),
        (Attrs::new().int("transA", 1), m, k, None),
        (Attrs::new().int("transA", 1).int("transB", 1).float("alpha", 0.5), m, k, Some(vec![m, 1])),
        (Attrs::new().float("alpha", 0.25).float("beta", -0.75), m, 300, Some(vec![m, n])),
        (Attrs::new().float("beta", 0.0), m, k, Some(vec![])),
        (Attrs::new(), 1, k, Some(vec![1])),
        (Attrs::new(), m, k, Some(vec![1, 1])),
        (Attrs::new().int("transB", 1), 7, 301, Some(vec![n])),
        (Attrs::new().int("transA", 1), m, 150, None),
        (Attrs::new(), m, 0, Some(vec![n])),
        (Attrs::new(), 0, k, Some(vec![n])),
    ];
    let sample = |(attrs, m, k, c): (Attrs, usize, usize, Option<Vec<usize>>)| {
        let set = |name: &str| attrs.0.iter().any(|(n, _)| n == name);
        let a = if set("transA") { [k, m] } else { [m, k] };
        let b = if set("transB") { [n, k] } else { [k, n] };
        let mut inputs = vec![SampleInput::f32(a), SampleInput::f32(b).constant()];
        inputs.extend(c.map(|c| SampleInput::f32(c).constant()));
        Sample::new(attrs, inputs).reduction(k + 1)
    };
    cases.into_iter().map(sample).collect()
}

impl Gemm {
    fn product(&self, a: &[usize], b: &[usize], c: Option<&[usize]>) -> Product {
        let (m, k) = if self.trans_a { (a[1], a[0]) } else { (a[0], a[1]) };
        let n = if self.trans_b { b[0] } else { b[1] };
        Product {
            batch: [1; 4],
            a_batch: [0; 4],
            b_batch: [0; 4],
            m,
            k,
            n,
            a: if self.trans_a { (1, m) } else { (k, 1) },
            b: if self.trans_b { (1, k) } else { (n, 1) },
            alpha: self.alpha,
            c: c.map(|c| {
                let cols = c.last().copied().unwrap_or(1);
                let rows = if c.len() == 2 { c[0] } else { 1 };
                (self.beta, if rows == 1 { 0 } else { cols }, usize::from(cols != 1))
            }),
        }
    }
}

impl Op for Gemm {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .float("alpha", self.alpha)
            .float("beta", self.beta)
            .int("transA", i64::from(self.trans_a))
            .int("transB", i64::from(self.trans_b))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 2, 3, "2 or 3")?;
        (0..inputs.len()).try_for_each(|i| check::f32(inputs, i))?;
        for (i, t) in inputs[..2].iter().enumerate() {
            if t.rank() != 2 {
                return Err(OpError::Rank { input: i, expected: "2", got: t.rank() });
            }
        }
        let pair = |t: &TensorType, swap: bool| {
            if swap { (t.shape[1], t.shape[0]) } else { (t.shape[0], t.shape[1]) }
        };
        let ((m, k), (b_k, n)) = (pair(&inputs[0], self.trans_a), pair(&inputs[1], self.trans_b));
        if k.fixed().is_none() {
            return Err(OpError::SymbolicDim { input: 0, axis: usize::from(!self.trans_a) });
        }
        if k != b_k {
            let expected = if self.trans_b { format!("[n, {k}]") } else { format!("[{k}, n]") };
            return Err(OpError::shape(1, expected, &inputs[1]));
        }
        if let Some(c) = inputs.get(2) {
            let fits = |got: Dim, want: Dim| got == want || got == Dim::Fixed(1);
            let ok = match c.shape[..] {
                [] => true,
                [cols] => fits(cols, n),
                [rows, cols] => fits(rows, m) && fits(cols, n),
                _ => false,
            };
            if !ok {
                return Err(OpError::shape(2, format!("broadcastable to [{m},{n}]"), c));
            }
        }
        let out = TensorType { dtype: DType::F32, shape: vec![m, n] };
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let (a, b, c) = (&inputs[0], &inputs[1], inputs.get(2));
        let product = self.product(a.shape(), b.shape(), c.map(Tensor::shape));
        let y = product.eval(cx, a.f32s(), b.f32s(), c.map(Tensor::f32s));
        Ok(vec![Tensor::from_f32([product.m, product.n], y)])
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let shape = |i: usize| io.inputs.get(i).map(|v| v.shape.as_slice());
        let (a, b) = (&io.inputs[0].shape, &io.inputs[1].shape);
        self.product(a, b, shape(2)).lower()
    }

    fn has_integer_form(&self) -> bool {
        self.alpha == 1.0 && self.beta == 1.0
    }

    fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let product = self.product(inputs[0].shape(), inputs[1].shape(), None);
        product.integer(cx, params, inputs, &[product.m, product.n]).map(Some)
    }

    fn integer_layouts(&self, params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        let of = |along_rows: bool| if along_rows { Layout::PackedRows } else { Layout::PackedColumns };
        code_layouts(params, inputs, [of(!self.trans_a), of(self.trans_b)])
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        let of = self.product(&io.inputs[0].shape, &io.inputs[1].shape, None);
        let words = self.product(&io.inputs[0].words(), &io.inputs[1].words(), None);
        Product { m: of.m, n: of.n, ..words }.lower_codes(params, io).map(Some)
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        // alpha and beta scale the sums, which integers do not.
        let scaled = self.alpha != 1.0 || self.beta != 1.0;
        if scaled { QuantRule::Float } else { QuantRule::Gemm { channel_axis: i64::from(!self.trans_b) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_the_formula() {
        let mut rng = Rng::new(8);
        for s in samples(&mut rng) {
            let mut r = Reader::new(crate::graph::Source::Onnx(13), "Gemm", s.attrs.clone(), Vec::new(), 1);
            let op = read(&mut r).unwrap();
            let t: Vec<Tensor> = s.inputs.iter().map(|i| i.draw(&mut rng)).collect();
            let y = op.eval(&Scratch::new(), &t).unwrap().remove(0);
            let number =
                |name: &str| op.attrs().0.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_string());
            let float = |name: &str| number(name).unwrap().parse::<f64>().unwrap();
            let at = |t: &Tensor, i: usize, j: usize, swap: bool| {
                let (i, j) = if swap { (j, i) } else { (i, j) };
                f64::from(t.f32s()[i * t.shape()[1] + j])
            };
            let (ta, tb) = (float("transA") != 0.0, float("transB") != 0.0);
            let (n, k) = (y.shape()[1], t[0].shape()[usize::from(!ta)]);
            for (e, v) in y.f32s().iter().enumerate() {
                let (i, j) = (e / n, e % n);
                let sum: f64 = (0..k).map(|x| at(&t[0], i, x, ta) * at(&t[1], x, j, tb)).sum();
                let c = t.get(2).map_or(0.0, |c| {
                    let s = c.shape();
                    let cols = s.last().copied().unwrap_or(1);
                    let row = if s.len() == 2 && s[0] > 1 { i } else { 0 };
                    f64::from(c.f32s()[row * cols + if cols > 1 { j } else { 0 }])
                });
                let exact = float("alpha") * sum + float("beta") * c;
                assert!((f64::from(*v) - exact).abs() < 2e-4, "{:?} element {e}: {v} {exact}", s.attrs);
            }
        }
    }
}
