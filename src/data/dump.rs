//! Dump folders: tensors of many frames as NumPy files, with an index.
//!
//! A tensor is in `<name>.npy`, or split in `<name>.00000.npy`, `<name>.00001.npy`, ..., in logical ONNX layout,
//! axis 0 = frame. Names are percent-encoded but for letters, digits and `.`, `_`, `-`, `~`.

use super::DataError;
use super::array::Array;
use super::element::Element;
use super::npy::Header;
use crate::atomic::write_atomic;
use crate::tensor::{Tensor, element_count};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~');

/// Elements of a file after which the next shard is begun.
const SHARD_BYTES: u64 = 1 << 30;

/// Digits left in a header for the number of frames to grow.
const ROOM: usize = 20;

/// Name of a tensor's file, without the ending.
pub fn encode_name(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

/// What the elements of a dumped tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Quantized codes; `scale` and `zero_point` give their values.
    Codes,
    /// Values.
    Values,
}

/// What the index says of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Shape of all frames together.
    pub shape: Vec<usize>,
    /// Element type, as `f32`, `i8`, ...
    pub dtype: String,
    /// Real units per step; one number, or one per index of `axis`. Empty for values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scale: Vec<f32>,
    /// Code of zero, in the form of `scale`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zero_point: Vec<i32>,
    /// Axis that several scales belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<usize>,
    /// Codes or values.
    pub kind: Kind,
}

#[derive(Debug, Default, Deserialize)]
struct Index {
    #[serde(default)]
    tensors: BTreeMap<String, TensorInfo>,
    #[serde(default)]
    samples: Vec<Value>,
    #[serde(default)]
    labels: Option<Vec<i64>>,
}

#[derive(Debug)]
struct Open {
    info: TensorInfo,
    element: Element,
    /// Frames in each shard.
    shards: Vec<usize>,
}

/// Writes a dump folder. It appears under its name when [`DumpWriter::finish`] has written all of it; before that
/// it is a hidden folder beside it, removed when the writer is dropped.
#[derive(Debug)]
pub struct DumpWriter {
    target: PathBuf,
    folder: tempfile::TempDir,
    tensors: BTreeMap<String, Open>,
}

impl DumpWriter {
    /// Starts a dump that will be `folder`. An older dump there is replaced at the end.
    ///
    /// # Errors
    /// A folder that holds something else than a dump, or that cannot be made.
    pub fn create(folder: &Path) -> Result<DumpWriter, DataError> {
        let failed = |e: std::io::Error| DataError::io(folder, "cannot make the folder", &e);
        if let Ok(entries) = std::fs::read_dir(folder) {
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                let name = name.to_string_lossy();
                if name != "index.json" && !name.ends_with(".npy") {
                    return Err(DataError::new(
                        folder,
                        format!("holds {name}, so it is not a dump that may be replaced"),
                    )
                    .help("give a folder that does not exist yet"));
                }
            }
        } else if folder.exists() {
            return Err(DataError::new(folder, "is a file").help("give a folder"));
        }
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(failed)?;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The process's umask applies, as for any new folder; the crate's default would be private.
            builder.permissions(std::fs::Permissions::from_mode(0o777));
        }
        let temporary = builder.prefix(".samebit-").tempdir_in(parent).map_err(failed)?;
        Ok(DumpWriter { target: folder.to_path_buf(), folder: temporary, tensors: BTreeMap::new() })
    }

    /// Adds frames of a tensor of values.
    ///
    /// # Errors
    /// As for [`DumpWriter::append_as`].
    pub fn append(&mut self, name: &str, frames: &Tensor) -> Result<(), DataError> {
        let info = TensorInfo {
            shape: Vec::new(),
            dtype: frames.dtype().name().into(),
            scale: Vec::new(),
            zero_point: Vec::new(),
            axis: None,
            kind: Kind::Values,
        };
        self.append_as(name, frames, info)
    }

    /// Adds frames of a tensor described by `info`, whose `shape` is counted here.
    ///
    /// # Errors
    /// Frames that differ in type or shape from those before, a tensor without a frame axis, a failed write.
    pub fn append_as(&mut self, name: &str, frames: &Tensor, info: TensorInfo) -> Result<(), DataError> {
        let wrong = |what: String| DataError::new(&self.target, format!("tensor {name}: {what}"));
        let Some((rows, inner)) = frames.shape().split_first() else {
            return Err(wrong("a scalar has no axis for the frames".into()));
        };
        let element = Element::of(frames.dtype());
        let open = self.tensors.entry(name.to_owned()).or_insert_with(|| {
            let shape = std::iter::once(0).chain(inner.iter().copied()).collect();
            Open { info: TensorInfo { shape, ..info }, element, shards: Vec::new() }
        });
        if open.info.shape[1..] != *inner || open.element != element {
            return Err(wrong(format!(
                "frames of {} {inner:?} after others of {:?} {:?}",
                frames.dtype(),
                open.element,
                &open.info.shape[1..]
            )));
        }
        let row = (frames.bytes().len() / rows.max(&1)) as u64;
        let full =
            open.shards.last().is_none_or(|have| *have > 0 && (*have + rows) as u64 * row > SHARD_BYTES);
        if full {
            open.shards.push(0);
        }
        let path = self.folder.path().join(format!("{}.{:05}.npy", encode_name(name), open.shards.len() - 1));
        let write = || {
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            if full {
                file.write_all(&Header::bytes(element, &open.info.shape, ROOM))?;
            }
            file.write_all(frames.bytes())
        };
        write().map_err(|e| DataError::io(&path, "cannot write", &e))?;
        open.info.shape[0] += rows;
        if let Some(last) = open.shards.last_mut() {
            *last += rows;
        }
        Ok(())
    }

    /// Writes the index and puts the folder in its place.
    ///
    /// # Errors
    /// Tensors whose frames are not as many as the samples, labels that are not, a failed write.
    pub fn finish(self, samples: &[String], labels: Option<&[i64]>) -> Result<(), DataError> {
        let wrong = |what: String| DataError::new(&self.target, what);
        if let Some(labels) = labels.filter(|l| l.len() != samples.len()) {
            return Err(wrong(format!("{} labels for {} samples", labels.len(), samples.len())));
        }
        let mut tensors = Map::new();
        for (name, open) in &self.tensors {
            if open.info.shape[0] != samples.len() {
                return Err(wrong(format!(
                    "tensor {name} has {} frames for {} samples",
                    open.info.shape[0],
                    samples.len()
                )));
            }
            self.close(name, open)?;
            let info = serde_json::to_value(&open.info).map_err(|e| wrong(e.to_string()))?;
            tensors.insert(name.clone(), info);
        }
        let mut index = Map::new();
        index.insert("tensors".into(), tensors.into());
        index.insert("samples".into(), samples.into());
        if let Some(labels) = labels {
            index.insert("labels".into(), labels.into());
        }
        let path = self.folder.path().join("index.json");
        write_atomic(&path, |out| Ok(serde_json::to_writer_pretty(out, &index)?))
            .map_err(|e| DataError::io(&path, "cannot write", &e))?;
        self.publish()
    }

    /// Completes the headers, and drops the number of a tensor's only shard.
    fn close(&self, name: &str, open: &Open) -> Result<(), DataError> {
        let stem = encode_name(name);
        for (i, rows) in open.shards.iter().enumerate() {
            let path = self.folder.path().join(format!("{stem}.{i:05}.npy"));
            let mut shape = open.info.shape.clone();
            // The room left covers the digits of any count: the two headers have the same length.
            shape[0] = 0;
            let reserved = Header::bytes(open.element, &shape, ROOM).len();
            shape[0] = *rows;
            let digits = rows.to_string().len() - 1;
            let header = Header::bytes(open.element, &shape, ROOM.saturating_sub(digits));
            let write = || -> std::io::Result<()> {
                if header.len() != reserved {
                    return Err(std::io::Error::other("the header does not fit"));
                }
                let mut file = OpenOptions::new().write(true).open(&path)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&header)?;
                file.sync_all()?;
                match open.shards.len() {
                    1 => std::fs::rename(&path, self.folder.path().join(format!("{stem}.npy"))),
                    _ => Ok(()),
                }
            };
            write().map_err(|e| DataError::io(&path, "cannot write", &e))?;
        }
        Ok(())
    }

    fn publish(self) -> Result<(), DataError> {
        let failed = |e: std::io::Error| DataError::io(&self.target, "cannot put the dump in its place", &e);
        #[cfg(unix)]
        File::open(self.folder.path()).and_then(|f| f.sync_all()).map_err(failed)?;
        if self.target.exists() {
            let old = self.folder.path().with_extension("old");
            std::fs::rename(&self.target, &old).map_err(failed)?;
            std::fs::rename(self.folder.path(), &self.target).map_err(failed)?;
            std::fs::remove_dir_all(&old).map_err(failed)?;
        } else {
            std::fs::rename(self.folder.path(), &self.target).map_err(failed)?;
        }
        // It is no longer where the guard would remove it.
        let _ = self.folder.keep();
        Ok(())
    }
}

/// Reads a dump folder; the index may be absent.
#[derive(Debug)]
pub struct DumpReader {
    folder: PathBuf,
    index: Index,
    tensors: BTreeMap<String, Vec<Array>>,
}

impl DumpReader {
    /// Opens a folder and the headers of its tensors.
    ///
    /// # Errors
    /// A folder without tensors, a file that is not an array, shards that do not belong together or are missing, an
    /// index that says otherwise.
    pub fn open(folder: &Path) -> Result<DumpReader, DataError> {
        let wrong = |what: String| DataError::new(folder, what);
        let failed = |e: std::io::Error| DataError::io(folder, "cannot list the folder", &e);
        let index_path = folder.join("index.json");
        let index = match std::fs::read_to_string(&index_path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|e| DataError::new(&index_path, format!("not the index of a dump: {e}")))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Index::default(),
            Err(e) => return Err(DataError::io(&index_path, "cannot read", &e)),
        };
        let mut stems = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            stems.extend(name.strip_suffix(".npy").map(str::to_owned));
        }
        stems.sort_unstable();
        let decode = |s: &str| percent_decode_str(s).decode_utf8().ok().map(|n| n.into_owned());
        let mut tensors: BTreeMap<String, Vec<Array>> = BTreeMap::new();
        for stem in stems {
            let whole = decode(&stem)
                .ok_or_else(|| wrong(format!("{stem}.npy: its name is not UTF-8 when decoded")))?;
            let shard =
                stem.rsplit_once('.').filter(|(_, n)| n.len() == 5 && n.bytes().all(|b| b.is_ascii_digit()));
            let (name, number) = match shard {
                // A tensor's own name may end like a shard's; the index tells.
                Some((stem, number)) if !index.tensors.contains_key(&whole) => {
                    (decode(stem).unwrap_or_else(|| whole.clone()), number.parse::<usize>().ok())
                }
                _ => (whole, None),
            };
            let shards = tensors.entry(name.clone()).or_default();
            if number.is_some_and(|n| n != shards.len()) || (number.is_none() && !shards.is_empty()) {
                return Err(wrong(format!(
                    "tensor {name}: {stem}.npy, but shard {:05} is missing or there is a whole file, too",
                    shards.len()
                )));
            }
            let array = Array::open(&folder.join(format!("{stem}.npy")))?;
            if array.shape().is_empty() {
                return Err(wrong(format!("tensor {name}: a scalar has no axis for the frames")));
            }
            if let Some(first) = shards.first()
                && (first.shape()[1..] != array.shape()[1..] || first.element() != array.element())
            {
                return Err(wrong(format!(
                    "tensor {name}: shards of shapes {:?} and {:?}",
                    first.shape(),
                    array.shape()
                )));
            }
            shards.push(array);
        }
        let reader = DumpReader { folder: folder.to_path_buf(), index, tensors };
        if reader.tensors.is_empty() {
            return Err(wrong("no .npy file in it, so it is not a dump".into()));
        }
        for (name, info) in &reader.index.tensors {
            let shape = reader
                .shape(name)
                .ok_or_else(|| wrong(format!("the index names {name}, and there is no file of it")))?;
            if shape != info.shape {
                return Err(wrong(format!(
                    "tensor {name} has shape {shape:?}, the index says {:?}",
                    info.shape
                )));
            }
        }
        Ok(reader)
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What the index says of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.tensors.get(name)
    }

    /// Names of the frames; empty without an index.
    pub fn samples(&self) -> Vec<String> {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        self.index.samples.iter().map(text).collect()
    }

    /// Labels of the frames.
    pub fn labels(&self) -> Option<&[i64]> {
        self.index.labels.as_deref()
    }

    /// Shape of a tensor, all frames together.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let shards = self.tensors.get(name)?;
        let mut shape = shards.first()?.shape().to_vec();
        shape[0] = shards.iter().map(Array::rows).fold(0, usize::saturating_add);
        Some(shape)
    }

    /// Frames of a tensor.
    ///
    /// # Errors
    /// No such tensor (those there are, are named), frames beyond the last, a failed read.
    pub fn frames(&self, name: &str, frames: Range<usize>) -> Result<Tensor, DataError> {
        let wrong = |what: String| DataError::new(&self.folder, what);
        let shape = self.shape(name).ok_or_else(|| {
            wrong(format!("no tensor {name:?}; there are {}", self.names().collect::<Vec<_>>().join(", ")))
        })?;
        if frames.start > frames.end || frames.end > shape[0] {
            return Err(wrong(format!("frames {frames:?} of the {} of {name}", shape[0])));
        }
        let mut wanted = shape;
        wanted[0] = frames.len();
        let too_large = || wrong(format!("{wanted:?} elements of {name} are more than one tensor may have"));
        element_count(&wanted).ok_or_else(too_large)?;
        let mut start = 0;
        let mut parts = Vec::new();
        for shard in &self.tensors[name] {
            let end = start + shard.rows();
            let (from, to) = (frames.start.max(start), frames.end.min(end));
            if from < to {
                parts.push(shard.read_rows(from - start..to - start)?);
            }
            start = end;
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            [] => self.tensors[name].first().map_or_else(|| Err(too_large()), |a| a.read_rows(0..0)),
            [first, ..] => {
                let bytes: Vec<u8> = parts.iter().flat_map(|p| p.bytes()).copied().collect();
                Tensor::from_bytes(first.dtype(), &wanted, &bytes).ok_or_else(too_large)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::write_npy;
    use crate::tensor::DType;

    fn samples(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("frame {i}")).collect()
    }

    #[test]
    fn pieces_are_read_back_as_one_tensor() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = dir.path().join("a/dump");
        for _ in 0..2 {
            let mut dump = DumpWriter::create(&folder).expect("creates");
            for k in 0..12 {
                let t = Tensor::from_f32([1, 2, 1], vec![k as f32, -1.0]);
                dump.append("/head/Conv:0 50%", &t).expect("appends");
                dump.append("b.00000", &Tensor::from_u8([1], vec![k])).expect("appends");
            }
            dump.finish(&samples(12), Some(&[3; 12])).expect("finishes");
        }
        assert!(folder.join("%2Fhead%2FConv%3A0%2050%25.npy").is_file());
        assert_eq!(std::fs::read_dir(dir.path().join("a")).expect("lists").count(), 1);
        let dump = DumpReader::open(&folder).expect("opens");
        assert_eq!(dump.names().collect::<Vec<_>>(), ["/head/Conv:0 50%", "b.00000"]);
        assert_eq!(dump.shape("/head/Conv:0 50%"), Some(vec![12, 2, 1]));
        assert_eq!(
            dump.frames("/head/Conv:0 50%", 10..12),
            Ok(Tensor::from_f32([2, 2, 1], vec![10.0, -1.0, 11.0, -1.0]))
        );
        assert_eq!(dump.frames("b.00000", 11..12), Ok(Tensor::from_u8([1], vec![11])));
        assert_eq!((dump.samples()[11].as_str(), dump.labels().map(<[_]>::len)), ("frame 11", Some(12)));
        assert_eq!(dump.info("b.00000").map(|i| (i.kind, i.dtype.as_str())), Some((Kind::Values, "u8")));
        assert!(dump.frames("c", 0..1).expect_err("no c").what.contains("b.00000"));
    }

    #[test]
    fn shards_without_an_index_are_joined() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = |name: &str, t: &Tensor| write_npy(&dir.path().join(name), t).expect("writes");
        file("x.00000.npy", &Tensor::from_i32([2], vec![0, 1]));
        file("x.00001.npy", &Tensor::from_i32([3], vec![2, 3, 4]));
        let dump = DumpReader::open(dir.path()).expect("opens");
        assert_eq!(dump.frames("x", 1..4), Ok(Tensor::from_i32([3], vec![1, 2, 3])));
        assert_eq!(dump.frames("x", 2..2).map(|t| t.len()), Ok(0));
        file("x.00003.npy", &Tensor::from_i32([1], vec![9]));
        assert!(DumpReader::open(dir.path()).expect_err("a hole").what.contains("00002"));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = dir.path().join("dump");
        let mut dump = DumpWriter::create(&folder).expect("creates");
        dump.append("x", &Tensor::zeros(DType::F32, [2, 3])).expect("appends");
        let e = dump.append("x", &Tensor::zeros(DType::F32, [2, 4])).expect_err("3 and 4");
        assert!(e.what.contains("[4]") && e.what.contains("[3]"), "{e}");
        let e = dump.finish(&samples(3), None).expect_err("2 and 3");
        assert!(e.what.contains("2 frames for 3 samples"), "{e}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
        std::fs::write(dir.path().join("thesis.tex"), "").expect("writes");
        assert!(DumpWriter::create(dir.path()).expect_err("not a dump").what.contains("thesis.tex"));
        assert!(DumpReader::open(dir.path()).expect_err("not a dump").what.contains("no .npy"));
    }
}
