//! `Pad`: elements before and behind each axis; negative counts crop.
//!
//! *Shapes*: `[.., d, ..] -> [.., before + d + behind, ..]`.

use super::element::moved;
use super::lookup::{self, FillValue, Lookup, OUTSIDE};
use super::strided::signed;
use crate::graph::attrs::{Known, normalize_axis};
use crate::graph::lower::{Io, Layout, Layouts, Lowering, View};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch, Source};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;

const MODES: &[&str] = &["constant", "reflect", "edge", "wrap"];

#[derive(Debug)]
struct Pad {
    mode: &'static str,
    /// Before each axis, then behind each.
    pads: Vec<i64>,
    dtype: DType,
    fill: FillValue,
}

pub(super) static DEF: OpDef = OpDef { name: "Pad", onnx: &["Pad"], read, kernels: lookup::KERNELS, samples };

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let mode = r.one_of("mode", "constant", MODES)?;
    // Until opset 10 an attribute, always a number.
    if matches!(r.source(), Source::Onnx(_)) {
        r.float("value", 0.0)?;
    }
    let given = r.ints_or_input("pads", 1)?.ok_or(OpError::MissingInput { input: 1 })?;
    let axes = r.ints_or_input("axes", 3)?;
    let dtype = r.input(0)?.dtype;
    let rank = r.input(0)?.rank();
    let axes = axes.unwrap_or_else(|| (0..signed(rank)).collect());
    if given.len() != 2 * axes.len() {
        let supported = format!("two numbers for each of {} axes", axes.len());
        return Err(r.unsupported("pads", format!("{given:?}"), &supported));
    }
    let mut pads = vec![0; 2 * rank];
    for (i, &axis) in axes.iter().enumerate() {
        let a = normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank })?;
        pads[a] = given[i];
        pads[rank + a] = given[axes.len() + i];
    }
    let mut fill = FillValue { float: 0.0, int: 0 };
    match r.known(2) {
        Some(Known::Tensor(t)) if !matches!(t.dtype(), DType::F32 | DType::I32) && t.len() == 1 => {
            fill.int = t.codes().map_or_else(|| i32::from(t.bytes()[0]), |codes| codes[0]);
            r.consume(2);
        }
        _ if dtype == DType::F32 => fill.float = r.float_or_input("value", 2)?.unwrap_or(0.0),
        _ => {
            let v = r.int_or_input("value", 2)?.unwrap_or(0);
            fill.int = i32::try_from(v).map_err(|_| r.unsupported("value", v, "integers of 32 bits"))?;
        }
    }
    Ok(Arc::new(Pad { mode, pads, dtype, fill }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, b) = (rng.int(3, 9), rng.int(4, 40));
    let of = |mode: &str, pads: &[i64], x: SampleInput| {
        let attrs = Attrs::new().str("mode", mode).ints("pads", pads.iter().copied());
        let attrs = match x.dtype() {
            DType::F32 => attrs.float("value", 1.5),
            _ => attrs.int("value", 1),
        };
        Sample::new(attrs, [x])
    };
    let mut out = vec![
        of("constant", &[2, 0], SampleInput::f32([0])),
        of("constant", &[0, 0, 0, 0], SampleInput::f32([a, b])),
        of("constant", &[-1, 2, 1, -3], SampleInput::f32([a, b])),
        of("constant", &[0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0], SampleInput::f32([2, 1, 3, a, 2, 2])),
        of("constant", &[1, 2, 0, 3], SampleInput::of([a, b], Fill::Ints(-9, 9))),
        of("constant", &[1, 2, 0, 3], SampleInput::of([a, b], Fill::Bools)),
        of("constant", &[], SampleInput::f32([])),
    ];
    for mode in MODES {
        out.push(of(mode, &[3, 2], SampleInput::f32([b])));
        if *mode != "reflect" {
            out.push(of(mode, &[7, 9], SampleInput::f32([3])));
            out.push(of(mode, &[5, -2], SampleInput::f32([4])));
        }
        out.push(of(mode, &[-2, 1], SampleInput::f32([4])));
        out.push(of(mode, &[0, 0, 1, 2, 0, 0, 2, 1], SampleInput::f32([7, a, 4, b])));
        out.push(of(mode, &[0, 1, 0, 2, 0, 2, 0, -1], SampleInput::f32([1, a, 3, b])));
        out.push(of(mode, &[0, 0, 1, 2, 0, 0, 0, 1], SampleInput::f32([2, 8, 3, b])));
    }
    out
}

impl Pad {
    fn before(&self, axis: usize) -> i64 {
        self.pads[axis]
    }

    fn behind(&self, axis: usize) -> i64 {
        self.pads[self.pads.len() / 2 + axis]
    }

    fn changes(&self, axis: usize) -> bool {
        self.before(axis) != 0 || self.behind(axis) != 0
    }

    /// What negative pads leave of an axis of `d`, and is then repeated: the first index and the count.
    fn kept(&self, axis: usize, d: i64) -> (i64, i64) {
        let first = -self.before(axis).min(0);
        (first, d - first + self.behind(axis).min(0))
    }

    /// The index in an axis of `d` that index `i` of the padded axis takes.
    fn source(&self, i: usize, axis: usize, d: usize) -> u32 {
        let before = self.before(axis);
        let (j, d) = (signed(i) - before, signed(d));
        let (first, len) = self.kept(axis, d);
        let at = match self.mode {
            "edge" => first + (j - first).clamp(0, len - 1),
            "wrap" => first + (j - first).rem_euclid(len),
            // `infer` sees to it that one reflection is enough.
            "reflect" => {
                let (m, last) = ((j - first).abs(), len - 1);
                first + if m <= last { m } else { 2 * last - m }
            }
            _ => j,
        };
        if (0..d).contains(&at) { u32::try_from(at).unwrap_or(OUTSIDE) } else { OUTSIDE }
    }

    fn lookup(&self, x: &View, y: &View) -> Lookup {
        let table = |axis: usize| {
            let of = |i| self.source(i, axis, x.shape[axis]);
            self.changes(axis).then(|| (0..y.shape[axis]).map(of).collect())
        };
        let tables: Vec<_> = (0..x.shape.len()).map(table).collect();
        Lookup::new(x, y, &tables, self.fill)
    }
}

impl Op for Pad {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().str("mode", self.mode).ints("pads", self.pads.iter().copied());
        let attrs = attrs.at_place(Place::Input(1));
        match self.dtype {
            DType::F32 => attrs.float("value", self.fill.float),
            _ => attrs.int("value", i64::from(self.fill.int)),
        }
        .at_place(Place::Element(2))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (pads, value and axes are attributes)")?;
        let x = &inputs[0];
        let rank = x.rank();
        let bad =
            |value: String, supported: String| OpError::Attribute { name: "pads".into(), value, supported };
        if self.pads.len() != 2 * rank {
            return Err(bad(format!("{} numbers", self.pads.len()), format!("{} numbers", 2 * rank)));
        }
        if x.dtype != self.dtype {
            return Err(OpError::DType { input: 0, expected: "the type of its value", got: x.dtype });
        }
        let mut out = x.clone();
        for axis in (0..rank).filter(|a| self.changes(*a)) {
            let d = check::fixed(inputs, 0, axis)?;
            let (before, behind) = (self.before(axis), self.behind(axis));
            let small = [before, behind].iter().all(|p| i32::try_from(*p).is_ok());
            let len = small.then(|| usize::try_from(signed(d) + before + behind).ok()).flatten();
            let len = len.ok_or_else(|| {
                bad(format!("{before} and {behind}"), format!("pads that leave an axis of {d} at least 0"))
            })?;
            let (_, kept) = self.kept(axis, signed(d));
            if kept <= 0 && len > 0 && self.mode != "constant" {
                return Err(OpError::shape(0, "elements to repeat", x));
            }
            if self.mode == "reflect" && before.max(behind) > (kept - 1).max(0) {
                let supported = format!("up to {} where {kept} of an axis of {d} are reflected", kept - 1);
                return Err(bad(format!("{before} and {behind}"), supported));
            }
            out.shape[axis] = Dim::Fixed(len);
        }
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let out = self.infer(&[x.ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        let view = |shape: &[usize]| View { dtype: out.dtype, shape: shape.to_vec(), layout: Layout::Linear };
        Ok(vec![moved(cx, &shape, &[x], &self.lookup(&view(x.shape()), &view(&shape)))?])
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        if inputs[0].rank() >= 3 && !self.changes(1) { Layouts::Any } else { Layouts::Linear }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let word = match self.dtype {
            DType::F32 => self.fill.float.to_bits(),
            _ => self.fill.int.cast_unsigned(),
        };
        Ok(self.lookup(&io.inputs[0], &io.outputs[0]).lower(word))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ONNX Runtime 1.31 gives for 0, 1, 2, 3.
    #[test]
    fn negative_pads_crop_before_the_rest_is_repeated() {
        let cases: [(&str, [i64; 2], &[f32]); 9] = [
            ("wrap", [-2, 3], &[2.0, 3.0, 2.0, 3.0, 2.0]),
            ("wrap", [5, -2], &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
            ("wrap", [2, -2], &[0.0, 1.0, 0.0, 1.0]),
            ("edge", [-2, 2], &[2.0, 3.0, 3.0, 3.0]),
            ("edge", [3, -2], &[0.0, 0.0, 0.0, 0.0, 1.0]),
            ("reflect", [-2, 1], &[2.0, 3.0, 2.0]),
            ("reflect", [1, -2], &[1.0, 0.0, 1.0]),
            ("reflect", [3, 3], &[3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0]),
            ("constant", [-2, 1], &[2.0, 3.0, 9.0]),
        ];
        for (mode, pads, want) in cases {
            let fill = FillValue { float: 9.0, int: 0 };
            let pad = Pad { mode, pads: pads.to_vec(), dtype: DType::F32, fill };
            let x = Tensor::from_f32([4], vec![0.0, 1.0, 2.0, 3.0]);
            let y = pad.eval(&Scratch::new(), &[x]).expect("runs").remove(0);
            assert_eq!(y.as_f32(), Some(want), "{mode} {pads:?}");
        }
    }
}
