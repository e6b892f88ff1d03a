//! From one memory layout to another: on the host for constants and results, by a kernel in between.

use crate::graph::lower::{Dispatch, Kernel, Layout, Operand, View, axes, flat_grid, u32};
use crate::tensor::{DType, Data, Tensor};

crate::params! {
    /// `Params` of `copy.wgsl`.
    struct Params {
        n: u32, rank: u32, pad: [u32; 2],
        dims: [u32; 8], lens: [u32; 8], steps: [u32; 8],
    }
}

/// `copy.wgsl`. `pad` only aligns.
pub(super) static COPY: Kernel = crate::kernel!("copy", Params, ["shared/grid.wgsl", "copy.wgsl"]);

/// The dispatch that copies input 0, laid out as `from` says, to output 0 in `layout`. None for no elements.
pub(super) fn relayout(from: &View, layout: Layout) -> Option<Dispatch> {
    let (x, y) = (from.place(), layout.place(&from.shape));
    if y.is_empty() {
        return None;
    }
    let mut merged: Vec<(usize, usize, usize)> = Vec::new();
    for (&axis, &dim) in y.order.iter().zip(&y.dims) {
        let (len, step) = (from.shape[axis], x.strides[axis]);
        match merged.last_mut() {
            // The outer axis walks x as a continuation of this one.
            Some(outer) if outer.2 == step * len && dim == len => {
                *outer = (outer.0 * dim, outer.1 * len, step);
            }
            _ => merged.push((dim, len, step)),
        }
    }
    Some(dispatch(&merged))
}

/// The dispatch that copies elements of input 0 that lie `steps` apart to a dense output 0. None for no elements.
pub(super) fn strided(dims: &[usize], steps: &[usize]) -> Option<Dispatch> {
    let axes: Vec<_> = dims.iter().zip(steps).map(|(d, s)| (*d, *d, *s)).collect();
    (!dims.contains(&0)).then(|| dispatch(&axes))
}

/// `copy.wgsl` over axes from slowest to fastest: length with padding, without, and step in x.
fn dispatch(list: &[(usize, usize, usize)]) -> Dispatch {
    let column = |f: fn(&(usize, usize, usize)) -> usize| -> Vec<usize> { list.iter().map(f).collect() };
    let n: usize = list.iter().map(|a| a.0).product();
    let params = Params {
        n: u32(n),
        rank: u32(list.len()),
        pad: [0; 2],
        dims: axes(&column(|m| m.0), 1),
        lens: axes(&column(|m| m.1), 1),
        steps: axes(&column(|m| m.2), 0),
    };
    Dispatch::new(&COPY, &params, [Operand::Input(0), Operand::Output(0)], flat_grid(n))
}

/// Calls `f(physical index, logical index)` for each element, in logical order.
fn walk(shape: &[usize], strides: &[usize], mut f: impl FnMut(usize, usize)) {
    let n: usize = shape.iter().product();
    let mut index = vec![0usize; shape.len()];
    let mut at = 0;
    for i in 0..n {
        f(at, i);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

/// The words of a tensor in `layout`, padding zero, as the device holds them.
pub(super) fn to_words(t: &Tensor, layout: Layout) -> Vec<u32> {
    let linear: Vec<u32> = match t.data() {
        Data::F32(v) => v.iter().map(|x| x.to_bits()).collect(),
        Data::I32(v) => v.iter().map(|x| x.cast_unsigned()).collect(),
        Data::Bool(v) | Data::U8(v) | Data::U4(v) => v.iter().map(|x| u32::from(*x)).collect(),
        Data::I8(v) | Data::I4(v) => v.iter().map(|x| i32::from(*x).cast_unsigned()).collect(),
        Data::I16(v) => v.iter().map(|x| i32::from(*x).cast_unsigned()).collect(),
        Data::U16(v) => v.iter().map(|x| u32::from(*x)).collect(),
    };
    if layout == Layout::Linear {
        return linear;
    }
    let place = layout.place(t.shape());
    let mut out = vec![0; place.len()];
    walk(t.shape(), &place.strides, |at, i| out[at] = linear[i]);
    out
}

/// The tensor whose words the device holds in `layout`.
pub(super) fn from_words(dtype: DType, shape: &[usize], layout: Layout, words: &[u32]) -> Tensor {
    let n: usize = shape.iter().product();
    let place = layout.place(shape);
    let mut linear = Vec::new();
    let words = if layout == Layout::Linear {
        &words[..n]
    } else {
        linear.resize(n, 0);
        walk(shape, &place.strides, |at, i| linear[i] = words[at]);
        &linear
    };
    #[allow(clippy::cast_possible_truncation, reason = "the device holds 8-bit values widened to a word")]
    match dtype {
        DType::F32 => Tensor::from_f32(shape, bytemuck::cast_slice(words).to_vec()),
        DType::I32 => Tensor::from_i32(shape, bytemuck::cast_slice(words).to_vec()),
        DType::Bool => Tensor::from_bool(shape, words.iter().map(|w| u8::from(*w != 0)).collect()),
        DType::U8 => Tensor::from_u8(shape, words.iter().map(|w| *w as u8).collect()),
        DType::I8 => Tensor::from_i8(shape, words.iter().map(|w| *w as i8).collect()),
        narrow => {
            Tensor::from_codes(narrow, shape, bytemuck::cast_slice(words)).expect("kernels keep to the type")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::{Rng, SampleInput};

    #[test]
    fn host_layouts_round_trip() {
        let mut rng = Rng::new(1);
        for (shape, layout) in [
            (vec![2, 5, 3, 2], Layout::ChannelsLast),
            (vec![1, 4, 6], Layout::ChannelsLast),
            (vec![5, 3, 3, 2], Layout::ConvWeights),
            (vec![5, 1, 3, 2], Layout::DepthwiseWeights),
            (vec![5, 3, 2, 2], Layout::ConvTransposeWeights),
            (vec![7], Layout::Vector4),
            (vec![], Layout::Linear),
        ] {
            let t = SampleInput::f32(shape.clone()).draw(&mut rng);
            let words = to_words(&t, layout);
            assert_eq!(words.len(), layout.place(&shape).len());
            assert_eq!(from_words(DType::F32, &shape, layout, &words), t, "{layout:?} {shape:?}");
        }
    }

    #[test]
    fn channels_last_pads_with_zeros() {
        let t = Tensor::from_i32([1, 3, 2], vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(to_words(&t, Layout::ChannelsLast), [1, 3, 5, 0, 2, 4, 6, 0]);
    }

    #[test]
    fn narrow_types_take_a_word_each_on_the_device() {
        let i8s = Tensor::from_i8([2], vec![-1, 127]);
        assert_eq!(to_words(&i8s, Layout::Linear), [u32::MAX, 127]);
        assert_eq!(from_words(DType::I8, &[2], Layout::Linear, &[u32::MAX, 127]), i8s);
        let truth = Tensor::from_bool([2], vec![0, 1]);
        assert_eq!(from_words(DType::Bool, &[2], Layout::Linear, &to_words(&truth, Layout::Linear)), truth);
    }

    /// What `copy.wgsl` does, from its parameters.
    fn run_copy(d: &Dispatch, x: &[u32]) -> Vec<u32> {
        let p: &Params = bytemuck::from_bytes(&d.params);
        let element = |i: u32| {
            let (mut rest, mut from, mut inside) = (i, 0, true);
            for axis in (0..p.rank as usize).rev() {
                let at = rest % p.dims[axis];
                rest /= p.dims[axis];
                inside &= at < p.lens[axis];
                from += at * p.steps[axis];
            }
            if inside { x[from as usize] } else { 0 }
        };
        (0..p.n).map(element).collect()
    }

    #[test]
    fn device_copy_equals_host_layout_with_merged_axes() {
        let mut rng = Rng::new(2);
        for shape in [vec![2, 5, 3, 2], vec![1, 4, 6], vec![3, 1, 1, 1], vec![2, 3, 2, 2, 2, 3]] {
            let t = SampleInput::f32(shape.clone()).draw(&mut rng);
            for (a, b) in [(Layout::Linear, Layout::ChannelsLast), (Layout::ChannelsLast, Layout::Linear)] {
                let view = View { dtype: DType::F32, shape: shape.clone(), layout: a };
                let d = relayout(&view, b).unwrap();
                assert_eq!(run_copy(&d, &to_words(&t, a)), to_words(&t, b), "{shape:?} {a:?} to {b:?}");
            }
        }
    }
}
