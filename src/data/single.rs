//! One input from one file, as `run` takes it: npy, npz, an image, a text of numbers, raw bytes.

use super::config::split_key;
use super::npz::only_array;
use super::{Array, DataError};
use crate::tensor::{DType, Dim, Tensor, TensorType, element_count, strides};
use std::path::Path;

/// Largest text file that is read as numbers.
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// Reads a file as a graph input of type `ty`, whose symbolic batch it decides; a missing batch axis is added.
///
/// - `.npy`: the array. `.npz:KEY`, or `.npz` where there is one: an array of the archive.
/// - `.jpg`, `.jpeg`, `.png`: raw values 0..255, RGB or gray by the number of channels (axis 1), not resized.
/// - `.txt`, `.csv`: numbers separated by blanks or commas, in the order of the input.
/// - `.bin`, `.raw`: little-endian elements of the input's type.
///
/// With `nhwc` the file has channels last (images always do).
///
/// # Errors
/// A file that is none of these, cannot be read, or does not fit the type.
pub fn read_input(path: &Path, ty: &TensorType, nhwc: bool) -> Result<Tensor, DataError> {
    let (path, key) = &split_key(path);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "npy" => read_array(path, &Array::open(path)?, ty, nhwc),
        "npz" => {
            let key = key.clone().map_or_else(|| only_array(path), Ok)?;
            read_array(path, &Array::open_npz(path, &key)?, ty, nhwc)
        }
        "jpg" | "jpeg" | "png" => fit(path, &read_image(path, ty)?, ty, true).map_err(|e| {
            e.help(
                "images are not resized here: use `eval` with a data set that says how, or resize the file",
            )
        }),
        "txt" | "csv" => {
            let numbers = read_numbers(path)?;
            let shape = batch_shape(path, numbers.len(), ty, nhwc)?;
            fit(path, &Tensor::from_f32(shape, numbers), ty, nhwc)
        }
        "bin" | "raw" => read_raw(path, ty, nhwc),
        _ => Err(DataError::new(path, format!("a file named .{extension} is not known as an input"))
            .help("give .npy, .npz:KEY, .jpg, .png, .txt, .csv, .bin or .raw")),
    }
}

/// The header is compared with the type before anything is read.
fn read_array(path: &Path, array: &Array, ty: &TensorType, nhwc: bool) -> Result<Tensor, DataError> {
    fitted(path, array.shape(), ty, nhwc)?;
    fit(path, &array.read()?, ty, nhwc)
}

fn read_image(path: &Path, ty: &TensorType) -> Result<Tensor, DataError> {
    let bad = |e: image::ImageError| DataError::new(path, format!("cannot decode the image: {e}"));
    let open = |e| DataError::io(path, "cannot open", &e);
    let reader = image::ImageReader::open(path).map_err(open)?;
    let img = reader.with_guessed_format().map_err(open)?.decode().map_err(bad)?;
    let (w, h) = (img.width() as usize, img.height() as usize);
    let (channels, codes) = match ty.shape.get(1).and_then(|d| d.fixed()) {
        Some(1) => (1, img.into_luma8().into_raw()),
        Some(3) => (3, img.into_rgb8().into_raw()),
        _ => {
            return Err(DataError::new(path, format!("an image does not fit an input of type {ty}"))
                .help("images go to inputs [N, 3, h, w] or [N, 1, h, w]"));
        }
    };
    Ok(Tensor::from_u8([1, h, w, channels], codes))
}

fn read_numbers(path: &Path) -> Result<Vec<f32>, DataError> {
    let size = std::fs::metadata(path).map_err(|e| DataError::io(path, "cannot open", &e))?.len();
    if size > MAX_TEXT_BYTES {
        return Err(
            DataError::new(path, format!("{size} bytes of text are too many")).help("give it as .npy")
        );
    }
    let text = std::fs::read_to_string(path).map_err(|e| DataError::io(path, "cannot read", &e))?;
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()) {
            let number = word
                .parse()
                .map_err(|_| DataError::new(path, format!("line {}: {word:?} is not a number", n + 1)))?;
            out.push(number);
        }
    }
    Ok(out)
}

fn read_raw(path: &Path, ty: &TensorType, nhwc: bool) -> Result<Tensor, DataError> {
    let bytes = std::fs::read(path).map_err(|e| DataError::io(path, "cannot read", &e))?;
    let size = ty.dtype.size_bytes();
    if !bytes.len().is_multiple_of(size) {
        let what = format!("{} bytes are no whole number of {} elements", bytes.len(), ty.dtype);
        return Err(DataError::new(path, what));
    }
    let shape = batch_shape(path, bytes.len() / size, ty, nhwc)?;
    let tensor = Tensor::from_bytes(ty.dtype, &shape, &bytes)
        .ok_or_else(|| DataError::new(path, "a truth value is neither 0 nor 1"))?;
    fit(path, &tensor, ty, nhwc)
}

/// The shape of `n` elements of type `ty`: N is what remains. In the order of the file.
fn batch_shape(path: &Path, n: usize, ty: &TensorType, nhwc: bool) -> Result<Vec<usize>, DataError> {
    let one: Option<Vec<usize>> = ty.shape.iter().map(|d| d.at(1)).collect();
    let frame = one.as_deref().and_then(element_count).filter(|f| *f > 0);
    let batch = frame.filter(|f| n.is_multiple_of(*f)).map(|f| n / f);
    let symbolic = ty.is_symbolic();
    let batch = batch.filter(|b| *b == 1 || (symbolic && *b > 0));
    let shape: Option<Vec<usize>> = batch.and_then(|b| ty.shape.iter().map(|d| d.at(b)).collect());
    let shape = shape.ok_or_else(|| DataError::new(path, format!("{n} elements do not fit {ty}")))?;
    Ok(if nhwc { to_channels_last(&shape) } else { shape })
}

fn to_channels_last(shape: &[usize]) -> Vec<usize> {
    let mut out = shape.to_vec();
    if out.len() >= 3 {
        out[1..].rotate_left(1);
    }
    out
}

/// Brings a tensor to the graph's order, rank and element type, and checks its dimensions.
fn fit(path: &Path, tensor: &Tensor, ty: &TensorType, nhwc: bool) -> Result<Tensor, DataError> {
    let shape = fitted(path, tensor.shape(), ty, nhwc)?;
    let mut tensor = tensor.reshaped(shape);
    if nhwc && tensor.rank() >= 3 {
        tensor = channels_first(&tensor);
    }
    convert(path, tensor, ty.dtype)
}

/// A shape as the file has it, with the batch axis, that fits the type.
fn fitted(path: &Path, shape: &[usize], ty: &TensorType, nhwc: bool) -> Result<Vec<usize>, DataError> {
    let mut shape = shape.to_vec();
    if shape.len() + 1 == ty.rank() {
        shape.insert(0, 1);
    }
    let mut got = shape.clone();
    if nhwc && got.len() >= 3 {
        got[1..].rotate_right(1);
    }
    let fits = got.len() == ty.rank()
        && got.iter().zip(&ty.shape).all(|(have, want)| match want {
            Dim::Fixed(d) => have == d,
            Dim::Batch(k) => *have > 0 && have.is_multiple_of(*k),
        });
    if fits {
        return Ok(shape);
    }
    Err(DataError::new(path, format!("its shape {got:?} does not fit the input's {ty}")))
}

/// `[n, .., c]` as `[n, c, ..]`.
pub(crate) fn channels_first(x: &Tensor) -> Tensor {
    let rank = x.rank();
    let mut shape = x.shape().to_vec();
    shape[1..].rotate_right(1);
    let from = strides(x.shape());
    // Axis 1 of the result is the last of the source, the others move one back.
    let source: Vec<usize> = (0..rank)
        .map(|a| {
            from[if a == 0 {
                0
            } else if a == 1 {
                rank - 1
            } else {
                a - 1
            }]
        })
        .collect();
    let size = x.dtype().size_bytes();
    let mut bytes = Vec::with_capacity(x.bytes().len());
    let to = strides(&shape);
    for i in 0..x.len() {
        let at: usize = (0..rank).map(|a| i / to[a] % shape[a] * source[a]).sum();
        bytes.extend_from_slice(&x.bytes()[at * size..(at + 1) * size]);
    }
    Tensor::from_bytes(x.dtype(), &shape, &bytes).expect("the same elements")
}

/// The same numbers as another type, where each is kept.
fn convert(path: &Path, x: Tensor, to: DType) -> Result<Tensor, DataError> {
    if x.dtype() == to {
        return Ok(x);
    }
    let from = x.dtype();
    let lossy = || {
        DataError::new(path, format!("its elements are {from}, and not all of them are {to} values"))
            .help(format!("store it as {to}"))
    };
    let wide = || (0..x.len()).map(|i| x.number(i));
    let shape = x.shape();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked by the comparison after it"
    )]
    let narrow = |low: f64, high: f64| wide().all(|v| v.fract() == 0.0 && (low..=high).contains(&v));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let out = match to {
        DType::F32 if wide().all(|v| f64::from(v as f32) == v || v.is_nan()) => {
            Tensor::from_f32(shape, wide().map(|v| v as f32).collect())
        }
        DType::Bool if narrow(0.0, 1.0) => Tensor::from_bool(shape, wide().map(|v| v as u8).collect()),
        _ => {
            let (low, high) = to.limits().ok_or_else(lossy)?;
            if !narrow(f64::from(low), f64::from(high)) {
                return Err(lossy());
            }
            let codes: Vec<i32> = wide().map(|v| v as i32).collect();
            Tensor::from_codes(to, shape, &codes).ok_or_else(lossy)?
        }
    };
    Ok(out)
}
