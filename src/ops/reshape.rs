//! `Reshape`: the same elements under another shape. ONNX's `Flatten`, `Squeeze` and `Unsqueeze` are read as it.
//!
//! *Shapes*: `[..] -> shape`, with the same number of elements. In a graph every dimension is explicit.

use crate::graph::attrs::{SymInt, normalize_axis};
use crate::graph::lower::{Io, Lowering};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType};
use std::sync::Arc;

#[derive(Debug)]
struct Reshape {
    shape: Vec<Dim>,
}

pub(super) static DEF: OpDef = OpDef {
    name: "Reshape",
    onnx: &["Reshape", "Flatten", "Squeeze", "Unsqueeze"],
    read,
    kernels: &[],
    samples: |rng| {
        let w = rng.int(1, 9);
        let of = |shape: &[usize], x: SampleInput| Sample::new(Attrs::new().sizes("shape", shape), [x]);
        vec![
            of(&[w, 6], SampleInput::f32([2, w, 3])),
            of(&[7, 5 * w], SampleInput::f32([7, 5, w, 1])),
            of(&[1, 1, w, 1, 2, 3], SampleInput::f32([6 * w])),
            of(&[], SampleInput::f32([1, 1])),
            of(&[4, 0], SampleInput::f32([0, 3, w])),
            of(&[w, 2], SampleInput::of([2, w], Fill::Ints(-9, 9))),
            of(&[w, 2], SampleInput::of([2 * w, 1], Fill::Bools)),
        ]
    },
};

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let op_type = r.op_type().to_owned();
    let shape = match op_type.as_str() {
        "Flatten" => flattened(r)?,
        "Squeeze" => squeezed(r)?,
        "Unsqueeze" => unsqueezed(r)?,
        _ => {
            let allow_zero = r.flag("allowzero", false)?;
            let wanted = r.sym_ints_or_input("shape", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
            resolve(r, &wanted, allow_zero)?
        }
    };
    Ok(Arc::new(Reshape { shape }))
}

/// Replaces ONNX's 0 (copied from the input) and -1 (what remains) by dimensions.
fn resolve(r: &Reader, wanted: &[SymInt], allow_zero: bool) -> Result<Vec<Dim>, OpError> {
    let text = wanted.iter().map(SymInt::to_string).collect::<Vec<_>>().join(", ");
    let bad = |supported: &str| r.unsupported("shape", format!("[{text}]"), supported);
    let x = r.input(0)?;
    let mut shape = Vec::new();
    let mut rest = None;
    for (i, s) in wanted.iter().enumerate() {
        shape.push(match *s {
            SymInt::Int(-1) if rest.is_none() => {
                rest = Some(i);
                Dim::Fixed(1)
            }
            SymInt::Int(0) if !allow_zero && r.opset() != i64::MAX => {
                let axes = || format!("at least {} axes, for the 0 in [{text}]", i + 1);
                *x.shape.get(i).ok_or_else(|| OpError::shape(0, axes(), x))?
            }
            s => s.dim().ok_or_else(|| bad("non-negative sizes and at most one -1"))?,
        });
    }
    if let Some(i) = rest {
        let total = x.elements().ok_or_else(|| bad("inputs whose element count is k*N"))?;
        let others = shape.iter().try_fold(Dim::Fixed(1), |a, d| a.times(*d));
        shape[i] = others
            .and_then(|o| divide(total, o))
            .ok_or_else(|| bad(&format!("sizes that divide the elements of {x}")))?;
    }
    Ok(shape)
}

/// `a / b` where it is a dimension.
fn divide(a: Dim, b: Dim) -> Option<Dim> {
    let exact = |x: usize, y: usize| (y != 0 && x.is_multiple_of(y)).then(|| x / y);
    match (a, b) {
        (Dim::Fixed(x), Dim::Fixed(y)) => exact(x, y).map(Dim::Fixed),
        (Dim::Batch(x), Dim::Fixed(y)) => exact(x, y).map(Dim::Batch),
        (Dim::Batch(x), Dim::Batch(y)) => exact(x, y).map(Dim::Fixed),
        (Dim::Fixed(0), Dim::Batch(_)) => Some(Dim::Fixed(0)),
        (Dim::Fixed(_), Dim::Batch(_)) => None,
    }
}

fn flattened(r: &mut Reader) -> Result<Vec<Dim>, OpError> {
    let axis = r.int("axis", 1)?;
    let x = r.input(0)?;
    let rank = x.rank();
    // The axis may be the rank itself: everything before it, nothing behind it.
    let at = if usize::try_from(axis) == Ok(rank) { Some(rank) } else { normalize_axis(axis, rank) };
    let at = at.ok_or(OpError::Axis { axis, rank })?;
    let product = |dims: &[Dim]| dims.iter().try_fold(Dim::Fixed(1), |a, d| a.times(*d));
    match (product(&x.shape[..at]), product(&x.shape[at..])) {
        (Some(before), Some(behind)) => Ok(vec![before, behind]),
        _ => Err(OpError::shape(0, "whose flattened dimensions are integers or k*N", x)),
    }
}

fn squeezed(r: &mut Reader) -> Result<Vec<Dim>, OpError> {
    let axes = r.ints_or_input("axes", 1)?;
    let x = r.input(0)?;
    let dropped = match axes {
        None => x.shape.iter().map(|d| *d == Dim::Fixed(1)).collect(),
        Some(axes) => marked(r, &axes, x.rank())?,
    };
    if x.shape.iter().zip(&dropped).any(|(d, drop)| *drop && *d != Dim::Fixed(1)) {
        return Err(OpError::shape(0, "1 on every squeezed axis", x));
    }
    let kept = x.shape.iter().zip(&dropped).filter(|(_, drop)| !**drop);
    Ok(kept.map(|(d, _)| *d).collect())
}

fn unsqueezed(r: &mut Reader) -> Result<Vec<Dim>, OpError> {
    let axes = r.ints_or_input("axes", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    let x = r.input(0)?;
    let added = marked(r, &axes, x.rank().saturating_add(axes.len()))?;
    let mut rest = x.shape.iter();
    let next = |added: &bool| if *added { Some(Dim::Fixed(1)) } else { rest.next().copied() };
    Ok(added.iter().filter_map(next).collect())
}

/// Which axes of a tensor of this rank the list names, each once.
fn marked(r: &Reader, axes: &[i64], rank: usize) -> Result<Vec<bool>, OpError> {
    let mut out = vec![false; rank];
    for &axis in axes {
        let i = normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank })?;
        if std::mem::replace(&mut out[i], true) {
            return Err(r.unsupported("axes", format!("{axes:?}"), "each axis once"));
        }
    }
    Ok(out)
}

impl Op for Reshape {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().dims("shape", &self.shape).at_place(Place::Input(1));
        // ONNX copies a dimension for a 0, unless it is told.
        if self.shape.contains(&Dim::Fixed(0)) { attrs.int("allowzero", 1) } else { attrs }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the shape is an attribute)")?;
        let out = TensorType { dtype: inputs[0].dtype, shape: self.shape.clone() };
        if out.elements().is_none() || out.elements() != inputs[0].elements() {
            return Err(OpError::shape(0, format!("with as many elements as {out}"), &inputs[0]));
        }
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let shape = self.infer(&[inputs[0].ty()])?.remove(0).dims();
        Ok(vec![inputs[0].reshaped(shape.expect("concrete inputs give concrete outputs"))])
    }

    fn lower(&self, _io: &Io) -> Result<Lowering, OpError> {
        Ok(Lowering::Alias)
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attrs::Input;
    use crate::graph::{AttrValue as V, Source};
    use crate::tensor::DType;

    fn shape(op_type: &str, x: &[Dim], name: &str, v: V) -> Result<Vec<Dim>, OpError> {
        let ty = TensorType::new(DType::F32, x.iter().copied());
        let inputs = vec![Some(Input { ty: ty.clone(), known: None })];
        let attrs = Attrs::from(vec![(name.to_owned(), v)]);
        let mut r = Reader::new(Source::Onnx(12), op_type, attrs, inputs, 1);
        Ok((DEF.read)(&mut r)?.infer(&[ty])?.remove(0).shape)
    }

    fn ints(v: &[i64]) -> V {
        V::Ints(v.iter().map(|i| SymInt::Int(*i)).collect())
    }

    #[test]
    fn the_four_onnx_forms_give_explicit_shapes() {
        use Dim::{Batch, Fixed};
        let x = [Batch(1), Fixed(1), Fixed(6), Fixed(4)];
        let ok = |op: &str, name: &str, v: V| shape(op, &x, name, v).expect("legal");
        assert_eq!(ok("Reshape", "shape", ints(&[0, -1, 8])), [Batch(1), Fixed(3), Fixed(8)]);
        assert_eq!(ok("Reshape", "shape", ints(&[-1, 6])), [Batch(4), Fixed(6)]);
        assert_eq!(ok("Flatten", "axis", V::Int(-3)), [Batch(1), Fixed(24)]);
        assert_eq!(ok("Flatten", "axis", V::Int(4)), [Batch(24), Fixed(1)]);
        assert_eq!(ok("Flatten", "axis", V::Int(0)), [Fixed(1), Batch(24)]);
        assert_eq!(ok("Squeeze", "axes", ints(&[-3])), [Batch(1), Fixed(6), Fixed(4)]);
        assert_eq!(ok("Unsqueeze", "axes", ints(&[-1, 0])), [&[Fixed(1)][..], &x, &[Fixed(1)]].concat());
        for (op, name, v) in [
            ("Reshape", "shape", ints(&[-1, -1])),
            ("Reshape", "shape", ints(&[5, -1])),
            ("Flatten", "axis", V::Int(5)),
            ("Squeeze", "axes", ints(&[0])),
            ("Unsqueeze", "axes", ints(&[1, 1])),
            ("Unsqueeze", "axes", ints(&[0, 1, 2])),
        ] {
            assert!(shape(op, &x, name, v.clone()).is_err(), "{op} {v}");
        }
    }
}
