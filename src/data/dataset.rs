//! Samples, their names and labels.

use super::DataError;
use super::array::Array;
use super::config::{Color, Config, DatasetConfig, InputConfig, LabelsConfig, Step, split_key};
use super::selection::{Labels, Rows};
use super::shards::Shard;
use super::source::{Source, is_image};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Input {
    pub name: Option<String>,
    pub source: Source,
    pub steps: Vec<Step>,
}

/// A data set that was opened: which samples there are is known, none was read.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: PathBuf,
    name: Option<String>,
    pub(super) inputs: Arc<Vec<Input>>,
    /// Position of each sample in its sources.
    pub(super) rows: Rows,
    labels: Option<Labels>,
    notes: Vec<String>,
}

/// What the labels' csv says.
struct Csv {
    total: usize,
    /// Rows that `where` lets through.
    rows: Vec<usize>,
    /// Of all rows.
    files: Option<Vec<String>>,
    /// Line of each row.
    lines: Vec<u64>,
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
        let source = Source::Images { root, files: vec![id], color: Color::default() };
        let inputs = Arc::new(vec![Input { name: None, source, steps: Vec::new() }]);
        Ok(Dataset {
            path: path.to_path_buf(),
            name: None,
            inputs,
            rows: Rows::even(1, 0, 1, 1),
            labels: None,
            notes: Vec::new(),
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
        let notes = csv.as_ref().map_or(Ok(Vec::new()), |csv| restrict(path, &mut inputs, csv))?;
        let total = csv.as_ref().map_or_else(|| inputs.first().map_or(0, |i| i.source.len()), |c| c.total);
        if inputs.iter().any(|i| i.source.len() != total) {
            let counts =
                inputs.iter().map(|i| format!("{} has {}", i.source.path().display(), i.source.len()));
            let csv = csv.iter().map(|c| format!("the labels' csv has {}", c.total));
            let all: Vec<_> = counts.chain(csv).collect();
            return Err(wrong(format!("different numbers of samples: {}", all.join(", "))));
        }
        let settings = &config.dataset;
        let count = csv.as_ref().map_or(total, |c| c.rows.len());
        let limit = settings.limit.unwrap_or(usize::MAX);
        let keep = Rows::even(count, settings.start, settings.every.unwrap_or(1), limit);
        if keep.len() == 0 {
            let have = if count == 0 { String::new() } else { format!(" of the {count} there are") };
            return Err(wrong(format!("no sample{have} is left: the data set is empty"))
                .help("check where, start and limit"));
        }
        let files = inputs.iter().find_map(|i| i.source.files());
        let (rows, labels) = match csv {
            // It has labels for the rows that `where` lets through.
            Some(csv) => (Rows::List(csv.rows).select(&keep), csv.labels.map(Labels::Listed)),
            None => (keep.clone(), None),
        };
        let labels = match &settings.labels {
            Some(LabelsConfig::Npy(npy)) => Some(labels_of_array(&base.join(npy), total, path)?),
            Some(LabelsConfig::Folders) => Some(Labels::Listed(labels_of_folders(files, path)?)),
            _ => labels,
        };
        let labels = labels.map(|all| all.select(&keep));
        let name = settings.name.clone();
        let (path, inputs) = (path.to_path_buf(), Arc::new(inputs));
        Ok(Dataset { path, name, inputs, rows, labels, notes })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name given in the file, else the file.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.path.display().to_string())
    }

    /// The file or folder it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of a sample that there is: a file below its folder, a line of the list, or a row number.
    pub fn id(&self, position: usize) -> Cow<'_, str> {
        let row = self.rows.get(position);
        match self.inputs.iter().find_map(|i| i.source.files()) {
            Some(files) => Cow::Borrowed(&files[row]),
            None => Cow::Owned(row.to_string()),
        }
    }

    /// Names of all samples.
    pub fn ids(&self) -> impl Iterator<Item = Cow<'_, str>> {
        (0..self.len()).map(|i| self.id(i))
    }

    /// Whether labels were given.
    pub fn is_labelled(&self) -> bool {
        self.labels.is_some()
    }

    /// Class of a sample that there is, where labels were given.
    ///
    /// # Errors
    /// A failed read.
    pub fn label(&self, position: usize) -> Result<Option<i64>, DataError> {
        self.labels.as_ref().map(|l| l.of(position, self.rows.get(position))).transpose()
    }

    /// Hands position and class of every sample to `f`, in order, where labels were given.
    ///
    /// # Errors
    /// A failed read, and what `f` says.
    pub fn each_label<E: From<DataError>>(
        &self,
        f: impl FnMut(usize, i64) -> Result<(), E>,
    ) -> Result<(), E> {
        self.labels.as_ref().map_or(Ok(()), |l| l.each(&self.rows, f))
    }

    /// What a user may want to know of it: images that the csv of labels does not list.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The samples at these positions, in this order. Positions beyond the last are left out.
    pub fn select(&self, positions: impl IntoIterator<Item = usize>) -> Dataset {
        self.chosen(&Rows::List(positions.into_iter().filter(|i| *i < self.len()).collect()))
    }

    fn chosen(&self, samples: &Rows) -> Dataset {
        Dataset {
            path: self.path.clone(),
            name: self.name.clone(),
            inputs: Arc::clone(&self.inputs),
            rows: self.rows.select(samples),
            labels: self.labels.as_ref().map(|l| l.select(samples)),
            notes: self.notes.clone(),
        }
    }

    /// The first `n` samples.
    pub fn limit(&self, n: usize) -> Dataset {
        self.chosen(&Rows::even(self.len(), 0, 1, n))
    }

    /// The samples from `n` on.
    pub fn skip(&self, n: usize) -> Dataset {
        self.chosen(&Rows::even(self.len(), n, 1, usize::MAX))
    }

    /// The samples of a shard.
    pub fn shard(&self, shard: Shard) -> Dataset {
        self.chosen(&Rows::even(self.len(), shard.index, shard.of, usize::MAX))
    }
}

/// Gives sources made of files the csv's files, in its order. A file that is not there is met when it is read; of those
/// that are there and not in the csv, a note says how many.
fn restrict(path: &Path, inputs: &mut [Input], csv: &Csv) -> Result<Vec<String>, DataError> {
    let mut notes = Vec::new();
    for input in inputs.iter_mut().filter(|i| i.source.files().is_some()) {
        let Some(files) = &csv.files else {
            return Err(DataError::new(path, "labels = { csv = .. } has no key file")
                .help("name the column that holds the files' names"));
        };
        let root = input.source.path();
        let mut line_of = HashMap::new();
        for row in &csv.rows {
            let (file, second) = (&files[*row], csv.lines[*row]);
            if let Some((other, first)) = line_of.insert(plain(root, file), (file, second)) {
                let also = if other == file { String::new() } else { format!(" (there as {other})") };
                return Err(DataError::new(
                    path,
                    format!("the csv lists {file} twice, in lines {first}{also} and {second}"),
                )
                .help("a sample that counts twice changes the figures: remove one"));
            }
        }
        let listed: HashSet<PathBuf> = files.iter().map(|f| plain(root, f)).collect();
        let there = input.source.files().unwrap_or_default();
        let unlisted: Vec<&String> = there.iter().filter(|f| !listed.contains(&plain(root, f))).collect();
        if let Some(first) = unlisted.first() {
            let (n, all, folder) = (unlisted.len(), there.len(), input.source.path().display());
            notes.push(format!("{n} of the {all} files of {folder} are not in the csv of labels and not used, such as {first}"));
        }
        input.source.set_files(files);
    }
    Ok(notes)
}

/// The path of a file without `.` and `..`, so that two spellings of one are equal.
fn plain(root: &Path, file: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for part in root.join(file).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
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
        lines: Vec::new(),
        labels: label.map(|_| Vec::new()),
    };
    for row in reader.records() {
        let row = row.map_err(failed)?;
        let cell = |at: usize| row.get(at).unwrap_or_default();
        out.total += 1;
        out.lines.push(row.position().map_or(0, csv::Position::line));
        if let (Some(files), Some(at)) = (&mut out.files, file) {
            files.push(cell(at).to_owned());
        }
        if !filter.iter().all(|(at, want)| want.is(cell(*at))) {
            continue;
        }
        out.rows.push(out.total - 1);
        if let (Some(labels), Some(at)) = (&mut out.labels, label) {
            let line = out.lines[out.total - 1];
            labels.push(cell(at).trim().parse().map_err(|_| {
                DataError::new(path, format!("line {line}: label {:?} is not an integer", cell(at)))
            })?);
        }
    }
    Ok(out)
}

fn labels_of_array(file: &Path, samples: usize, set: &Path) -> Result<Labels, DataError> {
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
    // Says at once when they are no integers.
    array.integers(0..samples.min(1))?;
    Ok(Labels::Array(Arc::new(array)))
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
    let number: HashMap<&String, i64> = classes.into_iter().zip(0..).collect();
    Ok(of.iter().map(|c| number[c]).collect())
}
