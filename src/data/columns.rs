//! Tables with one row a sample, as safetensors: a JSON header and columns whose axis 0 counts the rows.
//!
//! Rows are kept in files without names until the table is saved, so that a table may be larger than memory.

use super::DataError;
use super::array::read_exact_at;
use super::element::Element;
use crate::atomic::{folder, write_atomic};
use crate::digest::Digest;
use flate2::Crc;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Entry of the metadata that holds the header.
const ENTRY: &str = "samebit";

/// Entry of the metadata that holds a hash of the header and of every column's name, type and checksum.
const CHECKSUM: &str = "checksum";

/// Longest header of a file, as safetensors has it.
const MAX_HEADER: u64 = 100_000_000;

/// Name and type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub element: Element,
    /// Shape of a row.
    pub row: Vec<usize>,
}

impl ColumnType {
    /// A column.
    pub fn new(name: impl Into<String>, element: Element, row: &[usize]) -> ColumnType {
        ColumnType { name: name.into(), element, row: row.to_vec() }
    }

    /// Bytes of a row; `None` beyond what can be counted.
    fn row_bytes(&self) -> Option<usize> {
        self.row.iter().try_fold(self.element.size_bytes(), |n, d| n.checked_mul(*d))
    }
}

/// A table that grows. Columns appear with their first rows; all have the same number of rows when it is saved.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    columns: Vec<Growing>,
}

#[derive(Debug)]
struct Growing {
    ty: ColumnType,
    rows: usize,
    crc: Crc,
    spool: BufWriter<File>,
}

impl Growing {
    fn write(&mut self, rows: usize, bytes: &[u8]) -> io::Result<()> {
        self.rows += rows;
        self.crc.update(bytes);
        self.spool.write_all(bytes)
    }
}

impl Writer {
    /// A table that will be saved as `path`, beside which it is kept meanwhile.
    pub fn new(path: &Path) -> Writer {
        Writer { path: path.to_path_buf(), columns: Vec::new() }
    }

    /// The rows of a saved table, which is to go on.
    ///
    /// # Errors
    /// A failed read or write.
    pub fn resume(table: &Table) -> Result<Writer, DataError> {
        let mut writer = Writer::new(&table.path);
        for (ty, _) in &table.columns {
            let mut rows = table.reader(&ty.name)?;
            let column = writer.column(ty)?;
            column.rows = table.rows;
            let written = each_chunk(&mut rows, |bytes| column.write(0, bytes));
            written.map_err(|e| DataError::io(&table.path, "cannot copy its rows", &e))?;
        }
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds rows to a column.
    ///
    /// # Errors
    /// Rows of another type than those before, bytes that are not these rows, a failed write.
    pub fn append(&mut self, ty: &ColumnType, rows: usize, bytes: &[u8]) -> Result<(), DataError> {
        let path = self.path.clone();
        if ty.row_bytes().and_then(|n| n.checked_mul(rows)) != Some(bytes.len()) {
            let (name, n, row) = (&ty.name, bytes.len(), &ty.row);
            return Err(DataError::new(
                &path,
                format!("column {name}: {n} bytes are not {rows} rows of {row:?}"),
            ));
        }
        let written = self.column(ty)?.write(rows, bytes);
        written.map_err(|e| DataError::io(&path, "cannot write beside it", &e))
    }

    fn column(&mut self, ty: &ColumnType) -> Result<&mut Growing, DataError> {
        let at = self.columns.iter().position(|c| c.ty.name == ty.name);
        let at = match at {
            Some(at) if self.columns[at].ty == *ty => at,
            Some(at) => {
                let have = &self.columns[at].ty;
                let what = format!("column {}: rows of {:?} after others of {:?}", ty.name, ty.row, have.row);
                return Err(DataError::new(&self.path, what));
            }
            None => {
                let spool = tempfile::tempfile_in(folder(&self.path))
                    .map_err(|e| DataError::io(&self.path, "cannot write beside it", &e))?;
                let (ty, spool) = (ty.clone(), BufWriter::new(spool));
                self.columns.push(Growing { ty, rows: 0, crc: Crc::new(), spool });
                self.columns.len() - 1
            }
        };
        Ok(&mut self.columns[at])
    }

    /// Writes the table so far; the file is there whole or not at all. Equal rows and headers give equal bytes.
    ///
    /// # Errors
    /// Columns of different length, a failed write.
    pub fn save(&mut self, header: &str) -> Result<(), DataError> {
        let wrong = |what: String| DataError::new(&self.path, what);
        let rows = self.columns.first().map_or(0, |c| c.rows);
        if let Some(c) = self.columns.iter().find(|c| c.rows != rows) {
            return Err(wrong(format!("column {} has {} rows of {rows}", c.ty.name, c.rows)));
        }
        // Wide elements first, so that all are aligned.
        self.columns.sort_by(|a, b| {
            let key = |c: &Growing| std::cmp::Reverse(c.ty.element.size_bytes());
            (key(a), &a.ty.name).cmp(&(key(b), &b.ty.name))
        });
        let mut end = 0;
        let mut infos = Vec::new();
        for c in &self.columns {
            let bytes =
                c.ty.row_bytes().and_then(|n| n.checked_mul(rows)).ok_or_else(|| {
                    DataError::new(&self.path, format!("column {} is too large", c.ty.name))
                })?;
            let shape = [&[rows], c.ty.row.as_slice()].concat();
            let info = TensorInfo { dtype: stored(c.ty.element), shape, data_offsets: (end, end + bytes) };
            infos.push((c.ty.name.clone(), info));
            end += bytes;
        }
        let mut digest = digest(header);
        self.columns.iter().for_each(|c| add_column(&mut digest, &c.ty, rows, &c.crc));
        let entries = [(ENTRY, header.to_owned()), (CHECKSUM, digest.finish())];
        let entries: HashMap<String, String> = entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let metadata = Metadata::new(Some(entries), infos).map_err(|e| wrong(e.to_string()))?;
        let mut metadata = serde_json::to_value(&metadata).map_err(|e| wrong(e.to_string()))?;
        // The entries come in the order of a hash map, but equal rows are to give equal bytes.
        if let Some(entries) = metadata.get_mut("__metadata__").and_then(serde_json::Value::as_object_mut) {
            entries.sort_keys();
        }
        let mut text = serde_json::to_vec(&metadata).map_err(|e| wrong(e.to_string()))?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let columns = &mut self.columns;
        write_atomic(&self.path, |out| {
            out.write_all(&(text.len() as u64).to_le_bytes())?;
            out.write_all(&text)?;
            for c in columns {
                c.spool.flush()?;
                let bytes = c.ty.row_bytes().unwrap_or(0) as u64 * rows as u64;
                io::copy(&mut Section { file: c.spool.get_ref(), at: 0, left: bytes }, out)?;
            }
            Ok(())
        })
        .map_err(|e| DataError::io(&self.path, "cannot write", &e))
    }
}

fn digest(header: &str) -> Digest {
    let mut digest = Digest::new();
    digest.part(header);
    digest
}

fn add_column(digest: &mut Digest, ty: &ColumnType, rows: usize, crc: &Crc) {
    digest.part(format!("{} {:?} {:?} {rows} {:08x}", ty.name, ty.element, ty.row, crc.sum()));
}

/// Hands all that a reader holds to `f`, part by part.
fn each_chunk(reader: &mut dyn Read, mut f: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => f(&chunk[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn stored(element: Element) -> Dtype {
    match element {
        Element::Bool => Dtype::BOOL,
        Element::I8 => Dtype::I8,
        Element::U8 => Dtype::U8,
        Element::I16 => Dtype::I16,
        Element::U16 => Dtype::U16,
        Element::I32 => Dtype::I32,
        Element::U32 => Dtype::U32,
        Element::I64 => Dtype::I64,
        Element::U64 => Dtype::U64,
        Element::F16 => Dtype::F16,
        Element::F32 => Dtype::F32,
        Element::F64 => Dtype::F64,
    }
}

/// A saved table.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    file: File,
    header: String,
    checksum: String,
    /// With the offset of their first row.
    columns: Vec<(ColumnType, u64)>,
    rows: usize,
}

impl Table {
    /// Opens a table and reads it once, to see that it is what was written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Table, DataError> {
        let table = Self::peek(path)?;
        let mut digest = digest(&table.header);
        for (ty, _) in &table.columns {
            let mut crc = Crc::new();
            each_chunk(&mut table.reader(&ty.name)?, |bytes| {
                crc.update(bytes);
                Ok(())
            })
            .map_err(|e| DataError::io(path, "cannot read", &e))?;
            add_column(&mut digest, ty, table.rows, &crc);
        }
        if digest.finish() != table.checksum {
            return Err(
                DataError::new(path, "its checksum is wrong: the file is damaged").help("make it again")
            );
        }
        Ok(table)
    }

    /// Opens a table and checks that its columns fit together and fill the file, but not what they hold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn peek(path: &Path) -> Result<Table, DataError> {
        let failed = |e: io::Error| DataError::io(path, "cannot read", &e);
        let wrong = |what: String| DataError::new(path, format!("not a partial result of samebit: {what}"));
        let mut file = File::open(path).map_err(|e| DataError::io(path, "cannot open", &e))?;
        let len = file.metadata().map_err(failed)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| wrong("it is shorter than a header".into()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size.checked_add(8).is_none_or(|end| end > len) {
            return Err(wrong(format!("a header of {size} bytes in a file of {len}")));
        }
        let mut text = Vec::new();
        (&mut file).take(size).read_to_end(&mut text).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let end = 8 + size + metadata.data_len() as u64;
        if end != len {
            return Err(
                wrong(format!("it has {len} bytes, its columns end at {end}")).help("the file is damaged")
            );
        }
        let entry = |name: &str| {
            let found = metadata.metadata().as_ref().and_then(|m| m.get(name)).cloned();
            found.ok_or_else(|| wrong(format!("no entry {name:?}")))
        };
        let (header, checksum) = (entry(ENTRY)?, entry(CHECKSUM)?);
        let mut columns = Vec::new();
        let mut rows = None;
        for (name, info) in metadata.tensors() {
            let element = Element::ALL.iter().map(|(e, ..)| *e).find(|e| stored(*e) == info.dtype);
            let element = element.ok_or_else(|| wrong(format!("column {name} of {:?}", info.dtype)))?;
            let (n, row) =
                info.shape.split_first().ok_or_else(|| wrong(format!("column {name} is a scalar")))?;
            if *rows.get_or_insert(*n) != *n {
                return Err(wrong(format!("column {name} has {n} rows, others do not")));
            }
            columns.push((ColumnType::new(name, element, row), 8 + size + info.data_offsets.0 as u64));
        }
        // As they were written; a column without bytes begins where the next one does.
        columns.sort_by(|(a, _): &(ColumnType, u64), (b, _)| {
            let key = |ty: &ColumnType| std::cmp::Reverse(ty.element.size_bytes());
            (key(a), &a.name).cmp(&(key(b), &b.name))
        });
        Ok(Table { path: path.to_path_buf(), file, header, checksum, columns, rows: rows.unwrap_or(0) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A column's type, if there is such a column.
    pub fn column(&self, name: &str) -> Option<&ColumnType> {
        self.columns.iter().map(|(ty, _)| ty).find(|ty| ty.name == name)
    }

    /// A column's rows, to be read from the first on. A table without rows has no columns, and this is then empty.
    ///
    /// # Errors
    /// No such column.
    pub fn reader(&self, name: &str) -> Result<impl Read, DataError> {
        let found = self.columns.iter().find(|(ty, _)| ty.name == name);
        let (at, bytes) = match found {
            Some((ty, start)) => (*start, ty.row_bytes().unwrap_or(0) as u64 * self.rows as u64),
            None if self.rows == 0 => (0, 0),
            None => return Err(DataError::new(&self.path, format!("has no column {name}"))),
        };
        Ok(BufReader::with_capacity(1 << 16, Section { file: &self.file, at, left: bytes }))
    }

    /// A column of numbers, each row one or several.
    ///
    /// # Errors
    /// No such column, one of other elements, a failed read.
    pub fn numbers<T, const B: usize>(
        &self,
        name: &str,
        element: Element,
        read: impl Fn([u8; B]) -> T,
    ) -> Result<Vec<T>, DataError> {
        if let Some(ty) = self.column(name).filter(|ty| ty.element != element) {
            return Err(DataError::new(&self.path, format!("column {name} is of {:?}", ty.element)));
        }
        let mut bytes = Vec::new();
        self.reader(name)?
            .read_to_end(&mut bytes)
            .map_err(|e| DataError::io(&self.path, "cannot read", &e))?;
        Ok(bytes.as_chunks::<B>().0.iter().map(|b| read(*b)).collect())
    }
}

/// Joins tables whose rows are in the order of a column of u64 keys, each key once, in that order.
///
/// # Errors
/// Tables of other columns, a key twice or out of order, a failed read or write.
pub fn join(tables: &[Table], key: &str, out: &mut Writer) -> Result<(), DataError> {
    let filled: Vec<&Table> = tables.iter().filter(|t| t.rows > 0).collect();
    let Some(first) = filled.first() else { return Ok(()) };
    let types = |t: &Table| -> BTreeMap<String, ColumnType> {
        t.columns.iter().map(|(ty, _)| (ty.name.clone(), ty.clone())).collect()
    };
    let wanted = types(first);
    // Which table each row comes from.
    let mut order: Vec<(u64, usize)> = Vec::new();
    for (i, t) in filled.iter().enumerate() {
        if types(t) != wanted {
            let what = format!("holds other columns than {}", first.path.display());
            return Err(DataError::new(&t.path, what));
        }
        let keys = t.numbers(key, Element::U64, u64::from_le_bytes)?;
        if !keys.is_sorted_by(|a, b| a < b) {
            return Err(DataError::new(&t.path, format!("its {key}s are not in order: the file is damaged")));
        }
        order.extend(keys.into_iter().map(|k| (k, i)));
    }
    order.sort_unstable();
    if let Some(twice) = order.windows(2).find(|w| w[0].0 == w[1].0) {
        let (a, b) = (filled[twice[0].1], &filled[twice[1].1].path);
        return Err(DataError::new(b, format!("{key} {} is in {}, too", twice[0].0, a.path.display())));
    }
    for ty in wanted.values() {
        let mut readers = filled.iter().map(|t| t.reader(&ty.name)).collect::<Result<Vec<_>, _>>()?;
        let mut row = vec![0; ty.row_bytes().unwrap_or(0)];
        for (_, i) in &order {
            readers[*i]
                .read_exact(&mut row)
                .map_err(|e| DataError::io(&filled[*i].path, "cannot read", &e))?;
            out.append(ty, 1, &row)?;
        }
    }
    Ok(())
}

/// A part of a file, read at offsets: a file may have several readers.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        read_exact_at(self.file, &mut buffer[..n], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
