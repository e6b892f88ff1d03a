//! NumPy's array files.
//!
//! The header is parsed here: a header may claim any length and any shape, and both are checked before a byte is
//! allocated for them.

use super::DataError;
use super::element::Element;
use crate::atomic::write_atomic;
use crate::tensor::Tensor;
use std::io::{Read, Write};
use std::path::Path;

/// Longest header that is read. NumPy's own limit for untrusted files is 10,000 characters.
const MAX_HEADER: usize = 64 * 1024;

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
    /// Whether the elements lie row by row.
    pub fn is_c_order(&self) -> bool {
        !self.fortran || self.shape.len() < 2
    }

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

/// Writes a tensor as `.npy` (version 1, C order), whole or not at all.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), DataError> {
    let header = Header::bytes(Element::of(tensor.dtype()), tensor.shape(), 0);
    write_atomic(path, |out: &mut dyn Write| {
        out.write_all(&header)?;
        out.write_all(tensor.bytes())
    })
    .map_err(|e| DataError::io(path, "cannot write", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Array;

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
