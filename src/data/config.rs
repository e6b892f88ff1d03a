//! The data set file.

use super::DataError;
use super::element::Element;
use super::picture::Filter;
use crate::tensor::{DType, MAX_RANK, element_count};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A data set file as it was written. Paths are relative to the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What holds for all inputs.
    #[serde(default)]
    pub dataset: DatasetConfig,
    /// One for each graph input.
    pub input: Vec<InputConfig>,
}

/// The table `[dataset]`. Samples are taken in this order: rows that meet `where`, from `start` on, each `every`th, at
/// most `limit`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// For people.
    pub name: Option<String>,
    /// Where labels come from.
    pub labels: Option<LabelsConfig>,
    /// Values that columns of the labels' csv must have.
    #[serde(default, rename = "where")]
    pub filter: BTreeMap<String, Cell>,
    /// At most this many samples.
    pub limit: Option<usize>,
    /// Only each n-th sample.
    pub every: Option<usize>,
    /// Samples left out at the start.
    #[serde(default)]
    pub start: usize,
}

/// A value a csv cell is compared with, as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// An integer.
    Integer(i64),
    /// Text.
    Text(String),
}

impl Cell {
    /// Whether a cell holds it.
    pub fn is(&self, cell: &str) -> bool {
        match self {
            Cell::Integer(i) => cell.trim().parse() == Ok(*i),
            Cell::Text(t) => cell == t,
        }
    }
}

/// `labels`: `{ csv, file, label }`, `{ npy }` or `"folders"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawLabels")]
pub enum LabelsConfig {
    /// A csv file; its rows are the samples, in its order.
    Csv {
        /// The file.
        csv: PathBuf,
        /// Column with the sample's file name; needed where an input is made of files.
        file: Option<String>,
        /// Column with the class number; without it the csv only says which files there are.
        label: Option<String>,
    },
    /// An integer array with one label per sample (before `start`, `every` and `limit`); `.npz:key` works too.
    Npy(PathBuf),
    /// The folder an image is in, below the image folder; classes are numbered in sorted order.
    Folders,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLabels {
    Name(String),
    Table(LabelsTable),
}

#[derive(Deserialize)]
struct LabelsTable {
    csv: Option<PathBuf>,
    file: Option<String>,
    label: Option<String>,
    npy: Option<PathBuf>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl TryFrom<RawLabels> for LabelsConfig {
    type Error = String;

    fn try_from(raw: RawLabels) -> Result<Self, String> {
        let forms = "labels are { csv = \"labels.csv\", file = \"file\", label = \"label\" }, { npy = \"y.npy\" } or \"folders\"";
        match raw {
            RawLabels::Name(name) if name == "folders" => Ok(LabelsConfig::Folders),
            RawLabels::Name(name) => Err(format!("labels = {name:?}; {forms}")),
            RawLabels::Table(LabelsTable { unknown, .. }) if !unknown.is_empty() => Err(format!(
                "unknown key {:?} in labels; {forms}",
                unknown.keys().next().unwrap_or(&String::new())
            )),
            RawLabels::Table(LabelsTable { csv: Some(csv), file, label, npy: None, .. }) => {
                Ok(LabelsConfig::Csv { csv, file, label })
            }
            RawLabels::Table(LabelsTable { npy: Some(npy), csv: None, file: None, label: None, .. }) => {
                Ok(LabelsConfig::Npy(npy))
            }
            RawLabels::Table(_) => Err(forms.into()),
        }
    }
}

/// The table `[[input]]`: exactly one source, and what is done to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// The graph input; may be absent where there is one input on both sides.
    pub name: Option<String>,
    /// A folder of `.jpg`, `.jpeg` and `.png` files, searched with its subfolders; samples in the order of the sorted
    /// paths.
    pub images: Option<PathBuf>,
    /// An array whose axis 0 counts the samples.
    pub npy: Option<PathBuf>,
    /// `archive.npz:key`, or the archive alone when it holds one array.
    pub npz: Option<PathBuf>,
    /// A text file with one image path per line, relative to that file. Empty lines and lines that start with `#` do
    /// not count.
    pub list: Option<PathBuf>,
    /// Files of bare elements, one sample each.
    pub raw: Option<RawConfig>,
    pub(super) tar: Option<toml::Value>,
    pub(super) command: Option<toml::Value>,
    /// Channels of a decoded image.
    pub color: Option<Color>,
    /// Axis order of an npy, npz or raw source, where it differs from the graph's.
    pub source_layout: Option<Layout>,
    /// What is done to a sample, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// Files of bare little-endian elements.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Which files, `*` within a folder, `**` across folders; samples in the order of the sorted paths.
    pub glob: String,
    /// Type of the elements.
    dtype: String,
    /// Shape of one sample, without the batch axis.
    pub shape: Vec<usize>,
}

impl RawConfig {
    /// Type of the elements.
    pub fn element(&self) -> Result<Element, String> {
        let names: Vec<_> = Element::ALL.iter().map(|(_, name, _)| *name).collect();
        Element::from_name(&self.dtype)
            .ok_or_else(|| format!("raw dtype {:?}; there are {}", self.dtype, names.join(", ")))
    }
}

/// Channels of a decoded image, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel: (19595 R + 38470 G + 7471 B + 32768) / 65536, rounded down: ITU-R 601 luma.
    Gray,
}

impl Color {
    /// Number of channels.
    pub fn channels(self) -> usize {
        match self {
            Color::Rgb | Color::Bgr => 3,
            Color::Gray => 1,
        }
    }
}

impl TryFrom<String> for Color {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "rgb" => Ok(Color::Rgb),
            "bgr" => Ok(Color::Bgr),
            "gray" => Ok(Color::Gray),
            "yuv444_128" | "nv12" => {
                Err(format!("color {name:?} is not supported yet; there are rgb, bgr, gray"))
            }
            _ => Err(format!("color {name:?}; there are rgb, bgr, gray")),
        }
    }
}

/// Where the channels of a sample are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// First axis after the batch.
    Nchw,
    /// Last axis.
    Nhwc,
}

/// One entry of `steps`. Steps that move pixels come before those that compute on values.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawStep")]
pub enum Step {
    /// `{ resize = [h, w], filter = "bilinear" }`: to that size, whatever the aspect.
    Resize([usize; 2], Filter),
    /// `{ resize_shorter = n, filter = "bilinear" }`: the shorter side becomes n, the other n * long / short, rounded down.
    ResizeShorter(usize, Filter),
    /// `{ center_crop = [h, w] }`: from half the difference on, halves to the even number.
    CenterCrop([usize; 2]),
    /// `{ crop = [top, left, h, w] }`.
    Crop([usize; 4]),
    /// `{ mean = [..] }`: x - mean, per channel (in the order after `color`) or one number for all.
    Mean(Vec<f32>),
    /// `{ std = [..] }`: x / std.
    Std(Vec<f32>),
    /// `{ scale = 0.1 }`: x * scale.
    Scale(Vec<f32>),
    /// `{ dtype = "u8" }`, the last step: f32, or an integer type, rounded half to even and saturated. Without it, the
    /// graph input's type.
    Dtype(DType),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(f64),
    Each(Vec<f64>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    resize: Option<[usize; 2]>,
    resize_shorter: Option<usize>,
    filter: Option<Filter>,
    center_crop: Option<[usize; 2]>,
    crop: Option<[usize; 4]>,
    mean: Option<Values>,
    std: Option<Values>,
    scale: Option<Values>,
    dtype: Option<String>,
}

impl TryFrom<RawStep> for Step {
    type Error = String;

    fn try_from(raw: RawStep) -> Result<Self, String> {
        let values = |name: &str, v: Values| {
            let v = match v {
                Values::One(v) => vec![v],
                Values::Each(v) => v,
            };
            #[expect(clippy::cast_possible_truncation, reason = "steps compute in f32")]
            let v: Vec<f32> = v.into_iter().map(|v| v as f32).collect();
            match v.iter().find(|v| !v.is_finite() || (name == "std" && **v == 0.0)) {
                Some(bad) => Err(format!("{name} of {bad}")),
                None if v.is_empty() => Err(format!("{name} without a number")),
                None => Ok(v),
            }
        };
        let side = |size: &[usize]| match size.iter().find(|n| **n == 0 || **n > 65_535) {
            Some(n) => Err(format!("size {n}; an image side is 1 to 65535")),
            None => Ok(()),
        };
        let resizes = raw.resize.is_some() || raw.resize_shorter.is_some();
        if raw.filter.is_some() && !resizes {
            return Err("filter belongs to resize and resize_shorter".into());
        }
        let filter = raw.filter.unwrap_or_default();
        let mut steps = Vec::new();
        if let Some(size) = raw.resize {
            side(&size)?;
            steps.push(Step::Resize(size, filter));
        }
        if let Some(n) = raw.resize_shorter {
            side(&[n])?;
            steps.push(Step::ResizeShorter(n, filter));
        }
        if let Some(size) = raw.center_crop {
            side(&size)?;
            steps.push(Step::CenterCrop(size));
        }
        if let Some(crop) = raw.crop {
            side(&crop[2..])?;
            steps.push(Step::Crop(crop));
        }
        if let Some(v) = raw.mean {
            steps.push(Step::Mean(values("mean", v)?));
        }
        if let Some(v) = raw.std {
            steps.push(Step::Std(values("std", v)?));
        }
        if let Some(v) = raw.scale {
            steps.push(Step::Scale(values("scale", v)?));
        }
        if let Some(name) = raw.dtype {
            let dtype = DType::from_name(&name).filter(|t| *t != DType::Bool);
            steps.push(Step::Dtype(
                dtype.ok_or_else(|| format!("dtype {name:?}; there are f32, i32, i8, u8"))?,
            ));
        }
        match steps.pop() {
            Some(step) if steps.is_empty() => Ok(step),
            Some(_) => Err("more than one step in a pair of braces; their order would be lost".into()),
            None => Err("a step without content".into()),
        }
    }
}

impl Step {
    /// Whether it moves pixels, rather than computing on values.
    pub fn is_geometric(&self) -> bool {
        matches!(self, Step::Resize(..) | Step::ResizeShorter(..) | Step::CenterCrop(_) | Step::Crop(_))
    }
}

/// Where the samples of one input are.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// Image folder.
    Images(PathBuf),
    /// Array, and the key in an archive.
    Npy(PathBuf, Option<String>),
    /// List of image files.
    List(PathBuf),
    /// Bare elements.
    Raw(RawConfig),
}

impl InputConfig {
    /// An input that takes a source as it is.
    pub(super) fn plain(name: Option<String>) -> Self {
        InputConfig {
            name,
            images: None,
            npy: None,
            npz: None,
            list: None,
            raw: None,
            tar: None,
            command: None,
            color: None,
            source_layout: None,
            steps: Vec::new(),
        }
    }

    /// The one source.
    pub(super) fn source(&self) -> Result<SourceConfig, String> {
        if self.tar.is_some() || self.command.is_some() {
            let name = if self.tar.is_some() { "tar" } else { "command" };
            return Err(format!("source {name} is not supported yet; there are images, npy, npz, list, raw"));
        }
        let mut found = Vec::new();
        found.extend(self.images.clone().map(SourceConfig::Images));
        found.extend(self.npy.clone().map(|p| SourceConfig::Npy(p, None)));
        found.extend(self.npz.as_deref().map(|p| {
            let (path, key) = split_key(p);
            SourceConfig::Npy(path, Some(key.unwrap_or_default()))
        }));
        found.extend(self.list.clone().map(SourceConfig::List));
        found.extend(self.raw.clone().map(SourceConfig::Raw));
        let count = found.len();
        match found.pop() {
            Some(source) if count == 1 => Ok(source),
            _ => Err(format!("{count} sources; give one of images, npy, npz, list, raw")),
        }
    }

    fn check(&self) -> Result<(), String> {
        let source = self.source()?;
        let pixels = matches!(source, SourceConfig::Images(_) | SourceConfig::List(_));
        if pixels && self.source_layout.is_some() {
            return Err("source_layout is for npy, npz and raw; a decoded image has none".into());
        }
        if !pixels && self.color.is_some() {
            return Err("color is for images and list; an array's channels are taken as they are".into());
        }
        if let SourceConfig::Raw(raw) = &source {
            raw.element()?;
            if raw.shape.len() >= MAX_RANK || element_count(&raw.shape).is_none_or(|n| n == 0) {
                return Err(format!(
                    "raw shape {:?}: a sample has 1 to 2^31 elements on at most 5 axes",
                    raw.shape
                ));
            }
        }
        let first_value = self.steps.iter().position(|s| !s.is_geometric()).unwrap_or(self.steps.len());
        if self.steps[first_value..].iter().any(Step::is_geometric) {
            return Err("resize and crop come before mean, std, scale and dtype".into());
        }
        let dtype = self.steps.iter().position(|s| matches!(s, Step::Dtype(_)));
        if dtype.is_some_and(|at| at + 1 != self.steps.len()) {
            return Err("dtype is the last step".into());
        }
        Ok(())
    }
}

/// `x.npz:key`, or the archive alone.
pub fn split_key(path: &Path) -> (PathBuf, Option<String>) {
    let text = path.to_string_lossy();
    match text.rsplit_once(':') {
        Some((file, key)) if file.ends_with(".npz") => (PathBuf::from(file), Some(key.to_owned())),
        _ => (path.to_path_buf(), None),
    }
}

impl Config {
    /// Reads a data set file.
    ///
    /// # Errors
    /// Text that is not TOML or holds an unknown key, with its line; an input without exactly one source; steps in an
    /// impossible order.
    pub fn read(path: &Path) -> Result<Config, DataError> {
        let text = std::fs::read_to_string(path).map_err(|e| DataError::io(path, "cannot read", &e))?;
        let config: Config = toml::from_str(&text).map_err(|e| {
            DataError::new(path, format!("not a data set file: {}", e.to_string().trim_end()))
        })?;
        config.check().map_err(|what| DataError::new(path, what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.input.is_empty() {
            return Err("no [[input]]".into());
        }
        for (i, input) in self.input.iter().enumerate() {
            let name = input.name.clone().unwrap_or_else(|| format!("number {}", i + 1));
            input.check().map_err(|e| format!("input {name}: {e}"))?;
            if self.input.len() > 1 && input.name.is_none() {
                return Err(format!("input {name} has no name; several inputs are told apart by theirs"));
            }
            if self.input[..i].iter().any(|other| other.name == input.name) {
                return Err(format!("two inputs are called {name}"));
            }
        }
        if self.dataset.every == Some(0) {
            return Err("every = 0; 1 takes each sample".into());
        }
        let csv = matches!(self.dataset.labels, Some(LabelsConfig::Csv { .. }));
        if !self.dataset.filter.is_empty() && !csv {
            return Err("where is on the columns of labels = { csv = .. }, and there is none".into());
        }
        Ok(())
    }
}
