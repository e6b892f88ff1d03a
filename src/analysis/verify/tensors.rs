//! Which tensors of a graph are compared, and how their elements are.

use super::{Compared, First};
use crate::exec::frames::{batch_axis, concatenate, rows};
use crate::graph::{CodeOutput, Graph, Stage, ValueId};
use crate::quant::QParams;
use crate::tensor::{Tensor, TensorType};

/// What the elements of a tensor are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// Codes of these parameters; `None` for sums.
    Codes(Option<QParams>),
    /// f32 that must be equal.
    Exact,
    /// f32 that a quantizer gave.
    Quantized(QParams),
}

impl Form {
    /// What its codes stand for.
    pub(super) fn params(&self) -> Option<&QParams> {
        match self {
            Form::Codes(p) => p.as_ref(),
            Form::Quantized(p) => Some(p),
            Form::Exact => None,
        }
    }

    /// Whether codes of both mean the same.
    pub(super) fn same_codes(&self, other: &Form) -> bool {
        match (self, other) {
            (Form::Codes(Some(p)), Form::Codes(Some(q))) => p.same_codes(q),
            _ => false,
        }
    }
}

/// A tensor that is compared.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) value: ValueId,
    pub(super) form: Form,
}

/// The tensors of a graph that are compared.
pub(super) fn layers(graph: &Graph) -> Vec<Layer> {
    let params = graph.code_params();
    let mut out = Vec::new();
    for node in graph.nodes() {
        if let Some(q) = node.quantizer() {
            let x = graph.value(node.inputs[0]);
            let fits = x.constant.is_none() && q.quantizes() && q.spec.owner.is_none();
            if let Some(p) = q.params.clone().filter(|p| fits && p.scales().len() == 1) {
                // As `convert` names them, where the tensor keeps its own name.
                let input = graph.inputs.contains(&node.inputs[0]);
                let name = if input { format!("{}/codes", x.name) } else { x.name.clone() };
                out.push(Layer { name, value: node.outputs[0], form: Form::Quantized(p) });
            }
            continue;
        }
        for v in &node.outputs {
            let value = graph.value(*v);
            let form = match (node.op.codes(), params.get(v)) {
                (Some(CodeOutput::Real), _) => Form::Exact,
                (Some(CodeOutput::Sums), _) => Form::Codes(None),
                (_, Some(p)) => Form::Codes(Some(p.clone())),
                _ => continue,
            };
            out.push(Layer { name: value.name.clone(), value: *v, form });
        }
    }
    out
}

/// Whether a graph can be compared at all.
pub fn has_codes(graph: &Graph) -> bool {
    graph.stage != Stage::Float && !layers(graph).is_empty()
}

/// Where the frames of a tensor lie: along which axis, and how many rows each one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameAxis {
    pub(super) axis: usize,
    pub(super) rows: usize,
}

impl FrameAxis {
    /// `None` for a tensor that is the same for all frames. A graph for one batch has its frames along the first axis,
    /// where that can be divided among them.
    pub(super) fn of(graph: &Graph, ty: &TensorType) -> Option<FrameAxis> {
        if graph.is_batched() {
            return batch_axis(ty).map(|(axis, rows)| FrameAxis { axis, rows });
        }
        let frames = graph.value(*graph.inputs.first()?).ty.shape.first()?.fixed()?;
        let rows = ty.shape.first()?.fixed()?;
        (rows > 0 && frames > 0 && rows % frames == 0).then(|| FrameAxis { axis: 0, rows: rows / frames })
    }

    /// How many frames a tensor has.
    pub(super) fn count(self, shape: &[usize]) -> usize {
        shape.get(self.axis).map_or(0, |n| n / self.rows)
    }

    /// The first frames of a tensor, where it has more.
    pub(super) fn first(self, t: &Tensor, frames: usize) -> Tensor {
        let wanted = frames * self.rows;
        if t.shape()[self.axis] <= wanted { t.clone() } else { rows(t, self.axis, 0, wanted) }
    }

    /// All frames of a tensor and its first one again until there are so many.
    pub(super) fn filled(self, t: &Tensor, frames: usize) -> Tensor {
        let have = self.count(t.shape());
        if have == 0 || have >= frames {
            return t.clone();
        }
        let first = rows(t, self.axis, 0, self.rows);
        let parts: Vec<Tensor> =
            std::iter::once(t.clone()).chain(std::iter::repeat_n(first, frames - have)).collect();
        concatenate(&parts, self.axis)
    }

    /// The frame of an element, and the element's index within it.
    fn place(self, shape: &[usize], element: usize) -> (usize, usize) {
        let inner: usize = shape[self.axis + 1..].iter().product::<usize>() * self.rows;
        let all = self.count(shape);
        let (run, within) = (element / inner.max(1), element % inner.max(1));
        (run % all.max(1), run / all.max(1) * inner + within)
    }
}

/// Codes, or floats that must be equal, as f64: exact for both.
pub(super) fn numbers(t: &Tensor, form: &Form) -> Vec<f64> {
    match form {
        Form::Quantized(p) => {
            let step = p.step(0);
            let exact = |x: &f32| f64::from(step.quantize_exact(f64::from(*x)));
            t.as_f32().unwrap_or(&[]).iter().map(exact).collect()
        }
        _ => (0..t.len()).map(|i| t.number(i)).collect(),
    }
}

/// Numbers of some frames, and where each frame's lie.
pub(super) struct Numbers<'a> {
    pub(super) ids: &'a [String],
    pub(super) shape: &'a [usize],
    pub(super) frames: Option<FrameAxis>,
}

impl Numbers<'_> {
    /// Counts where `a` and `b` differ.
    pub(super) fn compare(&self, into: &mut Compared, a: &[f64], b: &[f64], same: impl Fn(f64, f64) -> bool) {
        into.elements += a.len() as u64;
        if a.len() != b.len() {
            // Another shape: nothing of it is the same.
            into.mismatches += a.len().max(1) as u64;
            into.max_abs = f64::INFINITY;
            return;
        }
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            let off = (x - y).abs();
            if off > into.max_abs || off.is_nan() {
                into.max_abs = off;
            }
            if off > 0.0 && *x != 0.0 {
                into.max_rel = into.max_rel.max(off / x.abs());
            }
            if !same(*x, *y) {
                into.mismatches += 1;
                if into.first.is_none() {
                    let (frame, index) = self.frames.map_or((0, i), |f| f.place(self.shape, i));
                    let sample = self.ids.get(frame).filter(|_| self.frames.is_some());
                    let sample = sample.cloned().unwrap_or_default();
                    into.first = Some(First { sample, index, a: *x, b: *y });
                }
            }
        }
    }
}
