//! From one memory layout to another: on the host for constants and results, by a kernel in between.

use crate::graph::lower::{Dispatch, Kernel, Layout, Operand, View, axes, flat_grid, u32};
use crate::tensor::{DType, Data, Tensor};

crate::params! {
    /// `Params` of `copy.wgsl` and `pack.wgsl`.
    struct Params {
        n: u32, rank: u32, lane: u32, pad: u32,
        dims: [u32; 8], lens: [u32; 8], steps: [u32; 8],
    }
}

/// `pad` only aligns.
pub(super) static COPY: Kernel =
    crate::kernel!("copy", Params, ["shared/grid.wgsl", "shared/codes.wgsl", "copy.wgsl"]);

pub(super) static PACK: Kernel =
    crate::kernel!("pack", Params, ["shared/grid.wgsl", "shared/codes.wgsl", "pack.wgsl"]);

/// An axis of what is written: length with padding, without, and step in x.
type Axis = (usize, usize, usize);

/// The dispatch that copies input 0, laid out as `from` says, to output 0 in `layout`. None for no elements.
/// Not both are packed.
pub(super) fn relayout(from: &View, layout: Layout) -> Option<Dispatch> {
    let (x, y) = (from.place(), layout.place(&from.shape));
    if y.is_empty() {
        return None;
    }
    // Axes behind that of the lanes stay apart from it.
    let own = from.shape.len() - layout.packed().unwrap_or(0);
    let mut merged: Vec<Axis> = Vec::new();
    for (i, (&axis, &dim)) in y.order.iter().zip(&y.dims).enumerate() {
        let (len, step) = (from.shape[axis], x.strides[axis]);
        match merged.last_mut() {
            // The outer axis walks x as a continuation of this one.
            Some(outer) if i < own && outer.2 == step * len && dim == len => {
                *outer = (outer.0 * dim, outer.1 * len, step);
            }
            _ => merged.push((dim, len, step)),
        }
    }
    Some(match layout.packed() {
        None => dispatch(&COPY, &merged, 0).with("X_FORM", from.form()),
        Some(behind) => {
            let lane = merged.len() - 1 - behind;
            merged[lane].0 /= 4;
            dispatch(&PACK, &merged, lane)
        }
    })
}

/// The dispatch that copies elements of input 0 that lie `steps` apart to a dense output 0. None for no elements.
pub(super) fn strided(dims: &[usize], steps: &[usize]) -> Option<Dispatch> {
    let axes: Vec<Axis> = dims.iter().zip(steps).map(|(d, s)| (*d, *d, *s)).collect();
    (!dims.contains(&0)).then(|| dispatch(&COPY, &axes, 0))
}

/// A kernel over axes from slowest to fastest.
fn dispatch(kernel: &'static Kernel, list: &[Axis], lane: usize) -> Dispatch {
    let column = |f: fn(&Axis) -> usize| -> Vec<usize> { list.iter().map(f).collect() };
    let n: usize = list.iter().map(|a| a.0).product();
    let params = Params {
        n: u32(n),
        rank: u32(list.len()),
        lane: u32(lane),
        pad: 0,
        dims: axes(&column(|m| m.0), 1),
        lens: axes(&column(|m| m.1), 1),
        steps: axes(&column(|m| m.2), 0),
    };
    Dispatch::new(kernel, &params, [Operand::Input(0), Operand::Output(0)], flat_grid(n))
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
    let Some(behind) = layout.packed() else { return out };
    // From one lane of a word to the next.
    let step: usize = place.dims[place.dims.len() - behind..].iter().product();
    let lane = |w: usize, l: usize| (out[(w / step * 4 + l) * step + w % step] & 0xff) << (8 * l);
    (0..out.len() / 4).map(|w| (0..4).fold(0, |word, l| word | lane(w, l))).collect()
}

/// Elements of packed words, a word each, in the places of the loose layout. Weights never come back.
fn unpack(words: &[u32], dtype: DType) -> Vec<u32> {
    let signed = matches!(dtype, DType::I4 | DType::I8);
    let bytes = words.iter().flat_map(|w| w.to_le_bytes());
    let widened = |b: u8| if signed { i32::from(b.cast_signed()).cast_unsigned() } else { u32::from(b) };
    bytes.map(widened).collect()
}

/// The tensor whose words the device holds in `layout`.
pub(super) fn from_words(dtype: DType, shape: &[usize], layout: Layout, words: &[u32]) -> Tensor {
    let n: usize = shape.iter().product();
    let place = layout.place(shape);
    let (mut linear, loose);
    linear = Vec::new();
    let words = if layout.packed().is_some() {
        loose = unpack(words, dtype);
        &loose
    } else {
        words
    };
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

    fn codes(rng: &mut Rng, dtype: DType, shape: &[usize]) -> Tensor {
        let (low, high) = dtype.limits().expect("codes");
        let codes: Vec<i32> = (0..shape.iter().product()).map(|_| rng.code(low, high)).collect();
        Tensor::from_codes(dtype, shape, &codes).expect("within the type")
    }

    #[test]
    fn packed_channels_are_the_bytes_of_a_word() {
        let t = Tensor::from_i8([1, 5, 2], vec![1, 2, -1, 4, 5, 6, 7, 8, 9, 10]);
        let words = to_words(&t, Layout::PackedChannelsLast);
        assert_eq!(words, [0x0705_ff01, 0x0000_0009, 0x0806_0402, 0x0000_000a]);
        let mut rng = Rng::new(4);
        for dtype in [DType::I8, DType::U8, DType::I4, DType::U4] {
            for shape in [vec![2, 5, 3, 2], vec![1, 4, 6], vec![3, 0, 2]] {
                let t = codes(&mut rng, dtype, &shape);
                let words = to_words(&t, Layout::PackedChannelsLast);
                assert_eq!(from_words(dtype, &shape, Layout::PackedChannelsLast, &words), t, "{shape:?}");
            }
        }
    }

    #[test]
    fn packed_weights_put_input_channels_in_a_word() {
        // [o, i, k] = [2, 5, 1].
        let t = Tensor::from_i8([2, 5, 1], vec![1, 2, 3, 4, 5, 11, 12, 13, 14, -15]);
        let words = to_words(&t, Layout::PackedConvWeights);
        assert_eq!(words, [0x0403_0201, 0x0e0d_0c0b, 0, 0, 0x0000_0005, 0x0000_00f1, 0, 0]);
    }

    /// What `pack.wgsl` does, from its parameters.
    fn run_pack(d: &Dispatch, x: &[u32]) -> Vec<u32> {
        let p: &Params = bytemuck::from_bytes(&d.params);
        let code = |i: u32, lane: u32| {
            let (mut rest, mut from, mut inside) = (i, 0, true);
            for axis in (0..p.rank as usize).rev() {
                let mut at = rest % p.dims[axis];
                rest /= p.dims[axis];
                if axis == p.lane as usize {
                    at = 4 * at + lane;
                }
                inside &= at < p.lens[axis];
                from += at * p.steps[axis];
            }
            if inside { (x[from as usize] & 0xff) << (8 * lane) } else { 0 }
        };
        (0..p.n).map(|i| (0..4).fold(0, |word, lane| word | code(i, lane))).collect()
    }

    #[test]
    fn packing_on_the_device_equals_that_on_the_host() {
        let mut rng = Rng::new(5);
        let layouts = [Layout::PackedChannelsLast, Layout::PackedConvWeights, Layout::PackedDepthwiseWeights];
        for shape in [vec![2, 5, 3, 2], vec![4, 8, 6], vec![3, 1, 1, 1], vec![9, 4, 2, 3, 2]] {
            for layout in layouts {
                for from in [Layout::Linear, Layout::ChannelsLast] {
                    let t = codes(&mut rng, DType::I8, &shape);
                    let d = relayout(&View { dtype: DType::I8, shape: shape.clone(), layout: from }, layout);
                    let got = run_pack(&d.unwrap(), &to_words(&t, from));
                    assert_eq!(got, to_words(&t, layout), "{shape:?} {from:?} to {layout:?}");
                }
            }
        }
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
