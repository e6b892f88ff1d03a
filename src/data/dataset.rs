//! Samples, their names and labels.

use super::DataError;
use super::config::{Color, Config, DatasetConfig, InputConfig, LabelsConfig, Step, split_key};
use super::npy::{Array, Element};
use super::preprocess::{ChannelTables, Channels, Values};
use super::source::{Source, Stored, is_image};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
struct Input {
    name: Option<String>,
    source: Source,
    steps: Vec<Step>,
}

/// A data set that was opened: which samples there are is known, none was read.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: PathBuf,
    name: Option<String>,
    inputs: Arc<Vec<Input>>,
    /// Position of each sample in its sources.
    rows: Vec<usize>,
    ids: Vec<String>,
    labels: Option<Vec<i64>>,
}

/// What the labels' csv says.
struct Csv {
    total: usize,
    /// Rows that `where` lets through.
    rows: Vec<usize>,
    /// Of all rows.
    files: Option<Vec<String>>,
    /// Of the rows that `where` lets through.
    labels: Option<Vec<i64>>,
}

impl Dataset {
    /// Opens a data set file, or takes as it is: an image folder, an image, a list of images (`.txt`), a `.npy` array,
    /// an `.npz` archive (each array an input of its name; `file.npz:key` for one).
    ///
    /// # Errors
    /// What is wrong with the file; inputs or labels of different counts, with the counts; no sample at all.
    pub fn open(path: &Path) -> Result<Dataset, DataError> {
        let base = path.parent().unwrap_or(Path::new(""));
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if extension == "toml" {
            return Self::from_config(path, base, &Config::read(path)?);
        }
        let absolute = std::path::absolute(path).map_err(|e| DataError::io(path, "cannot resolve", &e))?;
        let (file, key) = split_key(&absolute);
        let mut inputs = Vec::new();
        match (extension.as_str(), key) {
            _ if path.is_dir() => {
                inputs.push(InputConfig { images: Some(absolute), ..InputConfig::plain(None) });
            }
            ("npy", _) => inputs.push(InputConfig { npy: Some(absolute), ..InputConfig::plain(None) }),
            ("txt" | "list" | "lst", _) => {
                inputs.push(InputConfig { list: Some(absolute), ..InputConfig::plain(None) });
            }
            (_, Some(_)) => inputs.push(InputConfig { npz: Some(absolute), ..InputConfig::plain(None) }),
            ("npz", None) => {
                let keys = super::npz_arrays(path)?;
                let single = keys.len() == 1;
                for key in keys {
                    let npz = Some(PathBuf::from(format!("{}:{key}", file.display())));
                    let name = (!single).then_some(key);
                    inputs.push(InputConfig { npz, ..InputConfig::plain(name) });
                }
            }
            _ if is_image(&path.to_string_lossy()) => return Self::single_image(path),
            _ => {
                return Err(DataError::new(path, "not a data set")
                    .help("give a .toml, .npy, .npz, a .txt list of images, or a folder of images"));
            }
        }
        let config = Config { dataset: DatasetConfig::default(), input: inputs };
        Self::from_config(path, base, &config)
    }

    fn single_image(path: &Path) -> Result<Dataset, DataError> {
        if !path.is_file() {
            return Err(DataError::new(path, "no such file"));
        }
        let id = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let root = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let source = Source::Images { root, files: vec![id.clone()], color: Color::default() };
        let inputs = Arc::new(vec![Input { name: None, source, steps: Vec::new() }]);
        Ok(Dataset {
            path: path.to_path_buf(),
            name: None,
            inputs,
            rows: vec![0],
            ids: vec![id],
            labels: None,
        })
    }

    fn from_config(path: &Path, base: &Path, config: &Config) -> Result<Dataset, DataError> {
        let wrong = |what: String| DataError::new(path, what);
        let mut inputs = Vec::new();
        for input in &config.input {
            let source = input.source().map_err(wrong)?;
            let source = Source::open(&source, base, input.color.unwrap_or_default(), input.source_layout)?;
            inputs.push(Input { name: input.name.clone(), source, steps: input.steps.clone() });
        }
        let csv = match &config.dataset.labels {
            Some(LabelsConfig::Csv { csv, file, label }) => {
                Some(read_csv(&base.join(csv), file.as_deref(), label.as_deref(), &config.dataset)?)
            }
            _ => None,
        };
        if let Some(csv) = &csv {
            restrict(path, &mut inputs, csv)?;
        }
        let total = csv.as_ref().map_or_else(|| inputs.first().map_or(0, |i| i.source.len()), |c| c.total);
        if inputs.iter().any(|i| i.source.len() != total) {
            let counts =
                inputs.iter().map(|i| format!("{} has {}", i.source.path().display(), i.source.len()));
            let csv = csv.iter().map(|c| format!("the labels' csv has {}", c.total));
            let all: Vec<_> = counts.chain(csv).collect();
            return Err(wrong(format!("different numbers of samples: {}", all.join(", "))));
        }
        let (picked, labels) = match csv {
            Some(csv) => (csv.rows, csv.labels),
            None => ((0..total).collect(), None),
        };
        let files = inputs.iter().find_map(|i| i.source.files());
        let ids: Vec<String> = match files {
            Some(files) => picked.iter().map(|row| files[*row].clone()).collect(),
            None => picked.iter().map(ToString::to_string).collect(),
        };
        let labels = match &config.dataset.labels {
            Some(LabelsConfig::Npy(npy)) => Some(labels_of_array(&base.join(npy), total, path)?),
            Some(LabelsConfig::Folders) => Some(labels_of_folders(files, path)?),
            _ => labels,
        };
        let name = config.dataset.name.clone();
        let all =
            Dataset { path: path.to_path_buf(), name, inputs: Arc::new(inputs), rows: picked, ids, labels };
        let settings = &config.dataset;
        let keep = (settings.start..all.len())
            .step_by(settings.every.unwrap_or(1))
            .take(settings.limit.unwrap_or(usize::MAX));
        let chosen = all.select(keep);
        if chosen.is_empty() {
            let have =
                if all.is_empty() { String::new() } else { format!(" of the {} there are", all.len()) };
            return Err(wrong(format!("no sample{have} is left: the data set is empty"))
                .help("check where, start and limit"));
        }
        Ok(chosen)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The name given in the file, else the file.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.path.display().to_string())
    }

    /// The file or folder it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of each sample: a file below its folder, a line of the list, or a row number.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Class of each sample, where labels were given.
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// The samples at these positions, in this order. Positions beyond the last are left out.
    pub fn select(&self, positions: impl IntoIterator<Item = usize>) -> Dataset {
        let keep: Vec<usize> = positions.into_iter().filter(|i| *i < self.len()).collect();
        Dataset {
            path: self.path.clone(),
            name: self.name.clone(),
            inputs: Arc::clone(&self.inputs),
            rows: keep.iter().map(|i| self.rows[*i]).collect(),
            ids: keep.iter().map(|i| self.ids[*i].clone()).collect(),
            labels: self.labels.as_ref().map(|l| keep.iter().map(|i| l[*i]).collect()),
        }
    }

    /// The first `n` samples.
    pub fn limit(&self, n: usize) -> Dataset {
        self.select(0..n.min(self.len()))
    }

    /// Samples `index`, `index + of`, `index + 2 of`, ...
    pub fn shard(&self, index: usize, of: usize) -> Dataset {
        self.select((index..self.len()).step_by(of.max(1)))
    }

    /// Prepares the samples for a graph's inputs, matched by name; with one input on each side the data set need not
    /// give a name.
    ///
    /// # Errors
    /// An input without a source or a source without an input; shapes, types or steps that do not fit, with both
    /// shapes.
    pub fn inputs_for(&self, graph: &[(String, TensorType)]) -> Result<BoundDataset, DataError> {
        let wrong = |what: String| DataError::new(&self.path, what);
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

/// Gives sources made of files the csv's files, in its order. A file that is not there is met when it is read.
fn restrict(path: &Path, inputs: &mut [Input], csv: &Csv) -> Result<(), DataError> {
    for input in inputs.iter_mut().filter(|i| i.source.files().is_some()) {
        let Some(files) = &csv.files else {
            return Err(DataError::new(path, "labels = { csv = .. } has no key file")
                .help("name the column that holds the files' names"));
        };
        input.source.set_files(files);
    }
    Ok(())
}

fn read_csv(
    path: &Path,
    file: Option<&str>,
    label: Option<&str>,
    settings: &DatasetConfig,
) -> Result<Csv, DataError> {
    let failed = |e: csv::Error| DataError::new(path, format!("cannot read the labels: {e}"));
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let header = reader.headers().map_err(failed)?.clone();
    let column = |name: &str| {
        header.iter().position(|h| h.trim() == name).ok_or_else(|| {
            let columns: Vec<_> = header.iter().collect();
            DataError::new(path, format!("no column {name:?}; there are {}", columns.join(", ")))
        })
    };
    let file = file.map(column).transpose()?;
    let label = label.map(column).transpose()?;
    let filter: Vec<_> = settings
        .filter
        .iter()
        .map(|(name, cell)| Ok((column(name)?, cell)))
        .collect::<Result<_, DataError>>()?;
    let mut out = Csv {
        total: 0,
        rows: Vec::new(),
        files: file.map(|_| Vec::new()),
        labels: label.map(|_| Vec::new()),
    };
    for row in reader.records() {
        let row = row.map_err(failed)?;
        let cell = |at: usize| row.get(at).unwrap_or_default();
        out.total += 1;
        if let (Some(files), Some(at)) = (&mut out.files, file) {
            files.push(cell(at).to_owned());
        }
        if !filter.iter().all(|(at, want)| want.is(cell(*at))) {
            continue;
        }
        out.rows.push(out.total - 1);
        if let (Some(labels), Some(at)) = (&mut out.labels, label) {
            let line = row.position().map_or(0, csv::Position::line);
            labels.push(cell(at).trim().parse().map_err(|_| {
                DataError::new(path, format!("line {line}: label {:?} is not an integer", cell(at)))
            })?);
        }
    }
    Ok(out)
}

fn labels_of_array(file: &Path, samples: usize, set: &Path) -> Result<Vec<i64>, DataError> {
    let (path, key) = split_key(file);
    let array = match key {
        None => Array::open(&path)?,
        Some(key) => Array::open_npz(&path, &key)?,
    };
    if array.rows() != samples || array.shape().iter().skip(1).any(|d| *d != 1) || array.shape().is_empty() {
        return Err(DataError::new(
            set,
            format!("{} labels of shape {:?} for {samples} samples", file.display(), array.shape()),
        )
        .help("give one integer per sample"));
    }
    array.read_integers()
}

fn labels_of_folders(files: Option<&[String]>, set: &Path) -> Result<Vec<i64>, DataError> {
    let Some(files) = files else {
        return Err(DataError::new(set, "labels = \"folders\", but no input is an image folder"));
    };
    let class = |f: &String| {
        f.split_once('/').map(|(folder, _)| folder.to_owned()).ok_or_else(|| {
            DataError::new(set, format!("labels = \"folders\", but {f} is in none"))
                .help("put each class in a folder of its own")
        })
    };
    let of: Vec<String> = files.iter().map(class).collect::<Result<_, _>>()?;
    let classes: BTreeSet<&String> = of.iter().collect();
    let number: std::collections::HashMap<&String, i64> = classes.into_iter().zip(0..).collect();
    Ok(of.iter().map(|c| number[c]).collect())
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
        let stored = input.source.sample().map_or(DType::U8, |(_, e)| e.dtype());
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

    fn load(&self, source: &Source, row: usize) -> Result<Tensor, String> {
        let mut stored = source.read(row)?;
        if !self.geometry.is_empty()
            && let Stored::Elements(t) = &stored
        {
            let shape = squeezed(t.shape(), self.values.shape.len());
            if let ([h, w, c], Some(pixels)) = (shape, t.as_u8()) {
                let pixels = pixels.to_vec();
                stored = Stored::Picture(super::picture::Picture { h: *h, w: *w, c: *c, pixels });
            }
        }
        if let Stored::Picture(mut p) = stored {
            for step in &self.geometry {
                p = p.apply(step)?;
            }
            stored = Stored::Picture(p);
        }
        let (shape, data) = stored.into_parts();
        self.values.finish(squeezed(&shape, self.values.shape.len()), &data)
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
    /// The reason why it cannot be read.
    pub fn load(&self, position: usize) -> Result<Vec<Tensor>, String> {
        let row = self.dataset.rows[position];
        let sources = &self.dataset.inputs;
        self.inputs.iter().map(|input| input.load(&sources[input.at].source, row)).collect()
    }
}
