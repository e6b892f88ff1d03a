//! Frames to probe with: codes over the whole range of an input, in forms that excite different rules.

use crate::error::Error;
use crate::graph::sample::Rng;
use crate::graph::{Graph, ValueId};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor};

/// Forms of frames that are drawn, in turn.
pub(super) const FORMS: [&str; 5] = ["noise", "faint noise", "extremes", "ramp", "blocks"];

/// One input of one frame.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// Where it has codes.
    pub(super) codes: Option<Vec<i32>>,
    /// As the graph takes it.
    pub(super) values: Tensor,
}

/// An input of a graph.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) dtype: DType,
    /// Of a frame.
    pub(super) shape: Vec<usize>,
    /// Of the quantizer that takes it.
    pub(super) params: Option<QParams>,
}

/// The inputs of a graph on codes.
///
/// # Errors
/// A frame that is too large.
pub(super) fn slots(graph: &Graph) -> Result<Vec<Slot>, Error> {
    let one = |v: &ValueId| {
        let value = graph.value(*v);
        let shape = value.ty.at(1).and_then(|t| t.dims());
        let shape =
            shape.ok_or_else(|| Error::Usage(format!("input {}: one frame is too large", value.name)))?;
        let made = graph.nodes().iter().find(|n| n.op.def().name == "Quantize" && n.inputs[0] == *v);
        let params = made.and_then(|n| n.op.codes()?.params().cloned()).filter(|p| p.scales().len() == 1);
        Ok(Slot { name: value.name.clone(), dtype: value.ty.dtype, shape, params })
    };
    graph.inputs.iter().map(one).collect()
}

impl Slot {
    /// The least code, the one in the middle, and the greatest; `None` for what has no codes.
    fn range(&self) -> Option<(i32, i32, i32)> {
        if let Some(p) = &self.params {
            let (low, high) = p.codes();
            return Some((low, p.zero_points()[0], high));
        }
        match self.dtype {
            // Nothing quantizes it: small numbers of both signs.
            DType::F32 => Some((-128, 0, 127)),
            DType::I32 | DType::Bool => None,
            other => other.limits().map(|(low, high)| (low, i32::midpoint(low, high), high)),
        }
    }

    fn of_codes(&self, codes: Vec<i32>) -> Drawn {
        let values = match &self.params {
            Some(p) => {
                let step = p.step(0);
                Tensor::from_f32(self.shape.clone(), codes.iter().map(|c| step.dequantize(*c)).collect())
            }
            #[allow(clippy::cast_precision_loss, reason = "codes of 8 bits")]
            None if self.dtype == DType::F32 => {
                Tensor::from_f32(self.shape.clone(), codes.iter().map(|c| *c as f32 / 64.0).collect())
            }
            None => Tensor::from_codes(self.dtype, &self.shape, &codes).expect("codes of the input's range"),
        };
        Drawn { codes: Some(codes), values }
    }

    /// A frame of a form.
    ///
    /// # Errors
    /// An input that codes say nothing of.
    pub(super) fn draw(&self, rng: &mut Rng, form: usize) -> Result<Drawn, Error> {
        let Some((low, middle, high)) = self.range() else {
            return Err(Error::Usage(format!(
                "input {} is {}; give frames by --data",
                self.name, self.dtype
            )));
        };
        let n: usize = self.shape.iter().product();
        let span = high - low;
        let codes: Vec<i32> = match form {
            0 => (0..n).map(|_| rng.code(low, high)).collect(),
            1 => {
                let faint = (span / 16).max(1);
                (0..n).map(|_| (middle + rng.code(-faint, faint)).clamp(low, high)).collect()
            }
            2 => (0..n).map(|_| if rng.bits() & 1 == 0 { low } else { high }).collect(),
            3 => {
                let (period, noise) = (rng.int(2, 4 + n / 4), (span / 32).max(1));
                let steps = usize::try_from(span).unwrap_or(0);
                let ramp = |i: usize| low + i32::try_from(i % period * steps / period).unwrap_or(0);
                (0..n).map(|i| (ramp(i) + rng.code(-noise, noise)).clamp(low, high)).collect()
            }
            _ => {
                let (mut left, mut code) = (0, low);
                let each = (0..n).map(|_| {
                    if left == 0 {
                        (left, code) = (rng.int(1, 1 + n.min(48)), rng.code(low, high));
                    }
                    left -= 1;
                    code
                });
                each.collect()
            }
        };
        Ok(self.of_codes(codes))
    }

    /// A frame with some of its codes drawn anew.
    pub(super) fn near(&self, rng: &mut Rng, from: &Drawn) -> Drawn {
        let (Some(codes), Some((low, _, high))) = (&from.codes, self.range()) else { return from.clone() };
        let one_of = 1usize << rng.int(1, 6);
        let mut changed = codes.clone();
        for c in &mut changed {
            if rng.int(1, one_of) == 1 {
                *c = rng.code(low, high);
            }
        }
        self.of_codes(changed)
    }

    /// A frame of data, moved to the numbers that codes stand for, so that no rounding of an input counts.
    pub(super) fn snapped(&self, frame: &Tensor) -> Drawn {
        match (&self.params, frame.as_f32()) {
            (Some(p), Some(x)) => {
                let step = p.step(0);
                self.of_codes(x.iter().map(|x| step.quantize(*x)).collect())
            }
            _ => Drawn { codes: frame.codes().filter(|_| self.dtype != DType::I32), values: frame.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lie_on_the_grid_and_reach_its_ends() {
        let p = QParams::per_tensor(DType::U8, 0.03, 40).expect("legal");
        let slot =
            Slot { name: "x".into(), dtype: DType::F32, shape: vec![1, 3, 20, 20], params: Some(p.clone()) };
        let mut rng = Rng::new(1);
        for (form, name) in FORMS.iter().enumerate() {
            let d = slot.draw(&mut rng, form).expect("draws");
            let codes = d.codes.clone().expect("codes");
            let back: Vec<i32> = d.values.f32s().iter().map(|x| p.step(0).quantize(*x)).collect();
            assert_eq!(codes, back, "{name}");
            let distinct: std::collections::BTreeSet<i32> = codes.iter().copied().collect();
            assert!(distinct.len() > 1, "{name}");
            if form == 2 {
                assert_eq!((distinct.first(), distinct.last()), (Some(&0), Some(&255)));
            }
            let near = slot.near(&mut rng, &d);
            assert!(near.codes.is_some_and(|c| c != codes && c.len() == codes.len()));
        }
        let slot = Slot { shape: vec![1, 2], ..slot };
        let off = Tensor::from_f32([1, 2], vec![0.031, 1e9]);
        assert_eq!(slot.snapped(&off).codes, Some(vec![41, 255]));
    }

    #[test]
    fn inputs_without_codes_need_data() {
        let slot = Slot { name: "ids".into(), dtype: DType::I32, shape: vec![1, 4], params: None };
        let e = slot.draw(&mut Rng::new(1), 0).expect_err("indices").to_string();
        assert!(e.contains("ids") && e.contains("--data"), "{e}");
    }
}
