//! Elements that others give, in the layout and type of a graph's tensors.

use super::answers::{Answer, Found};
use super::source::Source;
use crate::data::channels_first;
use crate::data::dump::Kind;
use crate::error::Error;
use crate::graph::{Graph, ValueId};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor, element_count};
use std::collections::HashMap;

/// Tensors of theirs as those of a graph.
pub(super) struct Form<'a> {
    pub(super) graph: &'a Graph,
    pub(super) params: &'a HashMap<ValueId, QParams>,
}

impl Form<'_> {
    /// A tensor as ours, or why it cannot be one.
    pub(super) fn answer(
        &self,
        source: &Source,
        f: Found,
        (frames, mut ours): (usize, Vec<usize>),
        last: bool,
        limit: Option<usize>,
    ) -> Result<Result<Answer, String>, Error> {
        let rows = f.shape.first().copied().unwrap_or(1);
        let wanted = if self.graph.value(f.value).ty.is_symbolic() {
            rows / frames.max(1) * limit.unwrap_or(frames).min(frames)
        } else {
            rows
        };
        let raw = source.read(&f.key, wanted)?;
        let shape = raw.shape().to_vec();
        if let (Some(d), Some(n)) = (ours.first_mut(), shape.first()) {
            *d = *n;
        }
        if element_count(&ours) != Some(raw.len()) {
            return Ok(Err(format!("its shape {shape:?} is not {ours:?}")));
        }
        let laid = if last {
            let mut rotated = ours.clone();
            rotated[1..].rotate_left(1);
            channels_first(&raw.reshaped(rotated))
        } else {
            raw.reshaped(ours)
        };
        let (value, tensor) = match self.typed(f.value, &laid, source.kind(&f.key)) {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        let name = self.graph.value(value).name.clone();
        Ok(Ok(Answer { key: f.key, value, name, tensor, shape, last }))
    }

    /// The tensor in the type of a value; of an input that codes were given for, those codes.
    fn typed(&self, v: ValueId, t: &Tensor, kind: Option<Kind>) -> Result<(ValueId, Tensor), String> {
        let want = self.graph.value(v).ty.dtype;
        let codes = kind == Some(Kind::Codes) || (kind.is_none() && t.dtype() != DType::F32);
        if want == DType::F32 {
            if t.dtype() == DType::F32 && kind != Some(Kind::Codes) {
                return Ok((v, t.clone()));
            }
            // Codes of an input; bytes of images are not, unless they say so.
            let made = self.graph.nodes().iter().find(|n| n.op.def().name == "Quantize" && n.inputs[0] == v);
            let made = made.map(|n| n.outputs[0]);
            return match made.filter(|q| kind.is_some() || self.graph.value(*q).ty.dtype == DType::I8) {
                Some(q) if codes && (kind.is_some() || t.dtype() == DType::I8) => {
                    Ok((q, self.integers(q, t)?))
                }
                _ => {
                    let numbers = (0..t.len()).map(|i| t.number(i));
                    #[allow(
                        clippy::cast_possible_truncation,
                        reason = "of at most 16 bits, or rounded to nearest"
                    )]
                    Ok((v, Tensor::from_f32(t.shape(), numbers.map(|x| x as f32).collect())))
                }
            };
        }
        if want == t.dtype() {
            return Ok((v, t.clone()));
        }
        match self.params.get(&v).filter(|p| p.scales().len() == 1) {
            Some(p) if !codes => Ok((v, on_grid(t, p)?)),
            _ => Ok((v, self.integers(v, t)?)),
        }
    }

    /// Integers, however they are stored.
    fn integers(&self, v: ValueId, t: &Tensor) -> Result<Tensor, String> {
        let want = self.graph.value(v).ty.dtype;
        let all: Option<Vec<i32>> = (0..t.len()).map(|i| whole(t.number(i))).collect();
        let fits = all.and_then(|all| Tensor::from_codes(want, t.shape(), &all));
        fits.ok_or_else(|| format!("its elements are {}, and not all of them are {want} codes", t.dtype()))
    }
}

fn whole(x: f64) -> Option<i32> {
    #[allow(clippy::cast_possible_truncation, reason = "compared behind it")]
    let i = x as i32;
    (f64::from(i).to_bits() == (x + 0.0).to_bits()).then_some(i)
}

/// The codes that numbers stand for.
fn on_grid(t: &Tensor, params: &QParams) -> Result<Tensor, String> {
    /// Of f32 that a runtime formed in its own way, in steps: some, and some ulp of wide codes.
    const OFF: f64 = 1e-3;
    let step = params.step(0);
    let (scale, (low, high)) = (f64::from(step.scale()), step.codes());
    let mut codes = Vec::with_capacity(t.len());
    for i in 0..t.len() {
        let steps = t.number(i) / scale;
        let near = steps.round_ties_even();
        let code = whole(near + f64::from(step.zero_point())).filter(|c| (low..=high).contains(c));
        match code.filter(|_| (steps - near).abs() <= OFF + steps.abs() * 1e-6) {
            Some(code) => codes.push(code),
            None => {
                return Err(format!(
                    "its numbers are not on the grid of scale {} (element {i} is {}): give codes, or what stands behind the \
                     quantizer",
                    step.scale(),
                    t.number(i)
                ));
            }
        }
    }
    Tensor::from_codes(params.dtype(), t.shape(), &codes).ok_or_else(|| "its codes do not fit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_off_the_grid_are_told_from_codes() {
        let p = QParams::per_tensor(DType::I8, 0.1, 3).expect("legal");
        let of = |x: f32| on_grid(&Tensor::from_f32([1], vec![x]), &p);
        assert_eq!(of(-0.2).map(|t| t.codes()), Ok(Some(vec![1])));
        assert!(of(0.13).is_err_and(|e| e.contains("grid")));
        assert!(of(20.0).is_err(), "beyond the last code");
        assert!(of(f32::NAN).is_err());
    }
}
