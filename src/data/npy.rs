//! NumPy's array files, read by row ranges.
//!
//! The header is parsed here: a header may claim any length and any shape, and both are checked before a byte is
//! allocated for them.

use super::DataError;
use crate::atomic::write_atomic;
use crate::tensor::{DType, Tensor, element_count};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Longest header that is read. NumPy's own limit for untrusted files is 10,000 characters.
const MAX_HEADER: usize = 64 * 1024;

/// Most element bytes that are held in memory, for arrays that cannot be read in row ranges.
pub(super) const MAX_IN_MEMORY: u64 = 8 << 30;

/// Type of a stored element, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum Element {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
}

use Element as E;

impl Element {
    /// Every type with its name in data set files and its NumPy code.
    pub const ALL: [(Element, &'static str, &'static str); 12] = [
        (E::Bool, "bool", "b1"),
        (E::I8, "i8", "i1"),
        (E::U8, "u8", "u1"),
        (E::I16, "i16", "i2"),
        (E::U16, "u16", "u2"),
        (E::I32, "i32", "i4"),
        (E::U32, "u32", "u4"),
        (E::I64, "i64", "i8"),
        (E::U64, "u64", "u8"),
        (E::F16, "f16", "f2"),
        (E::F32, "f32", "f4"),
        (E::F64, "f64", "f8"),
    ];

    /// The type called `name` in data set files.
    pub fn from_name(name: &str) -> Option<Element> {
        Self::ALL.iter().find(|(_, n, _)| *n == name).map(|(e, ..)| *e)
    }

    /// NumPy's `descr`, such as `<f4` or `|u1`.
    fn from_descr(descr: &str) -> Option<Element> {
        let (order, code) = descr.split_at_checked(1)?;
        let found = Self::ALL.iter().find(|(_, _, c)| *c == code).map(|(e, ..)| *e)?;
        (order == "<" || (found.size_bytes() == 1 && order != ">")).then_some(found)
    }

    fn descr(self) -> String {
        let (_, _, code) = Self::ALL[self as usize];
        format!("{}{code}", if self.size_bytes() == 1 { '|' } else { '<' })
    }

    /// Bytes of one stored element.
    pub fn size_bytes(self) -> usize {
        match self {
            E::Bool | E::I8 | E::U8 => 1,
            E::I16 | E::U16 | E::F16 => 2,
            E::I32 | E::U32 | E::F32 => 4,
            E::I64 | E::U64 | E::F64 => 8,
        }
    }

    /// Type of the tensor that is read: other floats become f32, other integers i32.
    pub fn dtype(self) -> DType {
        match self {
            E::Bool => DType::Bool,
            E::I8 => DType::I8,
            E::U8 => DType::U8,
            E::I16 | E::U16 | E::I32 | E::U32 | E::I64 | E::U64 => DType::I32,
            E::F16 | E::F32 | E::F64 => DType::F32,
        }
    }

    /// The tensor that `bytes`, row-major, hold. The count was checked by the caller.
    ///
    /// # Errors
    /// An integer beyond i32 or a truth value beyond 0 and 1, with the value.
    pub(super) fn tensor(self, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
        let shape = shape.to_vec();
        Ok(match self {
            E::Bool => match bytes.iter().position(|b| *b > 1) {
                Some(i) => return Err(format!("element {i} is {}, not a truth value (0 or 1)", bytes[i])),
                None => Tensor::from_bool(shape, bytes.to_vec()),
            },
            E::U8 => Tensor::from_u8(shape, bytes.to_vec()),
            E::I8 => Tensor::from_i8(shape, bytemuck::pod_collect_to_vec(bytes)),
            E::F32 => Tensor::from_f32(shape, numbers(bytes, f32::from_le_bytes)),
            E::F16 => Tensor::from_f32(shape, numbers(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            E::F64 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "rounds to nearest, as documented")]
                Tensor::from_f32(shape, numbers(bytes, |b| f64::from_le_bytes(b) as f32))
            }
            E::I32 => Tensor::from_i32(shape, numbers(bytes, i32::from_le_bytes)),
            _ => {
                let wide = self.integers(bytes).ok_or("a value does not fit i64")?;
                let narrow: Result<Vec<i32>, _> = wide
                    .iter()
                    .enumerate()
                    .map(|(i, v)| {
                        i32::try_from(*v).map_err(|_| format!("element {i} is {v}, which does not fit i32"))
                    })
                    .collect();
                Tensor::from_i32(shape, narrow?)
            }
        })
    }

    /// The integers that `bytes` hold; `None` for floats and for values beyond i64.
    fn integers(self, bytes: &[u8]) -> Option<Vec<i64>> {
        Some(match self {
            E::Bool | E::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
            E::I8 => numbers(bytes, |b| i64::from(i8::from_le_bytes(b))),
            E::I16 => numbers(bytes, |b| i64::from(i16::from_le_bytes(b))),
            E::U16 => numbers(bytes, |b| i64::from(u16::from_le_bytes(b))),
            E::I32 => numbers(bytes, |b| i64::from(i32::from_le_bytes(b))),
            E::U32 => numbers(bytes, |b| i64::from(u32::from_le_bytes(b))),
            E::I64 => numbers(bytes, i64::from_le_bytes),
            E::U64 => {
                let wide = numbers(bytes, u64::from_le_bytes);
                return wide.into_iter().map(|v| i64::try_from(v).ok()).collect();
            }
            E::F16 | E::F32 | E::F64 => return None,
        })
    }
}

fn numbers<T, const B: usize>(bytes: &[u8], read: impl Fn([u8; B]) -> T) -> Vec<T> {
    bytes.as_chunks::<B>().0.iter().map(|b| read(*b)).collect()
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub element: Element,
    pub fortran: bool,
    pub shape: Vec<usize>,
    /// Bytes before the elements.
    pub len: usize,
}

impl Header {
    /// Bytes of all elements.
    pub fn data_bytes(&self) -> Option<u64> {
        let bytes = u64::try_from(self.element.size_bytes()).ok()?;
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(bytes, |n, d| n.checked_mul(u64::try_from(*d).ok()?))
    }

    /// Reads the header and leaves the reader at the first element.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(reader: &mut dyn Read) -> Result<Header, String> {
        let mut start = [0; 10];
        reader.read_exact(&mut start).map_err(|_| "shorter than the header of an npy file".to_owned())?;
        if &start[..6] != b"\x93NUMPY" {
            return Err("not an npy file (its first bytes are not \\x93NUMPY)".into());
        }
        let (text_len, fixed) = match (start[6], start[7]) {
            (1, 0) => (usize::from(u16::from_le_bytes([start[8], start[9]])), 10),
            (2 | 3, 0) => {
                let mut rest = [0; 2];
                reader.read_exact(&mut rest).map_err(|_| "ends inside its header".to_owned())?;
                let n = u32::from_le_bytes([start[8], start[9], rest[0], rest[1]]);
                (usize::try_from(n).unwrap_or(usize::MAX), 12)
            }
            (a, b) => return Err(format!("npy version {a}.{b}; versions 1.0, 2.0 and 3.0 are supported")),
        };
        if text_len > MAX_HEADER {
            return Err(format!("header of {text_len} bytes; at most {MAX_HEADER} are read"));
        }
        let mut text = vec![0; text_len];
        reader.read_exact(&mut text).map_err(|_| "ends inside its header".to_owned())?;
        let text = std::str::from_utf8(&text).map_err(|_| "header is not text".to_owned())?;
        Header::parse(text, fixed + text_len)
    }

    /// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str, len: usize) -> Result<Header, String> {
        let bad = || format!("header is not that of a plain array: {}", text.trim());
        let mut rest =
            text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(bad)?.trim();
        let (mut element, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest).ok_or_else(bad)?;
            let value = after.trim_start().strip_prefix(':').ok_or_else(bad)?.trim_start();
            rest = match key {
                "descr" => {
                    let (descr, after) = quoted(value)
                        .ok_or_else(|| format!("structured element type; {}", supported_elements()))?;
                    element = Some(
                        Element::from_descr(descr)
                            .ok_or_else(|| format!("element type {descr:?}; {}", supported_elements()))?,
                    );
                    after
                }
                "fortran_order" => {
                    let (flag, after) = match value.strip_prefix("True") {
                        Some(after) => (true, after),
                        None => (false, value.strip_prefix("False").ok_or_else(bad)?),
                    };
                    fortran = Some(flag);
                    after
                }
                "shape" => {
                    let (dims, after) =
                        value.strip_prefix('(').and_then(|v| v.split_once(')')).ok_or_else(bad)?;
                    let dims = dims.split(',').map(str::trim).filter(|d| !d.is_empty());
                    let dims: Result<Vec<usize>, _> = dims
                        .map(|d| d.parse().map_err(|_| format!("dimension {d:?} of the shape")))
                        .collect();
                    shape = Some(dims?);
                    after
                }
                _ => return Err(bad()),
            };
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        match (element, fortran, shape) {
            (Some(element), Some(fortran), Some(shape)) => Ok(Header { element, fortran, shape, len }),
            _ => Err(bad()),
        }
    }

    /// The header's bytes; `room` more digits than needed are left for the first dimension to grow.
    pub fn bytes(element: Element, shape: &[usize], room: usize) -> Vec<u8> {
        let mut dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
        if dims.len() == 1 {
            dims.push(String::new());
        }
        let dict = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
            element.descr(),
            dims.join(", ").trim_end()
        );
        let len = (10 + dict.len() + room + 1).next_multiple_of(64);
        let text = u16::try_from(len - 10).unwrap_or(u16::MAX);
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend(text.to_le_bytes());
        out.extend(dict.bytes());
        out.resize(len - 1, b' ');
        out.push(b'\n');
        out
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    text[1..].split_once(quote)
}

fn supported_elements() -> String {
    let codes: Vec<_> = Element::ALL.iter().map(|(_, _, code)| *code).collect();
    format!("supported are {}, little endian", codes.join(" "))
}

#[derive(Debug)]
enum Store {
    File(File),
    Memory(Vec<u8>),
}

/// An array whose rows (indices of axis 0) are read on request.
///
/// A file in C order is read where the rows are; Fortran order is brought to C order in memory when it is opened.
#[derive(Debug)]
pub struct Array {
    path: PathBuf,
    header: Header,
    store: Store,
}

impl Array {
    /// Opens a `.npy` file and reads its header.
    ///
    /// # Errors
    /// A file that is not an array of supported elements, or that is shorter than its shape.
    pub fn open(path: &Path) -> Result<Array, DataError> {
        let wrong = |what: String| DataError::new(path, what);
        let mut file = File::open(path).map_err(|e| DataError::io(path, "cannot open", &e))?;
        let header = Header::read(&mut file).map_err(wrong)?;
        let have = file.metadata().map_err(|e| DataError::io(path, "cannot read", &e))?.len();
        let have = have.saturating_sub(header.len as u64);
        let need = header.data_bytes();
        if need.is_none_or(|need| need > have) {
            let need = need.map_or_else(|| "more bytes than there are".into(), |n| format!("{n} bytes"));
            return Err(wrong(format!(
                "shape {:?} takes {need}, but {have} follow the header",
                header.shape
            ))
            .help("the file is damaged or was cut short"));
        }
        if !header.fortran || header.shape.len() < 2 {
            return Ok(Array { path: path.to_path_buf(), header, store: Store::File(file) });
        }
        let bytes = read_elements(&mut file, &header, path)?;
        Ok(Array::in_memory(path, header, bytes))
    }

    /// An array whose element bytes, in the header's order, were read already.
    pub(super) fn in_memory(path: &Path, mut header: Header, mut bytes: Vec<u8>) -> Array {
        if std::mem::take(&mut header.fortran) && header.shape.len() > 1 {
            bytes = to_c_order(&header.shape, header.element.size_bytes(), &bytes);
        }
        Array { path: path.to_path_buf(), header, store: Store::Memory(bytes) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// Type of the stored elements.
    pub fn element(&self) -> Element {
        self.header.element
    }

    /// Number of rows; 1 without axes.
    pub fn rows(&self) -> usize {
        self.header.shape.first().copied().unwrap_or(1)
    }

    /// The whole array.
    ///
    /// # Errors
    /// As for [`Array::read_rows`].
    pub fn read(&self) -> Result<Tensor, DataError> {
        let tensor = self.read_rows(0..self.rows())?;
        Ok(tensor.reshaped(self.header.shape.clone()))
    }

    /// Rows as a tensor `[rows, ...]`, converted as [`Element::dtype`] says.
    ///
    /// # Errors
    /// Rows beyond the last, more elements than a tensor may have, a failed read, or an integer that does not fit.
    pub fn read_rows(&self, rows: Range<usize>) -> Result<Tensor, DataError> {
        let mut shape = self.header.shape.clone();
        match shape.first_mut() {
            Some(first) => *first = rows.len(),
            None => shape.push(rows.len()),
        }
        let bytes = self.row_bytes(rows)?;
        self.header.element.tensor(&shape, &bytes).map_err(|what| DataError::new(&self.path, what))
    }

    /// All elements as integers, such as labels.
    ///
    /// # Errors
    /// Float elements, values beyond i64, a failed read.
    pub fn read_integers(&self) -> Result<Vec<i64>, DataError> {
        let bytes = self.row_bytes(0..self.rows())?;
        self.header.element.integers(&bytes).ok_or_else(|| {
            DataError::new(
                &self.path,
                format!("holds {}, not integers that fit i64", self.header.element.descr()),
            )
        })
    }

    fn row_bytes(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, DataError> {
        let wrong = |what: String| DataError::new(&self.path, what);
        if rows.start > rows.end || rows.end > self.rows() {
            return Err(wrong(format!("rows {}..{} of {}", rows.start, rows.end, self.rows())));
        }
        let inner = self.header.shape.get(1..).unwrap_or_default();
        let mut shape = vec![rows.len()];
        shape.extend(inner);
        let too_large = || wrong(format!("{shape:?} elements are more than one tensor may have"));
        let count = element_count(&shape).ok_or_else(too_large)?;
        let size = self.header.element.size_bytes();
        let row = element_count(inner).ok_or_else(too_large)? * size;
        let (start, len) = (rows.start * row, count * size);
        match &self.store {
            Store::Memory(all) => Ok(Cow::Borrowed(&all[start..start + len])),
            Store::File(file) => {
                let mut bytes = vec![0; len];
                read_exact_at(file, &mut bytes, (self.header.len + start) as u64)
                    .map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// Reads exactly the element bytes that the header, checked against the source's size, asks for.
pub(super) fn read_elements(
    reader: &mut dyn Read,
    header: &Header,
    path: &Path,
) -> Result<Vec<u8>, DataError> {
    let need = header.data_bytes().filter(|n| *n <= MAX_IN_MEMORY).ok_or_else(|| {
        DataError::new(
            path,
            format!("shape {:?} takes more than the {MAX_IN_MEMORY} bytes held in memory", header.shape),
        )
        .help("save it as .npy in C order, which is read row by row")
    })?;
    // Grows with what is there, so that a false size costs nothing.
    let mut bytes = Vec::new();
    let read =
        reader.take(need).read_to_end(&mut bytes).map_err(|e| DataError::io(path, "cannot read", &e))?;
    if read as u64 != need {
        return Err(DataError::new(
            path,
            format!("shape {:?} takes {need} bytes, but it holds {read}", header.shape),
        ));
    }
    Ok(bytes)
}

fn to_c_order(shape: &[usize], size: usize, fortran: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fortran.len());
    if fortran.is_empty() {
        return out;
    }
    let mut steps = vec![size; shape.len()];
    for a in 1..shape.len() {
        steps[a] = steps[a - 1] * shape[a - 1];
    }
    let mut index = vec![0; shape.len()];
    while out.len() < fortran.len() {
        let at: usize = index.iter().zip(&steps).map(|(i, s)| i * s).sum();
        out.extend_from_slice(&fortran[at..at + size]);
        for a in (0..shape.len()).rev() {
            index[a] += 1;
            if index[a] < shape[a] {
                break;
            }
            index[a] = 0;
        }
    }
    out
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// Stored type of a tensor's elements.
pub(super) fn element_of(dtype: DType) -> Element {
    match dtype {
        DType::F32 => E::F32,
        DType::I32 => E::I32,
        DType::Bool => E::Bool,
        DType::I8 | DType::I4 => E::I8,
        DType::U8 | DType::U4 => E::U8,
        DType::I16 => E::I16,
        DType::U16 => E::U16,
    }
}

/// Writes a tensor as `.npy` (version 1, C order), whole or not at all.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), DataError> {
    let header = Header::bytes(element_of(tensor.dtype()), tensor.shape(), 0);
    write_atomic(path, |out: &mut dyn Write| {
        out.write_all(&header)?;
        out.write_all(tensor.bytes())
    })
    .map_err(|e| DataError::io(path, "cannot write", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dict: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut f = tempfile::NamedTempFile::new().expect("temporary file");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(dict.len()).expect("short").to_le_bytes());
        bytes.extend(dict.bytes());
        bytes.extend(data);
        f.write_all(&bytes).expect("writes");
        f
    }

    fn dict(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
    }

    #[test]
    fn every_element_type_becomes_one_of_ours() {
        let cases: [(&str, &[u8], Tensor); 12] = [
            ("|b1", &[0, 1], Tensor::from_bool([2], vec![0, 1])),
            ("|i1", &[255, 2], Tensor::from_i8([2], vec![-1, 2])),
            ("|u1", &[255, 2], Tensor::from_u8([2], vec![255, 2])),
            ("<i2", &[255, 255, 2, 1], Tensor::from_i32([2], vec![-1, 258])),
            ("<u2", &[255, 255, 2, 1], Tensor::from_i32([2], vec![65535, 258])),
            ("<i4", &[254, 255, 255, 255, 2, 0, 0, 0], Tensor::from_i32([2], vec![-2, 2])),
            ("<u4", &[1, 0, 0, 0, 2, 0, 0, 0], Tensor::from_i32([2], vec![1, 2])),
            ("<i8", &[255; 16], Tensor::from_i32([2], vec![-1, -1])),
            ("<u8", &[7, 0, 0, 0, 0, 0, 0, 0], Tensor::from_i32([1], vec![7])),
            ("<f2", &[0, 0x3c, 0, 0xc0], Tensor::from_f32([2], vec![1.0, -2.0])),
            ("<f4", &[0, 0, 0x80, 0x3f], Tensor::from_f32([1], vec![1.0])),
            ("<f8", &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f], Tensor::from_f32([1], vec![1.0])),
        ];
        for (descr, data, want) in cases {
            let f = file(&dict(descr, "False", &format!("({},)", want.len())), data);
            assert_eq!(Array::open(f.path()).and_then(|a| a.read()), Ok(want), "{descr}");
        }
    }

    #[test]
    fn an_integer_beyond_i32_is_named() {
        let f = file(&dict("<i8", "False", "(1,)"), &(1i64 << 40).to_le_bytes());
        let e = Array::open(f.path()).expect("opens").read().expect_err("too large");
        assert!(e.what.contains("1099511627776"), "{e}");
    }

    #[test]
    fn fortran_order_is_transposed() {
        let f = file(&dict("|u1", "True", "(2, 3)"), &[0, 10, 1, 11, 2, 12]);
        let a = Array::open(f.path()).expect("opens");
        assert_eq!(a.read(), Ok(Tensor::from_u8([2, 3], vec![0, 1, 2, 10, 11, 12])));
        assert_eq!(a.read_rows(1..2), Ok(Tensor::from_u8([1, 3], vec![10, 11, 12])));
    }

    #[test]
    fn headers_that_lie_are_refused_before_anything_is_allocated() {
        let huge = "(1099511627776, 1099511627776)";
        for (text, want) in [
            (dict("<f4", "False", huge), "more bytes than there are"),
            (dict("<f4", "False", "(1099511627776,)"), "4398046511104 bytes"),
            (dict("<f4", "False", "(-1,)"), "\"-1\""),
            (dict(">f4", "False", "(1,)"), "\">f4\""),
            (dict("|O", "False", "(1,)"), "\"|O\""),
            (dict("<f4", "Perhaps", "(1,)"), "not that of a plain array"),
            ("{'descr': [('a', '<f4')], }".into(), "structured"),
            ("{'shape': (1,), }".into(), "not that of a plain array"),
            ("((((((((".into(), "not that of a plain array"),
            ("{'descr': '".into(), "not that of a plain array"),
            ("{'\u{e9}".into(), "not that of a plain array"),
        ] {
            let f = file(&text, &[0; 4]);
            let e = Array::open(f.path()).expect_err(&text);
            assert!(e.what.contains(want), "{e}");
        }
    }

    #[test]
    fn a_written_file_is_read_back() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for t in [
            Tensor::scalar(2.5),
            Tensor::from_i32([3], vec![1, -2, 3]),
            Tensor::from_f32([2, 0, 3], vec![]),
            Tensor::from_i8([2, 2], vec![1, -2, 3, -4]),
        ] {
            let path = dir.path().join("x.npy");
            write(&path, &t).expect("writes");
            assert_eq!(Array::open(&path).and_then(|a| a.read()), Ok(t));
        }
    }
}
