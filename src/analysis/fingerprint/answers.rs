//! What a black box answered: tensors of a folder or an npz, brought to the names, layout and types of a graph.

use super::form::Form;
use super::names::Names;
use super::source::Source;
use crate::data::DataError;
use crate::error::Error;
use crate::graph::{Graph, ValueId};
use crate::quant::{Division, Rounding, Step};
use crate::tensor::{DType, Dim, Tensor, TensorType, strides};
use std::path::Path;

/// How the axes of tensors with four or so of them are laid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// As the shapes say; where they allow both, as the other tensors have it.
    #[default]
    Auto,
    /// As the graph has it.
    ChannelsFirst,
    /// Axis 1 of the graph is the last one.
    ChannelsLast,
}

/// How answers are read.
#[derive(Clone, Debug, Default)]
pub struct AnswerOptions {
    /// Names of theirs, and of ours for them.
    pub map: Vec<(String, String)>,
    /// Layout of their tensors.
    pub layout: Layout,
    /// Frames to read, at most.
    pub limit: Option<usize>,
}

/// A tensor of theirs.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its name there.
    pub key: String,
    /// What it is of the graph.
    pub value: ValueId,
    /// The name of that.
    pub name: String,
    /// Its elements, in the graph's layout and type.
    pub tensor: Tensor,
    /// Shape in the file.
    pub(super) shape: Vec<usize>,
    /// Whether channels are last there.
    pub(super) last: bool,
}

/// A tensor of theirs that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name there.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Tensors of frames.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Those that are tensors of the graph.
    pub found: Vec<Answer>,
    /// Others.
    pub ignored: Vec<Ignored>,
    /// Names of the frames.
    pub samples: Vec<String>,
    /// How many there are.
    pub frames: usize,
}

impl Answer {
    /// Where element `i` of the tensor is in the file.
    pub fn index(&self, i: usize) -> Vec<usize> {
        let mut at = unravel(i, self.tensor.shape());
        let mut shape = self.tensor.shape().to_vec();
        if self.last {
            at[1..].rotate_left(1);
            shape[1..].rotate_left(1);
        }
        let flat = at.iter().zip(strides(&shape)).map(|(i, s)| i * s).sum();
        unravel(flat, &self.shape)
    }
}

fn unravel(i: usize, shape: &[usize]) -> Vec<usize> {
    strides(shape).iter().zip(shape).map(|(s, d)| i / s % d).collect()
}

/// What a tensor of theirs was found to be.
pub(super) struct Found {
    pub(super) key: String,
    pub(super) value: ValueId,
    exact: bool,
    pub(super) shape: Vec<usize>,
    /// Frames, and shapes of the graph's layout, where the axes are laid as ours, and where channels are last.
    first: Option<(usize, Vec<usize>)>,
    last: Option<(usize, Vec<usize>)>,
}

/// Frames of a shape that fits a type, axes of length 1 aside, and the shape as ours.
fn fits(shape: &[usize], ty: &TensorType, last: bool) -> Option<(usize, Vec<usize>)> {
    let mut dims = ty.shape.clone();
    if last {
        if dims.len() < 3 {
            return None;
        }
        dims[1..].rotate_left(1);
    }
    let frames = match (dims.first(), shape.first()) {
        (Some(Dim::Batch(k)), Some(have)) if *k > 0 && have.is_multiple_of(*k) => have / k,
        (Some(Dim::Fixed(_)) | None, _) => 1,
        _ => return None,
    };
    let want: Vec<usize> = dims.iter().map(|d| d.at(frames)).collect::<Option<_>>()?;
    let long = |s: &[usize]| s.iter().copied().skip(1).filter(|d| *d != 1).collect::<Vec<_>>();
    if shape.first() != want.first() || long(shape) != long(&want) {
        return None;
    }
    let ours = ty.shape.iter().map(|d| d.at(frames)).collect::<Option<_>>()?;
    Some((frames, ours))
}

impl Answers {
    /// Reads a folder of npy files or an npz.
    ///
    /// # Errors
    /// What cannot be read; tensors whose names are those of the graph and whose shapes or codes do not fit; tensors that do
    /// not have the same frames; a map of names that are not there.
    pub fn read(path: &Path, graph: &Graph, options: &AnswerOptions) -> Result<Answers, Error> {
        let source = Source::open(path)?;
        let wrong = |what: String| Error::Data(DataError::new(path, what));
        let keys = source.names();
        if let Some((theirs, _)) = options.map.iter().find(|(theirs, _)| !keys.contains(theirs)) {
            return Err(wrong(format!(
                "--map {theirs}: there is no such tensor; there are {}",
                keys.join(", ")
            )));
        }
        let names = Names::of(graph);
        let mut answers = Answers::default();
        let mut found: Vec<Found> = Vec::new();
        for key in keys {
            let reason = match names.find(&key, &options.map) {
                Err(reason) if options.map.iter().any(|(theirs, _)| *theirs == key) => {
                    return Err(wrong(format!("--map {key}: {reason}")));
                }
                Err(reason) => reason,
                Ok((value, exact)) => {
                    let (shape, ty) = (source.shape(&key), &graph.value(value).ty);
                    let [first, last] = [false, true].map(|last| fits(&shape, ty, last));
                    let fit = match options.layout {
                        Layout::Auto => first.is_some() || last.is_some(),
                        Layout::ChannelsFirst => first.is_some(),
                        Layout::ChannelsLast => last.is_some() || (first.is_some() && shape.len() < 3),
                    };
                    let other = found.iter().position(|f| f.value == value);
                    let name = &graph.value(value).name;
                    match other {
                        _ if !fit && exact => {
                            return Err(wrong(format!("{key} has shape {shape:?}, {name} is {ty}")));
                        }
                        _ if !fit => format!("its shape {shape:?} is not that of {name}, which is {ty}"),
                        Some(i) if exact && !found[i].exact => {
                            let old = std::mem::replace(
                                &mut found[i],
                                Found { key, value, exact, shape, first, last },
                            );
                            answers
                                .ignored
                                .push(Ignored { name: old.key, reason: format!("another is {name}, too") });
                            continue;
                        }
                        Some(i) => format!("{} is {name}, too", found[i].key),
                        None => {
                            found.push(Found { key, value, exact, shape, first, last });
                            continue;
                        }
                    }
                }
            };
            answers.ignored.push(Ignored { name: key, reason });
        }
        let nhwc = options.layout == Layout::ChannelsLast
            || (options.layout == Layout::Auto && found.iter().any(|f| f.first.is_none()));
        let params = graph.code_params();
        let mut by: Option<(usize, String)> = None;
        for f in found {
            let last =
                f.last.is_some() && (f.first.is_none() || (nhwc && options.layout != Layout::ChannelsFirst));
            let fit = if last { f.last.clone() } else { f.first.clone() };
            let Some((frames, ours)) = fit else { continue };
            match &by {
                Some((n, other)) if *n != frames => {
                    let what = format!("{other} has {n} frames, {} has {frames}", f.key);
                    return Err(wrong(format!("{what}: all tensors must be of the same frames")));
                }
                _ => by = Some((frames, f.key.clone())),
            }
            let (name, exact) = (f.key.clone(), f.exact);
            let form = Form { graph, params: &params };
            match form.answer(&source, f, (frames, ours), last, options.limit)? {
                Ok(answer) => answers.found.push(answer),
                Err(reason) if exact => return Err(wrong(format!("{name}: {reason}"))),
                Err(reason) => answers.ignored.push(Ignored { name, reason }),
            }
        }
        let frames = by.map_or(0, |(n, _)| n);
        answers.frames = options.limit.unwrap_or(frames).min(frames);
        answers.samples = source.samples();
        if answers.samples.len() != frames {
            answers.samples = (0..frames).map(|i| i.to_string()).collect();
        }
        answers.samples.truncate(answers.frames);
        Ok(answers)
    }
}

impl Answers {
    /// The same with the inputs of these, or of tensors in the graph's order, in place of its own.
    ///
    /// # Errors
    /// Inputs of other frames.
    pub fn with_inputs(mut self, graph: &Graph, inputs: Answers) -> Result<Answers, Error> {
        let is_input = |v: ValueId| {
            let made = graph.nodes().iter().find(|n| n.outputs.contains(&v));
            made.is_none_or(|n| n.op.def().name == "Quantize" && graph.inputs.contains(&n.inputs[0]))
        };
        let theirs = inputs.found.into_iter().filter(|a| is_input(a.value));
        let new: Vec<Answer> = theirs.filter(|a| !self.found.iter().any(|b| b.value == a.value)).collect();
        if new.is_empty() {
            return Ok(self);
        }
        if self.found.is_empty() {
            self.frames = inputs.frames;
        }
        if inputs.frames != self.frames {
            return Err(Error::Usage(format!(
                "the inputs have {} frames, the answers {}; --limit takes the first ones of both",
                inputs.frames, self.frames
            )));
        }
        self.samples = inputs.samples;
        self.found.extend(new);
        Ok(self)
    }

    /// Inputs of a graph as answers.
    pub fn of_inputs(graph: &Graph, inputs: Vec<Tensor>, samples: Vec<String>) -> Answers {
        let each = graph.inputs.iter().zip(inputs).map(|(v, tensor)| {
            let name = graph.value(*v).name.clone();
            Answer { key: name.clone(), value: *v, name, shape: tensor.shape().to_vec(), last: false, tensor }
        });
        let frames = samples.len();
        Answers { found: each.collect(), ignored: Vec::new(), samples, frames }
    }

    /// Elements of f32 inputs that quantizers of other roundings and divisions would make other codes of, with the name of
    /// the input; none where codes were given.
    pub fn ties(&self, graph: &Graph) -> Option<(String, usize)> {
        let quantizers = graph.nodes().iter().filter(|n| n.op.def().name == "Quantize");
        for node in quantizers {
            let (x, codes) = (node.inputs[0], node.outputs[0]);
            let given = self.found.iter().find(|a| a.value == x && a.tensor.dtype() == DType::F32);
            let params = node.op.codes().and_then(|c| c.params().cloned()).filter(|p| p.scales().len() == 1);
            let (Some(given), Some(params)) = (given, params) else { continue };
            if self.found.iter().any(|a| a.value == codes) {
                continue;
            }
            let steps: Vec<Step> = Rounding::ALL
                .iter()
                .flat_map(|r| Division::ALL.iter().map(|d| params.clone().rounded(*r).divided(*d).step(0)))
                .collect();
            let open = |x: &&f32| steps.iter().any(|s| s.quantize(**x) != steps[0].quantize(**x));
            let count = given.tensor.f32s().iter().filter(open).count();
            if count > 0 {
                return Some((given.name.clone(), count));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fit_in_either_layout() {
        let ty = TensorType::new(DType::I8, [Dim::Batch(1), Dim::Fixed(3), Dim::Fixed(4), Dim::Fixed(5)]);
        assert_eq!(fits(&[2, 3, 4, 5], &ty, false), Some((2, vec![2, 3, 4, 5])));
        assert_eq!(fits(&[2, 4, 5, 3], &ty, true), Some((2, vec![2, 3, 4, 5])));
        assert_eq!(fits(&[2, 4, 5, 3], &ty, false), None);
        assert_eq!(fits(&[2, 3, 4], &ty, false), None);
        let flat = TensorType::new(DType::I8, [Dim::Batch(1), Dim::Fixed(3), Dim::Fixed(1), Dim::Fixed(1)]);
        assert_eq!(
            fits(&[7, 3], &flat, false),
            Some((7, vec![7, 3, 1, 1])),
            "axes of length 1 are left out at will"
        );
    }

    #[test]
    fn elements_are_named_as_they_lie_in_the_file() {
        let answer = |shape: Vec<usize>, last| Answer {
            key: String::new(),
            value: ValueId(0),
            name: String::new(),
            tensor: Tensor::zeros(DType::I8, [2, 3, 4, 5]),
            shape,
            last,
        };
        // Frame 1, channel 2, row 3, column 4.
        assert_eq!(answer(vec![2, 3, 4, 5], false).index(119), [1, 2, 3, 4]);
        assert_eq!(answer(vec![2, 4, 5, 3], true).index(119), [1, 3, 4, 2]);
        assert_eq!(answer(vec![2, 4, 5, 3], true).index(1), [0, 0, 1, 0]);
    }
}
