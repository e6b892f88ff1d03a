//! The window that slides over the spatial axes of a convolution.

use crate::graph::{Attrs, OpError, Reader};
use crate::tensor::TensorType;

/// Largest kernel size, stride, dilation and padding: kernels compute positions in `i32`.
const LARGEST: usize = 1 << 24;

/// One entry per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads_begin: Vec<usize>,
    pub pads_end: Vec<usize>,
}

/// How ONNX says that padding is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum AutoPad {
    NotSet,
    Valid,
    SameUpper,
    SameLower,
}

impl Window {
    /// Reads `kernel_shape` (else from the weights, input 1), `strides`, `dilations`, `pads` and `auto_pad`.
    pub fn read(r: &mut Reader) -> Result<(Window, AutoPad), OpError> {
        let counted = spatial_axes(r);
        let kernel = list(r, "kernel_shape", counted, 1)?;
        let strides = list(r, "strides", counted, 1)?;
        let dilations = list(r, "dilations", counted, 1)?;
        let auto = match r.one_of("auto_pad", "NOTSET", &["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])? {
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            _ => AutoPad::NotSet,
        };
        let pads = if auto == AutoPad::NotSet {
            list(r, "pads", counted.map(|n| 2 * n), 0)?
        } else {
            // ONNX: not used together with auto_pad. Exporters write zeros.
            r.ignore("pads");
            None
        };
        let weights = r.input(1)?;
        let spatial =
            counted.ok_or(OpError::Rank { input: 1, expected: "3, 4 or 5", got: weights.rank() })?;
        let of_weights = || weights.shape[2..].iter().map(|d| d.fixed()).collect::<Option<Vec<usize>>>();
        let kernel = kernel.or_else(of_weights).ok_or(OpError::SymbolicDim { input: 1, axis: 2 })?;
        let strides = strides.unwrap_or_else(|| vec![1; spatial]);
        let dilations = dilations.unwrap_or_else(|| vec![1; spatial]);
        let pads = pads.unwrap_or_else(|| vec![0; 2 * spatial]);
        let (begin, end) = pads.split_at(spatial);
        let (pads_begin, pads_end) = (begin.to_vec(), end.to_vec());
        Ok((Window { kernel, strides, dilations, pads_begin, pads_end }, auto))
    }

    /// Adds what [`Window::read`] reads.
    pub fn attrs(&self, a: Attrs) -> Attrs {
        let pads = [&self.pads_begin[..], &self.pads_end[..]].concat();
        a.sizes("kernel_shape", &self.kernel)
            .sizes("strides", &self.strides)
            .sizes("dilations", &self.dilations)
            .sizes("pads", &pads)
    }

    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// Length of axis `i` that the dilated kernel covers. Cannot overflow: both factors are at most 2^24.
    pub fn extent(&self, i: usize) -> usize {
        (self.kernel[i] - 1) * self.dilations[i] + 1
    }

    /// Distributes `total` padding of axis `i`.
    pub fn pad(&mut self, i: usize, total: usize, auto: AutoPad) {
        let (small, large) = (total / 2, total - total / 2);
        let (begin, end) = if auto == AutoPad::SameLower { (large, small) } else { (small, large) };
        self.pads_begin[i] = begin;
        self.pads_end[i] = end;
    }

    /// Whether it is one element wide, moves by one and needs no padding.
    pub fn is_point(&self) -> bool {
        let all = |v: &[usize], x: usize| v.iter().all(|y| *y == x);
        all(&self.kernel, 1) && all(&self.strides, 1) && all(&self.pads_begin, 0) && all(&self.pads_end, 0)
    }

    /// The same window over three spatial axes: `[depth, height, width]`, the missing ones in front.
    pub fn three(&self) -> [Axis; 3] {
        let mut out = [Axis { kernel: 1, stride: 1, dilation: 1, pad: 0 }; 3];
        let front = 3 - self.rank();
        for (i, a) in out[front..].iter_mut().enumerate() {
            *a = Axis {
                kernel: self.kernel[i],
                stride: self.strides[i],
                dilation: self.dilations[i],
                pad: self.pads_begin[i],
            };
        }
        out
    }
}

/// The window along one axis.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ops) struct Axis {
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub pad: usize,
}

/// Lengths of three spatial axes from the last axes of a shape `[n, c, spatial..]`.
pub(in crate::ops) fn three(shape: &[usize]) -> [usize; 3] {
    let mut out = [1; 3];
    let spatial = &shape[2..];
    out[3 - spatial.len()..].copy_from_slice(spatial);
    out
}

/// Number of spatial axes by the weights (input 1), where these are known and have some.
pub(in crate::ops) fn spatial_axes(r: &Reader) -> Option<usize> {
    r.input(1).ok().map(TensorType::rank).filter(|rank| (3..=5).contains(rank)).map(|rank| rank - 2)
}

/// An attribute of `len` integers, any number of them where that is not known, in `least..=LARGEST`.
pub(in crate::ops) fn list(
    r: &mut Reader,
    name: &str,
    len: Option<usize>,
    least: usize,
) -> Result<Option<Vec<usize>>, OpError> {
    let Some(v) = r.ints(name)? else { return Ok(None) };
    let sizes: Option<Vec<usize>> =
        v.iter().map(|x| usize::try_from(*x).ok().filter(|x| (least..=LARGEST).contains(x))).collect();
    match sizes {
        Some(s) if len.is_none_or(|len| s.len() == len) => Ok(Some(s)),
        _ => {
            let count = len.map_or_else(String::new, |len| format!("{len} "));
            let supported = format!("{count}integers in {least}..={LARGEST}");
            Err(r.unsupported(name, format!("{v:?}"), &supported))
        }
    }
}

/// Checks data (input 0, `[n, c, spatial..]`) and weights (input 1) against a window; returns the lengths of the
/// spatial axes and the shape of the weights.
pub(in crate::ops) fn check_operands(
    window: &Window,
    inputs: &[TensorType],
) -> Result<(Vec<usize>, Vec<usize>), OpError> {
    use crate::graph::op::check;
    check::arity(inputs, 2, 3, "2 or 3")?;
    (0..inputs.len()).try_for_each(|i| check::f32(inputs, i))?;
    let rank = window.rank() + 2;
    for (i, t) in inputs[..2].iter().enumerate() {
        if t.rank() != rank {
            let expected = ["3", "4", "5"][window.rank() - 1];
            return Err(OpError::Rank { input: i, expected, got: t.rank() });
        }
    }
    let weights = check::dims(inputs, 1)?;
    let spatial = (2..rank).map(|a| check::fixed(inputs, 0, a)).collect::<Result<Vec<_>, _>>()?;
    if weights[2..] != window.kernel[..] || weights.contains(&0) {
        let expected = format!("[at least 1, at least 1] and {:?}", window.kernel);
        return Err(OpError::shape(1, expected, &inputs[1]));
    }
    if spatial.iter().any(|d| !(1..1 << 30).contains(d)) {
        return Err(OpError::shape(0, "[n, c] and 1..2^30 on each spatial axis", &inputs[0]));
    }
    Ok((spatial, weights))
}
