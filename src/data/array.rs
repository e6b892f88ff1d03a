//! NumPy arrays, read by row ranges.

use super::DataError;
use super::element::Element;
use super::npy::Header;
use super::npz::Inflated;
use crate::tensor::{Tensor, element_count};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most element bytes that are held in memory, for arrays that cannot be read in row ranges.
const MAX_IN_MEMORY: u64 = 8 << 30;

/// Where the elements are.
#[derive(Debug)]
pub(super) enum Store {
    /// In a file, from this offset on.
    File(File, u64),
    Memory(Vec<u8>),
    Inflated(Box<Inflated>),
}

/// An array whose rows (indices of axis 0) are read on request.
///
/// A file in C order is read where the rows are, an archive's deflated member from its start to the last row asked for;
/// Fortran order is brought to C order in memory when it is opened.
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
        if header.is_c_order() {
            let start = header.len as u64;
            return Ok(Array::new(path, header, Store::File(file, start)));
        }
        Array::from_fortran(path, header, &mut file)
    }

    /// An array in C order whose elements, as many as the header says, are in `store`.
    pub(super) fn new(path: &Path, header: Header, store: Store) -> Array {
        Array { path: path.to_path_buf(), header, store }
    }

    /// Brings what `reader` holds to C order, in memory.
    pub(super) fn from_fortran(
        path: &Path,
        header: Header,
        reader: &mut dyn Read,
    ) -> Result<Array, DataError> {
        let bytes = read_elements(reader, &header, path)?;
        let bytes = to_c_order(&header.shape, header.element.size_bytes(), &bytes);
        Ok(Array::new(path, header, Store::Memory(bytes)))
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
        let (file, at) = match &self.store {
            Store::Memory(all) => return Ok(Cow::Borrowed(&all[start..start + len])),
            Store::File(file, first) => (file, first + start as u64),
            // Unpacked before memory is asked for, so that a false shape costs none.
            Store::Inflated(member) => (member.up_to((start + len) as u64).map_err(wrong)?, start as u64),
        };
        let mut bytes = vec![0; len];
        read_exact_at(file, &mut bytes, at).map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
        Ok(Cow::Owned(bytes))
    }
}

/// Reads exactly the element bytes that the header, checked against the source's size, asks for.
fn read_elements(reader: &mut dyn Read, header: &Header, path: &Path) -> Result<Vec<u8>, DataError> {
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
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
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
