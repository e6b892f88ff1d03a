//! The window that slides over the spatial axes, with ONNX's rules for its padding and for the number of its positions.

use crate::graph::attrs::Attrs;
use crate::graph::lower::u32;
use crate::graph::op::check;
use crate::graph::{OpError, Place, Reader};
use crate::tensor::{Dim, TensorType};
use std::ops::Range;

/// Largest kernel size, stride, dilation and padding: sums of products of two stay in 64 bits.
const LARGEST: usize = 1 << 24;

/// Attributes, one entry an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// All beginnings, then all ends.
    pads: Vec<usize>,
    auto_pad: &'static str,
    ceil: bool,
}

/// One axis of a window over an input of a known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    stride: usize,
    dilation: usize,
    begin: usize,
    end: usize,
}

impl Axis {
    /// An axis that is not there.
    const ONE: Axis = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, end: 0 };

    /// Positions in the input of the taps of output `o` that lie inside it.
    pub fn taps(&self, o: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let Axis { input, kernel, stride, dilation, begin, .. } = *self;
        (0..kernel)
            .filter_map(move |t| (o * stride + t * dilation).checked_sub(begin))
            .filter(move |p| *p < input)
    }

    /// Whether its one window is the input.
    pub fn is_whole(&self) -> bool {
        self.kernel == self.input && self.begin == 0 && self.end == 0
    }

    /// Outputs whose tap `t` lies inside the input, the position of the first, and the step from one to the next.
    pub fn run(&self, t: usize) -> (Range<usize>, usize, usize) {
        let shift = t * self.dilation;
        let first = self.begin.saturating_sub(shift).div_ceil(self.stride);
        let last = (self.input + self.begin).saturating_sub(shift).div_ceil(self.stride).min(self.output);
        let first = first.min(last);
        (first..last, (first * self.stride + shift).saturating_sub(self.begin), self.stride)
    }

    /// Number of taps of output `o` inside the padded input.
    pub fn padded_taps(&self, o: usize) -> usize {
        let limit = self.begin + self.input + self.end;
        (0..self.kernel).filter(|t| o * self.stride + t * self.dilation < limit).count()
    }
}

fn list(r: &mut Reader, name: &str, least: usize) -> Result<Option<Vec<usize>>, OpError> {
    let Some(v) = r.ints(name)? else { return Ok(None) };
    let range: Range<usize> = least..LARGEST + 1;
    let sizes: Option<Vec<usize>> =
        v.iter().map(|s| usize::try_from(*s).ok().filter(|s| range.contains(s))).collect();
    match sizes {
        Some(s) => Ok(Some(s)),
        None => Err(r.unsupported(name, format!("{v:?}"), &format!("integers in {least}..={LARGEST}"))),
    }
}

impl Window {
    pub fn read(r: &mut Reader) -> Result<Window, OpError> {
        let auto_pad = r.one_of("auto_pad", "NOTSET", &["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])?;
        let ceil = r.flag("ceil_mode", false)?;
        for (name, least) in [("strides", 1), ("dilations", 1), ("pads", 0)] {
            list(r, name, least)?;
        }
        let kernel = list(r, "kernel_shape", 1)?.unwrap_or_default();
        let axes = kernel.len();
        if !(1..=3).contains(&axes) {
            return Err(r.unsupported("kernel_shape", format!("{kernel:?}"), "one to three sizes"));
        }
        let of_axes = |r: &mut Reader, name, count, default| -> Result<Vec<usize>, OpError> {
            let v = list(r, name, default)?.unwrap_or_else(|| vec![default; count]);
            if v.len() == count {
                return Ok(v);
            }
            Err(r.unsupported(name, format!("{v:?}"), &format!("{count} integers for {axes} spatial axes")))
        };
        let strides = of_axes(r, "strides", axes, 1)?;
        let dilations = of_axes(r, "dilations", axes, 1)?;
        let mut pads = of_axes(r, "pads", 2 * axes, 0)?;
        if auto_pad != "NOTSET" {
            // Files that state both mean the automatic ones.
            pads.fill(0);
        }
        Ok(Window { kernel, strides, dilations, pads, auto_pad, ceil })
    }

    pub fn attrs(&self) -> Attrs {
        Attrs::new()
            .sizes("kernel_shape", &self.kernel)
            .sizes("strides", &self.strides)
            .sizes("dilations", &self.dilations)
            .str("auto_pad", self.auto_pad)
            .sizes("pads", &self.pads)
            .at_place(if self.auto_pad == "NOTSET" { Place::Attribute } else { Place::Implied })
            .int("ceil_mode", i64::from(self.ceil))
    }

    /// Axis `i` over an input of this length; `None` where no window fits.
    fn axis(&self, i: usize, input: usize) -> Option<Axis> {
        let (kernel, stride, dilation) = (self.kernel[i], self.strides[i], self.dilations[i]);
        let extent = (kernel - 1) * dilation + 1;
        let (output, begin, end) = if self.auto_pad.starts_with("SAME") {
            let output = input.div_ceil(stride);
            let total = (output.saturating_sub(1) * stride + extent).saturating_sub(input);
            let (less, more) = (total / 2, total - total / 2);
            if self.auto_pad == "SAME_UPPER" { (output, less, more) } else { (output, more, less) }
        } else {
            let (begin, end) = (self.pads[i], self.pads[i + self.kernel.len()]);
            let room = (begin + input + end).checked_sub(extent)?;
            let steps = if self.ceil { room.div_ceil(stride) } else { room / stride };
            // A last window must not begin behind the input.
            let output = if self.ceil && steps * stride >= input + begin { steps } else { steps + 1 };
            (output, begin, end)
        };
        // Otherwise a window could lie in padding alone.
        let fits = begin < extent && end < extent && output > 0;
        fits.then_some(Axis { input, output, kernel, stride, dilation, begin, end })
    }

    /// Depth, height and width over the spatial axes of `[n, c, spatial..]`; missing ones have length 1.
    pub fn axes(&self, shape: &[usize]) -> Option<[Axis; 3]> {
        let n = self.kernel.len();
        let mut out = [Axis::ONE; 3];
        for i in 0..n {
            out[3 - n + i] = self.axis(i, *shape.get(2 + i)?)?;
        }
        Some(out)
    }

    /// Shape of the output.
    pub fn infer(&self, inputs: &[TensorType]) -> Result<Vec<Dim>, OpError> {
        let x = &inputs[0];
        let n = self.kernel.len();
        if x.rank() != n + 2 {
            let expected = [
                "3 (one size in kernel_shape)",
                "4 (two sizes in kernel_shape)",
                "5 (three sizes in kernel_shape)",
            ];
            return Err(OpError::Rank { input: 0, expected: expected[n - 1], got: x.rank() });
        }
        let mut shape = vec![x.shape[0], Dim::Fixed(check::fixed(inputs, 0, 1)?)];
        for i in 0..n {
            let input = check::fixed(inputs, 0, 2 + i)?;
            let axis = self.axis(i, input).ok_or_else(|| {
                OpError::shape(
                    0,
                    format!("an axis {} on which {self:?} fits, with less padding than kernel", 2 + i),
                    x,
                )
            })?;
            shape.push(Dim::Fixed(axis.output));
        }
        Ok(shape)
    }
}

/// `Window` of `shared/pool_window.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct WindowParams {
    input: [u32; 4],
    output: [u32; 4],
    kernel: [u32; 4],
    stride: [u32; 4],
    dilation: [u32; 4],
    begin: [u32; 4],
    limit: [u32; 4],
}

impl WindowParams {
    pub fn new(axes: &[Axis; 3]) -> Self {
        let of = |f: fn(&Axis) -> usize| [u32(f(&axes[0])), u32(f(&axes[1])), u32(f(&axes[2])), 1];
        WindowParams {
            input: of(|a| a.input),
            output: of(|a| a.output),
            kernel: of(|a| a.kernel),
            stride: of(|a| a.stride),
            dilation: of(|a| a.dilation),
            begin: of(|a| a.begin),
            limit: of(|a| a.begin + a.input + a.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: usize, pads: [usize; 2], ceil: bool) -> Window {
        let one = |v| vec![v];
        Window {
            kernel: one(kernel),
            strides: one(stride),
            dilations: one(1),
            pads: pads.into(),
            auto_pad: "NOTSET",
            ceil,
        }
    }

    #[test]
    fn a_last_window_that_would_begin_in_the_padding_is_dropped() {
        // (length, kernel, stride, pads, ceil) -> outputs
        for (length, kernel, stride, pads, ceil, outputs) in [
            (4, 3, 2, [0, 0], false, 1),
            (4, 3, 2, [0, 0], true, 2),
            (2, 1, 2, [0, 0], true, 1),
            (1, 2, 2, [1, 1], true, 1),
            (5, 2, 3, [1, 1], true, 2),
            (6, 3, 2, [1, 1], true, 4),
        ] {
            let axis = window(kernel, stride, pads, ceil).axis(0, length).unwrap();
            assert_eq!(axis.output, outputs, "{length} {kernel} {stride} {pads:?} {ceil}");
        }
        assert_eq!(window(5, 1, [1, 1], false).axis(0, 2), None);
    }
}
