//! NumPy arrays, read by row ranges.

use super::DataError;
use super::element::Element;
use super::fingerprint::places;
use super::npy::Header;
use super::npz::Inflated;
use crate::digest::Digest;
use crate::tensor::{Tensor, element_count};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of rows that are brought to C order at a time, for arrays in Fortran order.
const BAND: usize = 16 << 20;

/// Places of a file that are hashed to tell it from others, see [`places`].
const PLACES: u64 = 1024;

/// Where the elements are.
#[derive(Debug)]
pub(super) enum Store {
    /// In a file, from this offset on.
    File(File, u64),
    Inflated(Box<Inflated>),
}

/// Rows in C order of an array in Fortran order.
#[derive(Debug)]
struct Band {
    rows: Range<usize>,
    bytes: Vec<u8>,
}

/// An array whose rows (indices of axis 0) are read on request.
///
/// A file in C order is read where the rows are, an archive's deflated member from its start to the last row asked for;
/// Fortran order is brought to C order some rows at a time. Opening it reads the header alone.
#[derive(Debug)]
pub struct Array {
    path: PathBuf,
    header: Header,
    store: Store,
    /// For Fortran order only: the rows that were read last, and those around them. Two, as threads that read ahead are
    /// on both sides of an edge.
    bands: Mutex<Vec<Band>>,
    /// Of a member of an archive, as the archive has it.
    checksum: Option<u32>,
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
        let start = header.len as u64;
        Ok(Array::new(path, header, Store::File(file, start), None))
    }

    /// An array whose elements, as many as the header says, are in `store`; with the checksum of an archive's member.
    pub(super) fn new(path: &Path, header: Header, store: Store, checksum: Option<u32>) -> Array {
        Array { path: path.to_path_buf(), header, store, bands: Mutex::default(), checksum }
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
        let bytes = self.bytes_of(rows)?;
        self.header.element.tensor(&shape, &bytes).map_err(|what| DataError::new(&self.path, what))
    }

    /// The elements of rows as integers, such as labels.
    ///
    /// # Errors
    /// Float elements, values beyond i64, a failed read.
    pub fn integers(&self, rows: Range<usize>) -> Result<Vec<i64>, DataError> {
        let bytes = self.bytes_of(rows)?;
        self.header.element.integers(&bytes).ok_or_else(|| {
            DataError::new(
                &self.path,
                format!("holds {}, not integers that fit i64", self.header.element.descr()),
            )
        })
    }

    /// The stored bytes of rows, in C order.
    ///
    /// # Errors
    /// Rows beyond the last, more elements than a tensor may have, a failed read.
    pub(super) fn bytes_of(&self, rows: Range<usize>) -> Result<Vec<u8>, DataError> {
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
        if !self.header.is_c_order() && count > 0 {
            return self.transposed(rows, row);
        }
        let mut bytes = Vec::new();
        let (file, first) = self.file(rows.start as u64 * row as u64 + (count * size) as u64)?;
        bytes.resize(count * size, 0);
        let at = first + rows.start as u64 * row as u64;
        read_exact_at(file, &mut bytes, at).map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
        Ok(bytes)
    }

    /// The file that holds at least the first `end` element bytes, and where they begin.
    fn file(&self, end: u64) -> Result<(&File, u64), DataError> {
        match &self.store {
            Store::File(file, first) => Ok((file, *first)),
            // Unpacked before memory is asked for, so that a false shape costs none.
            Store::Inflated(member) => {
                let file = member.up_to(end).map_err(|what| DataError::new(&self.path, what))?;
                Ok((file, 0))
            }
        }
    }

    /// Tells the elements from others: by the archive's checksum, or by their number and a hash of up to 1024 evenly
    /// spaced blocks of 4 KiB, which are all of an array of up to 4 MiB.
    ///
    /// # Errors
    /// A failed read.
    pub(super) fn fingerprint(&self) -> Result<String, DataError> {
        let len = self.header.data_bytes().unwrap_or(0);
        let (file, first) = match (&self.store, self.checksum) {
            (Store::File(file, first), None) => (file, *first),
            (_, checksum) => return Ok(format!("{len} {checksum:?}")),
        };
        let mut digest = Digest::new();
        let mut block = Vec::new();
        for (at, n) in places(len, PLACES) {
            block.resize(n, 0);
            read_exact_at(file, &mut block, first + at)
                .map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
            digest.part(&block);
        }
        Ok(format!("{len} {}", digest.finish()))
    }

    /// Whether a row's elements lie together.
    pub(super) fn is_c_order(&self) -> bool {
        self.header.is_c_order()
    }

    /// Adds some places of a row.
    ///
    /// # Errors
    /// A failed read.
    pub(super) fn digest_row(&self, row: usize, most: u64, digest: &mut Digest) -> Result<(), DataError> {
        let elements = element_count(self.header.shape.get(1..).unwrap_or_default());
        let len = elements.and_then(|n| n.checked_mul(self.header.element.size_bytes()));
        let len = len.ok_or_else(|| DataError::new(&self.path, "its rows are too large"))? as u64;
        if !self.is_c_order() {
            let bytes = self.bytes_of(row..row + 1)?;
            places(len, most).for_each(|(at, n)| digest.part(&bytes[at as usize..at as usize + n]));
            return Ok(());
        }
        let begin = row as u64 * len;
        let (file, first) = self.file(begin + len)?;
        let mut block = Vec::new();
        for (at, n) in places(len, most) {
            block.resize(n, 0);
            read_exact_at(file, &mut block, first + begin + at)
                .map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
            digest.part(&block);
        }
        Ok(())
    }

    /// Rows of `row` bytes of an array in Fortran order. Few rows are read with those that follow, as the next to be
    /// asked for are among these.
    fn transposed(&self, rows: Range<usize>, row: usize) -> Result<Vec<u8>, DataError> {
        let most = (BAND / row).max(1);
        if rows.len() > most {
            return self.gather(rows, row);
        }
        // A panic leaves whole bands.
        let mut bands = self.bands.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |b: &Band| b.rows.start <= rows.start && rows.end <= b.rows.end;
        if !bands.iter().any(holds) {
            bands.truncate(1);
            let start = rows.start / most * most;
            let start = if rows.end <= start.saturating_add(most) { start } else { rows.start };
            let wider = start..start.saturating_add(most).min(self.rows());
            bands.insert(0, Band { bytes: self.gather(wider.clone(), row)?, rows: wider });
        }
        let band = bands.iter().find(|b| holds(b)).unwrap_or(&bands[0]);
        let from = (rows.start - band.rows.start) * row;
        Ok(band.bytes[from..from + rows.len() * row].to_vec())
    }

    /// Reads rows of `row` bytes in Fortran order, where the rows of one inner index are neighbours.
    fn gather(&self, rows: Range<usize>, row: usize) -> Result<Vec<u8>, DataError> {
        let size = self.header.element.size_bytes();
        let inner = &self.header.shape[1..];
        let (file, first) = self.file(self.rows() as u64 * row as u64)?;
        let mut out = vec![0; rows.len() * row];
        let mut column = vec![0; rows.len() * size];
        let mut index = vec![0; inner.len()];
        for at in (0..row).step_by(size) {
            let column_at = index.iter().zip(inner).rev().fold(0, |n, (i, d)| n * d + i);
            let offset = (column_at as u64 * self.rows() as u64 + rows.start as u64) * size as u64;
            read_exact_at(file, &mut column, first + offset)
                .map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
            for (element, row) in column.chunks_exact(size).zip(out.chunks_exact_mut(row)) {
                row[at..at + size].copy_from_slice(element);
            }
            for a in (0..inner.len()).rev() {
                index[a] += 1;
                if index[a] < inner[a] {
                    break;
                }
                index[a] = 0;
            }
        }
        Ok(out)
    }
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
