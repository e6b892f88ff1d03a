//! What another runtime gave, as a folder of tensors.

use super::definitions::Difference;
use super::tensors::{Form, FrameAxis, Layer};
use crate::data::DataError;
use crate::data::dump::{DumpReader, Kind};
use crate::error::Error;
use crate::exec::frames::rows;
use crate::graph::{Graph, Value, ValueId};
use crate::quant::QParams;
use crate::tensor::{DType, Tensor};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How far scales of a dump may be from the model's: other tools write them with six digits or more.
const SCALE_TOLERANCE: f32 = 1e-5;

/// A dump folder whose tensors are those of a graph, by name.
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    reader: DumpReader,
}

impl Dump {
    /// Opens a folder.
    ///
    /// # Errors
    /// As [`DumpReader::open`].
    pub fn open(path: &Path) -> Result<Dump, Error> {
        Ok(Dump { path: path.to_owned(), reader: DumpReader::open(path)? })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.reader.names()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// Whether it has codes of a tensor, of the tensor's type.
    pub(super) fn has_codes_of(&self, value: &Value) -> bool {
        let info = self.reader.info(&value.name);
        info.is_some_and(|i| i.kind == Kind::Codes && i.dtype == value.ty.dtype.name())
    }

    /// How many frames it has of what the graph has, too; all tensors must have as many.
    ///
    /// # Errors
    /// Tensors of different frames.
    pub fn count(&self, graph: &Graph) -> Result<usize, Error> {
        let counted = |name: &str| {
            let v = graph.find_value(name)?;
            let at = FrameAxis::of(graph, &graph.value(v).ty)?;
            Some(at.count(&self.reader.shape(name)?))
        };
        let all: Vec<(usize, &str)> = self.names().filter_map(|n| Some((counted(n)?, n))).collect();
        let (Some(least), Some(most)) = (all.iter().min(), all.iter().max()) else { return Ok(0) };
        if least.0 == most.0 {
            return Ok(least.0);
        }
        let what = format!("{} has {} frames, {} has {}", least.1, least.0, most.1, most.0);
        let what =
            format!("{}: {what}: a dump must hold the same frames of every tensor", self.path.display());
        Err(Error::Usage(what))
    }

    /// Names of the frames, in order.
    pub fn samples(&self, frames: Range<usize>) -> Vec<String> {
        let known = self.reader.samples();
        frames.map(|i| known.get(i).cloned().unwrap_or_else(|| i.to_string())).collect()
    }

    /// Inputs of a graph that it does not have.
    pub fn missing_inputs(&self, graph: &Graph) -> Vec<String> {
        let names = graph.inputs.iter().map(|v| graph.value(*v).name.clone());
        names.filter(|n| !self.has(n)).collect()
    }

    /// The inputs of a graph that gave these frames.
    ///
    /// # Errors
    /// Inputs of another type, and as [`DumpReader::frames`].
    pub fn inputs(&self, graph: &Graph, frames: Range<usize>) -> Result<Vec<Tensor>, Error> {
        let one = |v: &ValueId| {
            let (value, t) = (graph.value(*v), self.frames(graph, *v, frames.clone())?);
            if t.dtype() == value.ty.dtype {
                return Ok(t);
            }
            let (name, got, wants) = (&value.name, t.dtype(), value.ty.dtype);
            let what = format!("input {name} is {got} in the dump, the model takes {wants}");
            let help = "give the inputs by --data or --input";
            Err(Error::from(DataError::new(&self.path, what).help(help)))
        };
        graph.inputs.iter().map(one).collect()
    }

    /// Frames of a tensor of the graph.
    pub(super) fn frames(
        &self,
        graph: &Graph,
        v: ValueId,
        frames: Range<usize>,
    ) -> Result<Tensor, DataError> {
        let value = graph.value(v);
        let name = &value.name;
        let all = self.reader.shape(name).and_then(|s| s.first().copied()).unwrap_or(0);
        match FrameAxis::of(graph, &value.ty) {
            Some(at) if at.axis == 0 => {
                self.reader.frames(name, frames.start * at.rows..frames.end * at.rows)
            }
            // One run gave all frames, which lie behind another axis.
            Some(at) => {
                let t = self.reader.frames(name, 0..all)?;
                let (got, wanted) = (t.shape().len(), value.ty.rank());
                let have = at.count(t.shape());
                if got != wanted || frames.end > have {
                    let what = format!(
                        "frames {frames:?} of the {have} of {name}, along axis {} of {wanted}",
                        at.axis
                    );
                    return Err(DataError::new(&self.path, what));
                }
                Ok(rows(&t, at.axis, frames.start * at.rows, frames.len() * at.rows))
            }
            None => self.reader.frames(name, 0..all),
        }
    }

    /// Tensors that the graph takes from the dump, beside the inputs that it is given, padded as those are.
    pub(super) fn injected(
        &self,
        graph: &Graph,
        names: &[String],
        frames: Range<usize>,
        given: &[Tensor],
    ) -> Result<Vec<Tensor>, DataError> {
        let at = |v: ValueId| FrameAxis::of(graph, &graph.value(v).ty);
        let first = graph.inputs.first().and_then(|v| at(*v)).zip(given.first());
        let padded = first.map_or(frames.len(), |(at, t)| at.count(t.shape()));
        let of = |name: &String| {
            let v = graph.find_value(name)?;
            let t = self.frames(graph, v, frames.clone());
            Some(t.map(|t| at(v).map_or_else(|| t.clone(), |at| at.filled(&t, padded))))
        };
        names.iter().filter_map(of).collect()
    }

    /// Frames of a tensor that is compared, and what their elements are.
    pub(super) fn layer(
        &self,
        graph: &Graph,
        layer: &Layer,
        frames: Range<usize>,
    ) -> Result<(Tensor, Form), DataError> {
        let t = self.frames(graph, layer.value, frames)?;
        let codes = match self.reader.info(&layer.name).map(|i| i.kind) {
            Some(kind) => kind == Kind::Codes,
            None => t.dtype() != DType::F32,
        };
        Ok(match layer.form.params() {
            _ if codes => (t, Form::Codes(None)),
            Some(p) => (t, Form::Quantized(p.clone())),
            None => (t, Form::Exact),
        })
    }

    /// What its index says differently of codes than the graph does.
    pub(super) fn differences(&self, layer: &Layer) -> Vec<Difference> {
        let said = self.reader.info(&layer.name).filter(|i| i.kind == Kind::Codes);
        let (Some(info), Some(p)) = (said, layer.form.params()) else { return Vec::new() };
        let mut out = Vec::new();
        let mut say = |what: &str, a: String, b: String| {
            out.push(Difference { node: layer.name.clone(), what: what.to_owned(), a, b });
        };
        if info.dtype != p.dtype().name() {
            say("dtype", p.dtype().to_string(), info.dtype.clone());
        }
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= SCALE_TOLERANCE * a.abs();
        let scales = p.scales();
        let same = info.scale.len() == scales.len() && scales.iter().zip(&info.scale).all(near);
        if !info.scale.is_empty() && !same {
            say("scale", format!("{scales:?}"), format!("{:?}", info.scale));
        }
        if !info.zero_point.is_empty() && info.zero_point != p.zero_points() {
            say("zero_point", format!("{:?}", QParams::zero_points(p)), format!("{:?}", info.zero_point));
        }
        out
    }
}
