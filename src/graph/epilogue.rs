//! What a kernel does to the elements of its result before it stores them, in place of the nodes that follow.

use super::{Op, QuantRule};
use crate::quant::{Division, Rounding, Step};

/// `Epilogue` of `shaders/shared/epilogue.wgsl`: a field `epilogue` of the `Params` of kernels that apply one. A plan
/// sets `slot`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct EpilogueParams {
    low: f32,
    high: f32,
    scale: f32,
    inverse: f32,
    zero_point: i32,
    code_low: i32,
    code_high: i32,
    slot: u32,
}

impl EpilogueParams {
    /// Where `slot` lies.
    pub(crate) const SLOT: usize = std::mem::offset_of!(EpilogueParams, slot);
}

/// A clamp, then a quantizer of one scale, each where there is one. Elements give the bits that the nodes give which it
/// stands for; only a NaN may become another NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    clamp: Option<(f32, f32)>,
    step: Option<Step>,
}

impl Epilogue {
    /// Numbers below `low` become `low`, then those above `high` become `high`; NaN stays.
    pub fn clamp(low: f32, high: f32) -> Epilogue {
        Epilogue { clamp: Some((low, high)), step: None }
    }

    /// Numbers are quantized and dequantized.
    pub fn quantize(step: Step) -> Epilogue {
        Epilogue { clamp: None, step: Some(step) }
    }

    /// What an operator does, where that is all it does.
    pub fn of(op: &dyn Op) -> Option<Epilogue> {
        match op.quant_rule() {
            QuantRule::Clamp { low, high } => Some(Epilogue::clamp(low, high)),
            QuantRule::Quantizer(q) => match q.active() {
                Some(params) => (params.scales().len() == 1).then(|| Epilogue::quantize(params.step(0))),
                None => Some(Epilogue::default()),
            },
            _ => None,
        }
    }

    /// Whether elements stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Epilogue::default()
    }

    /// This one and then `next`, where one can be both.
    pub fn then(self, next: Epilogue) -> Option<Epilogue> {
        let fits = match next.clamp {
            Some(_) => self.is_none(),
            None => self.step.is_none() || next.step.is_none(),
        };
        fits.then(|| Epilogue { clamp: self.clamp.or(next.clamp), step: self.step.or(next.step) })
    }

    /// Applies it to numbers in their place. How many NaN the quantizer was given.
    pub fn apply(&self, x: &mut [f32]) -> u64 {
        if let Some((low, high)) = self.clamp {
            for x in &mut *x {
                // Not `max` and `min`, which drop a NaN.
                let v = if *x < low { low } else { *x };
                *x = if v > high { high } else { v };
            }
        }
        self.step.map_or(0, |step| step.fake_quantize_all(x))
    }

    /// For a kernel's `Params`. Without a clamp the bounds let everything pass.
    pub(crate) fn params(&self) -> EpilogueParams {
        let (low, high) = self.clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let Some(step) = &self.step else { return EpilogueParams { low, high, ..Default::default() } };
        let (code_low, code_high) = step.codes();
        EpilogueParams {
            low,
            high,
            scale: step.scale(),
            inverse: step.inverse(),
            zero_point: step.zero_point(),
            code_low,
            code_high,
            slot: 0,
        }
    }

    /// For a kernel's `override` constants.
    pub(crate) fn overrides(&self) -> Vec<(&'static str, u32)> {
        match &self.step {
            None if self.is_none() => Vec::new(),
            None => vec![("EPILOGUE", 1)],
            Some(step) => {
                let [rounding, division] = numbers(step.rounding(), step.division());
                vec![("EPILOGUE", 2), rounding, division]
            }
        }
    }
}

/// How quotients are formed and rounded, for kernels with `shared/quantize.wgsl`.
pub(crate) fn numbers(rounding: Rounding, division: Division) -> [(&'static str, u32); 2] {
    let number = |at: Option<usize>| super::lower::u32(at.unwrap_or(0));
    [
        ("ROUNDING", number(Rounding::ALL.iter().position(|r| *r == rounding))),
        ("DIVISION", number(Division::ALL.iter().position(|d| *d == division))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::QParams;
    use crate::tensor::DType;

    fn step(scale: f32) -> Step {
        QParams::per_tensor(DType::I8, scale, 0).unwrap().step(0)
    }

    #[test]
    fn a_clamp_goes_before_a_quantizer_and_neither_goes_twice() {
        let (clamp, step) = (Epilogue::clamp(0.0, 6.0), Epilogue::quantize(step(0.1)));
        let both = clamp.then(step).unwrap();
        assert_eq!((both.clamp, both.step), (clamp.clamp, step.step));
        for (first, second) in [(step, clamp), (clamp, clamp), (step, step), (both, clamp), (both, step)] {
            assert_eq!(first.then(second), None, "{first:?} {second:?}");
        }
        for e in [clamp, step, both, Epilogue::default()] {
            assert_eq!(e.then(Epilogue::default()), Some(e));
            assert_eq!(Epilogue::default().then(e), Some(e));
        }
    }

    #[test]
    fn it_gives_numbers_nan_zeros_and_infinities_as_its_parts_do() {
        let special = [f32::NAN, -0.0, 0.0, f32::INFINITY, f32::NEG_INFINITY, 0.36, -3.0, 7.0];
        let apply = |e: Epilogue| {
            let mut x = special;
            e.apply(&mut x);
            x.map(f32::to_bits)
        };
        let clamp = Epilogue::clamp(0.0, 6.0);
        let want = [f32::NAN, -0.0, 0.0, 6.0, 0.0, 0.36, 0.0, 6.0];
        assert_eq!(apply(clamp), want.map(f32::to_bits));
        let both = clamp.then(Epilogue::quantize(step(0.1))).unwrap();
        let want = want.map(|x| step(0.1).fake_quantize(x).to_bits());
        assert_eq!(apply(both), want);
        assert_eq!(apply(Epilogue::default()), special.map(f32::to_bits));
    }
}
