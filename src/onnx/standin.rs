//! What takes the place of what is not known of a node, so that the rest of it can be judged.

use crate::graph::attrs::{AttrValue, Input, Known, SymInt};
use crate::tensor::{DType, Dim, MAX_RANK, Tensor, TensorType};
use std::collections::HashSet;

/// Sizes that no model compares with on purpose, two so that what depends on them shows. Short ones where there are many axes.
const SIZES: [usize; 2] = [97, 89];
const SHORT_SIZES: [usize; 2] = [13, 11];
/// Sizes of known inputs that are tried.
const MOST_SIZES: usize = 12;
const TYPES: [DType; 5] = [DType::F32, DType::I32, DType::Bool, DType::I8, DType::U8];

/// Types for an input, given those of the others and integers that multiply their sizes, such as a number of groups.
pub(super) fn types(known: &[&TensorType], factors: &[usize]) -> Vec<TensorType> {
    let own: Vec<Dim> = known.iter().flat_map(|t| t.shape.iter().copied()).collect();
    let times = |d: &Dim| {
        let times = |f: &usize| d.fixed()?.checked_mul(*f).map(Dim::Fixed);
        factors.iter().filter_map(times).collect::<Vec<Dim>>()
    };
    let mut sizes: Vec<Dim> = vec![Dim::Fixed(1)];
    for d in own.iter().copied().chain(own.iter().flat_map(times)) {
        if sizes.len() < MOST_SIZES && !sizes.contains(&d) {
            sizes.push(d);
        }
    }
    let mut shapes: HashSet<Vec<Dim>> = known.iter().map(|t| t.shape.clone()).collect();
    for which in [0, 1] {
        for rank in 0..=MAX_RANK {
            let any = Dim::Fixed(if rank < 5 { SIZES[which] } else { SHORT_SIZES[which] });
            let all = vec![any; rank];
            for axis in 0..rank {
                let at = |size: &Dim| {
                    let mut shape = all.clone();
                    shape[axis] = *size;
                    shape
                };
                shapes.extend(sizes.iter().map(at));
            }
            for t in known {
                let same = t.rank().min(rank);
                let (mut head, mut tail) = (all.clone(), all.clone());
                head[..same].copy_from_slice(&t.shape[..same]);
                tail[rank - same..].copy_from_slice(&t.shape[t.rank() - same..]);
                shapes.extend([head, tail]);
                if same == rank {
                    shapes.extend((0..rank).map(|axis| {
                        let mut shape = t.shape[..rank].to_vec();
                        shape[axis] = any;
                        shape
                    }));
                }
            }
            shapes.insert(all);
        }
    }
    let of = |shape: Vec<Dim>| TYPES.map(|dtype| TensorType { dtype, shape: shape.clone() });
    shapes.into_iter().flat_map(of).collect()
}

/// Constants for an input whose own says something wrong; `None` leaves it out.
pub(super) fn constants(wrong: &TensorType) -> Vec<Option<Input>> {
    let shape = wrong.dims().unwrap_or_default();
    let n: usize = shape.iter().product();
    let ints = |shape: Vec<usize>, value: &dyn Fn(usize) -> usize| {
        let n = shape.iter().product();
        let values = (0..n).map(|i| SymInt::from(Dim::Fixed(value(i)))).collect();
        let ty = TensorType::new(DType::I32, shape.iter().copied());
        Some(Input { ty, known: Some(Known::Ints { shape, values }) })
    };
    let floats = |shape: Vec<usize>| {
        let n = shape.iter().product();
        let t = Tensor::from_f32(shape, vec![1.0; n]);
        Some(Input { ty: t.ty(), known: Some(Known::Tensor(t)) })
    };
    let mut out = vec![None, ints(vec![], &|_| 1), ints(vec![1], &|_| 1), floats(vec![]), floats(vec![1])];
    if n > 1 {
        out.extend([ints(shape.clone(), &|_| 1), ints(shape.clone(), &|i| i), floats(shape)]);
    }
    out
}

/// What may have been meant by a value of another kind.
pub(super) fn conversions(v: &AttrValue) -> Vec<AttrValue> {
    let int = |v: i64| vec![AttrValue::Int(v), AttrValue::Ints(vec![SymInt::Int(v)])];
    let mut out = vec![v.clone()];
    match v {
        #[allow(clippy::cast_precision_loss, reason = "a number that was meant")]
        AttrValue::Int(i) => {
            out.extend(int(*i));
            out.push(AttrValue::Float(*i as f32));
        }
        #[allow(clippy::cast_possible_truncation, reason = "an integer that was meant")]
        AttrValue::Float(f) => out.extend(int(*f as i64)),
        AttrValue::Str(s) => {
            out.extend(s.parse().map(int).unwrap_or_default());
            out.extend(s.parse().map(AttrValue::Float));
        }
        AttrValue::Ints(v) => {
            if let [SymInt::Int(v)] = v.as_slice() {
                out.extend(int(*v));
            }
        }
        AttrValue::Floats(v) => {
            if let [f] = v.as_slice() {
                out.push(AttrValue::Float(*f));
            }
        }
        AttrValue::Strs(_) | AttrValue::Tensor(_) => {}
    }
    out
}

/// Every value that an attribute may have which supports this, as far as that can be listed; `None` where it cannot.
pub(super) fn supported(text: &str) -> Option<Vec<AttrValue>> {
    let is_word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || c == '_');
    match text {
        "an integer" | "1 or more" | "0 or 1" => Some((-6..=8).map(AttrValue::Int).collect()),
        "a number" => Some([-1.0, 0.0, 0.5, 1.0, 2.0].map(AttrValue::Float).to_vec()),
        "0" | "1" => Some(conversions(&AttrValue::Str(text.to_owned()))),
        words if words.contains(", ") && words.split(", ").all(is_word) => {
            Some(words.split(", ").map(|w| AttrValue::Str(w.to_owned())).collect())
        }
        _ => None,
    }
}
