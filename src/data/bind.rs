//! A data set fitted to a graph's inputs.

use super::DataError;
use super::config::Step;
use super::dataset::{Dataset, Input};
use super::element::Element;
use super::picture::Picture;
use super::preprocess::{ChannelTables, Channels, Values};
use super::source::{Source, Stored};
use crate::tensor::{DType, Dim, Tensor, TensorType};

impl Dataset {
    /// Prepares the samples for a graph's inputs, matched by name; with one input on each side the data set need not
    /// give a name.
    ///
    /// # Errors
    /// An input without a source or a source without an input; shapes, types or steps that do not fit, with both
    /// shapes.
    pub fn inputs_for(&self, graph: &[(String, TensorType)]) -> Result<BoundDataset, DataError> {
        let wrong = |what: String| DataError::new(self.path(), what);
        let unnamed = matches!((graph, self.inputs.as_slice()), ([_], [Input { name: None, .. }]));
        let names = |all: Vec<&str>| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        let given =
            || names(self.inputs.iter().map(|i| i.name.as_deref().unwrap_or("one without a name")).collect());
        let asked = || names(graph.iter().map(|(n, _)| n.as_str()).collect());
        let mut bound = Vec::new();
        let mut batch = None;
        for (name, ty) in graph {
            let at = self.inputs.iter().position(|i| unnamed || i.name.as_ref() == Some(name));
            let Some(at) = at else {
                return Err(wrong(format!(
                    "no [[input]] for the graph's input {name:?}; the data set gives {}, the graph takes {}",
                    given(),
                    asked()
                )));
            };
            let (frames, input) = BoundInput::new(&self.inputs[at], at, name, ty)
                .map_err(|e| wrong(format!("input {name}: {e}")))?;
            match (batch, frames) {
                (Some(a), Some(b)) if a != b => {
                    return Err(wrong(format!(
                        "the graph's inputs have different fixed batches, {a} and {b}"
                    )));
                }
                _ => batch = batch.or(frames),
            }
            bound.push(input);
        }
        let unused = (0..self.inputs.len()).find(|at| !bound.iter().any(|b| b.at == *at));
        if let Some(name) = unused.map(|at| self.inputs[at].name.as_deref().unwrap_or_default()) {
            return Err(wrong(format!("[[input]] {name:?} is none of the graph's; it takes {}", asked())));
        }
        Ok(BoundDataset { dataset: self.clone(), inputs: bound, batch })
    }
}

/// One graph input's way from its source.
#[derive(Clone, Debug)]
pub struct BoundInput {
    at: usize,
    name: String,
    geometry: Vec<Step>,
    values: Values,
}

impl BoundInput {
    /// The input, and the graph's batch where it is fixed.
    fn new(
        input: &Input,
        at: usize,
        name: &str,
        ty: &TensorType,
    ) -> Result<(Option<usize>, BoundInput), String> {
        let (batch, shape) = match ty.shape.split_first() {
            None => return Err(format!("{ty} has no axis 0 to hold the batch")),
            Some((Dim::Batch(1), rest)) => (None, rest),
            Some((Dim::Fixed(b), rest)) if *b > 0 => (Some(*b), rest),
            Some((first, _)) => {
                return Err(format!("{ty}: axis 0 is {first}; it must be N or a fixed batch"));
            }
        };
        let shape: Option<Vec<usize>> = shape.iter().map(|d| d.fixed()).collect();
        let shape = shape.ok_or_else(|| format!("{ty}: an axis other than 0 depends on the batch"))?;
        let (geometry, values): (Vec<_>, Vec<_>) = input.steps.iter().cloned().partition(Step::is_geometric);
        let (channels, declared) = input.source.channels();
        let asked = values.iter().find_map(|s| if let Step::Dtype(t) = s { Some(*t) } else { None });
        let steps: Vec<Step> = values.into_iter().filter(|s| !matches!(s, Step::Dtype(_))).collect();
        let stored = match input.source.sample() {
            None => DType::U8,
            // What is read as i32 may be kept as what it is.
            Some((_, Element::I16)) if ty.dtype == DType::I16 && steps.is_empty() => DType::I16,
            Some((_, Element::U16)) if ty.dtype == DType::U16 && steps.is_empty() => DType::U16,
            Some((_, e)) => e.dtype(),
        };
        check_dtype(stored, !steps.is_empty(), asked, ty.dtype)?;
        let mut values = Values { steps, channels, declared, dtype: ty.dtype, shape, tables: None };
        if let Some((sample, element)) = input.source.sample() {
            let sample = squeezed(sample, values.shape.len());
            if !geometry.is_empty()
                && (element != Element::U8 || channels != Channels::Last || sample.len() != 3)
            {
                return Err(format!(
                    "resize and crop work on images: u8 samples [h, w, c] with source_layout = \"nhwc\", not on {} {sample:?}",
                    element.dtype()
                ));
            }
            let end = final_size(&geometry).map(|[h, w]| vec![h, w, sample[2]]);
            if geometry.is_empty() || end.is_some() {
                let sample = end.unwrap_or_else(|| sample.to_vec());
                values.arrange(&sample)?;
                values.check_channels(&sample)?;
            }
        } else if let (Some([h, w]), Source::Images { color, .. }) = (final_size(&geometry), &input.source) {
            let sample = [h, w, color.channels()];
            values.arrange(&sample)?;
            values.check_channels(&sample)?;
        }
        if stored == DType::U8 && !values.steps.is_empty() {
            let c = match (&input.source, input.source.sample()) {
                (Source::Images { color, .. }, _) => color.channels(),
                (_, Some((sample, _))) => values.channel_count(squeezed(sample, values.shape.len())),
                _ => 1,
            };
            let longest = values.steps.iter().map(|s| match s {
                Step::Mean(v) | Step::Std(v) | Step::Scale(v) => v.len(),
                _ => 1,
            });
            if longest.max().is_some_and(|n| n != 1 && n != c) {
                values.check_channels(&[c; 3])?;
            }
            // An array's "channels" are whatever its first axis counts; a table for each is worth it for few only.
            if c <= 64 {
                values.tables = Some(ChannelTables::new(&values.steps, c));
            }
        }
        Ok((batch, BoundInput { at, name: name.to_owned(), geometry, values }))
    }

    /// The graph input's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The graph input's type without the batch axis.
    pub fn sample_type(&self) -> TensorType {
        TensorType::new(self.values.dtype, self.values.shape.iter().copied())
    }

    /// What the value steps make of 8-bit codes, where the source holds such and there are steps.
    pub fn tables(&self) -> Option<&ChannelTables> {
        self.values.tables.as_ref()
    }

    fn load(&self, source: &Source, row: usize) -> Result<Tensor, Unread> {
        let mut stored = source.read(row)?;
        if !self.geometry.is_empty()
            && let Stored::Elements(t) = &stored
        {
            let shape = squeezed(t.shape(), self.values.shape.len());
            if let ([h, w, c], Some(pixels)) = (shape, t.as_u8()) {
                let pixels = pixels.to_vec();
                stored = Stored::Picture(Picture { h: *h, w: *w, c: *c, pixels });
            }
        }
        if let Stored::Picture(mut p) = stored {
            for step in &self.geometry {
                p = p.apply(step)?;
            }
            stored = Stored::Picture(p);
        }
        let (shape, data) = stored.into_parts();
        Ok(self.values.finish(squeezed(&shape, self.values.shape.len()), &data)?)
    }
}

/// A sample's shape without the leading 1 that a batch of one may have left.
fn squeezed(shape: &[usize], rank: usize) -> &[usize] {
    match shape {
        [1, rest @ ..] if rest.len() == rank => rest,
        all => all,
    }
}

/// Height and width after the steps, where that does not depend on the picture.
fn final_size(steps: &[Step]) -> Option<[usize; 2]> {
    steps.iter().fold(None, |size, step| match step {
        Step::Resize(size, _) | Step::CenterCrop(size) => Some(*size),
        Step::Crop([_, _, h, w]) => Some([*h, *w]),
        Step::ResizeShorter(..) => None,
        _ => size,
    })
}

fn check_dtype(stored: DType, computes: bool, asked: Option<DType>, graph: DType) -> Result<(), String> {
    if let Some(asked) = asked.filter(|t| *t != graph) {
        return Err(format!("the steps give {asked}, the graph takes {graph}"));
    }
    let have = if computes { DType::F32 } else { stored };
    let widens =
        have == graph || matches!((have, graph), (DType::U8 | DType::I8, DType::I32) | (_, DType::F32));
    if graph == DType::Bool && have != DType::Bool {
        return Err(format!("the samples are {have}, the graph takes bool"));
    }
    if !widens && asked.is_none() {
        return Err(format!(
            "the samples are {have}, the graph takes {graph}; a last step {{ dtype = \"{graph}\" }} rounds and saturates"
        ));
    }
    Ok(())
}

/// Why a sample cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The sample is at fault; the others may be fine.
    #[error("{0}")]
    Sample(String),
    /// The file that holds all samples is at fault.
    #[error(transparent)]
    Source(#[from] DataError),
}

impl From<String> for Unread {
    fn from(reason: String) -> Unread {
        Unread::Sample(reason)
    }
}

/// A data set whose samples fit a graph's inputs.
#[derive(Clone, Debug)]
pub struct BoundDataset {
    dataset: Dataset,
    inputs: Vec<BoundInput>,
    batch: Option<usize>,
}

impl BoundDataset {
    /// The samples.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The inputs in the graph's order.
    pub fn inputs(&self) -> &[BoundInput] {
        &self.inputs
    }

    /// The only batch the graph takes, where it takes only one.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.batch
    }

    /// Reads and prepares one sample: a tensor for each input, without the batch axis.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load(&self, position: usize) -> Result<Vec<Tensor>, Unread> {
        let row = self.dataset.rows.get(position);
        let sources = &self.dataset.inputs;
        self.inputs.iter().map(|input| input.load(&sources[input.at].source, row)).collect()
    }
}
