//! Inputs as a host must give them to a device: quantized, rows padded.

use crate::data::dump::encode_name;
use crate::data::write_npy;
use crate::error::{Error, write_file};
use crate::graph::{Graph, ValueId};
use crate::quant::QParams;
use crate::tensor::Tensor;
use serde_json::{Value, json};
use std::path::Path;

/// Bytes of which rows of prepared inputs are multiples.
const ROW: usize = 16;

/// What the codes of an input stand for: of the input itself, or of what its quantizer makes of it.
fn params(graph: &Graph, v: ValueId) -> Option<QParams> {
    let of_codes = graph.code_params();
    if let Some(p) = of_codes.get(&v) {
        return Some(p.clone());
    }
    let takers = graph.nodes().iter().filter(|n| n.inputs.contains(&v));
    let mut all = takers.filter_map(|n| match n.quantizer() {
        Some(q) => q.active().cloned(),
        None if n.quantizes() => of_codes.get(&n.outputs[0]).cloned(),
        None => None,
    });
    let first = all.next().filter(|p| p.scales().len() == 1)?;
    // Where two quantizers take it the host cannot know which.
    all.all(|p| p.same_codes(&first)).then_some(first)
}

/// Channels last, for images; other tensors as they are.
fn channels_last(t: &Tensor) -> Tensor {
    let [n, c, h, w] = *t.shape() else { return t.clone() };
    let size = t.dtype().size_bytes();
    let mut bytes = Vec::with_capacity(t.bytes().len());
    for (n, y, x, c) in (0..n)
        .flat_map(|n| (0..h).flat_map(move |y| (0..w).flat_map(move |x| (0..c).map(move |c| (n, y, x, c)))))
    {
        let at = (((n * t.shape()[1] + c) * h + y) * w + x) * size;
        bytes.extend_from_slice(&t.bytes()[at..at + size]);
    }
    Tensor::from_bytes(t.dtype(), &[n, h, w, c], &bytes).expect("the same elements in another order")
}

/// Rows, each followed by codes of zero up to a multiple of [`ROW`] bytes, and how many elements one has then. A row is the
/// last axis, channels last the last two.
fn padded(t: &Tensor, zero: i32, nhwc: bool) -> (Vec<u8>, usize) {
    let axes = if nhwc && t.rank() == 4 { 2 } else { 1 };
    let row: usize = t.shape().iter().rev().take(axes).product();
    let size = t.dtype().size_bytes();
    let full = (row * size).next_multiple_of(ROW);
    let zero = &zero.to_le_bytes()[..size];
    let mut out = Vec::with_capacity(t.bytes().len() / (row * size).max(1) * full);
    for bytes in t.bytes().chunks((row * size).max(1)) {
        out.extend_from_slice(bytes);
        (0..(full - bytes.len()) / size).for_each(|_| out.extend_from_slice(zero));
    }
    (out, full / size)
}

/// Writes the inputs of a run: NAME.npy, NAME.bin with padded rows, and index.json, which says what they are.
pub(super) fn prepare(dir: &Path, graph: &Graph, inputs: &[Tensor], nhwc: bool) -> Result<Value, Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    let mut infos = serde_json::Map::new();
    for (v, t) in graph.inputs.iter().zip(inputs) {
        let name = &graph.value(*v).name;
        let params = params(graph, *v);
        let codes = match (&params, t.as_f32()) {
            (Some(p), Some(x)) => {
                let codes: Vec<i32> = x.iter().map(|x| p.step(0).quantize(*x)).collect();
                Tensor::from_codes(p.dtype(), t.shape(), &codes).expect("clamped to the type")
            }
            _ => t.clone(),
        };
        let codes = if nhwc { channels_last(&codes) } else { codes };
        let zero = params.as_ref().map_or(0, |p| p.zero_points()[0]);
        let (bytes, row) = padded(&codes, zero, nhwc);
        let file = |extension: &str| dir.join(format!("{}.{extension}", encode_name(name)));
        write_npy(&file("npy"), &codes)?;
        write_file(&file("bin"), &bytes)?;
        infos.insert(
            name.clone(),
            json!({
                "shape": codes.shape(),
                "dtype": codes.dtype().name(),
                "layout": if nhwc && codes.rank() == 4 { "nhwc" } else { "nchw" },
                "scale": params.as_ref().map(|p| p.scales()),
                "zero_point": params.as_ref().map(|p| p.zero_points()),
                "kind": if params.is_some() { "codes" } else { "values" },
                "padded_row": row,
                "npy": file("npy").display().to_string(),
                "bin": file("bin").display().to_string(),
            }),
        );
    }
    let index = json!({ "inputs": infos });
    write_file(&dir.join("index.json"), format!("{index:#}\n").as_bytes())?;
    Ok(index["inputs"].clone())
}
