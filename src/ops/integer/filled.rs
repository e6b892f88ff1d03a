//! Tensors of codes, filled in parallel in the type of their elements.

use super::isa::{Isa, Work};
use super::sums::Element;
use crate::graph::Scratch;
use crate::ops::unary::CHUNK;
use crate::tensor::{DType, Data, Tensor, element_count};
use rayon::prelude::*;

/// What codes a tensor is filled with.
pub(in crate::ops) trait Codes: Sync {
    /// Writes the codes from element `at` on; `narrow` makes an element of a code of the tensor's type.
    fn write<T>(&self, at: usize, out: &mut [T], narrow: impl Fn(i32) -> T + Copy);
}

/// The tensor of these codes.
///
/// # Panics
/// A type that has no codes, and codes of 4 bits outside their type.
pub(in crate::ops) fn filled(cx: &Scratch, dtype: DType, shape: &[usize], codes: &impl Codes) -> Tensor {
    let n = element_count(shape).expect("shape was checked");
    macro_rules! all {
        ($ty:ty) => {{
            let mut y = <$ty as Element>::take(cx, n);
            y.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "codes of the type"
                )]
                let narrow = |code: i32| code as $ty;
                Isa::best().run(Chunk { codes, at: i * CHUNK, out, narrow });
            });
            y
        }};
    }
    match dtype {
        DType::I32 => Tensor::from_i32(shape, all!(i32)),
        DType::I8 => Tensor::from_i8(shape, all!(i8)),
        DType::U8 => Tensor::from_u8(shape, all!(u8)),
        DType::I16 => Tensor::from_i16(shape, all!(i16)),
        DType::U16 => Tensor::from_u16(shape, all!(u16)),
        DType::I4 | DType::U4 | DType::F32 | DType::Bool => {
            assert!(dtype.limits().is_some(), "{dtype} has no codes");
            Tensor::from_bytes(dtype, shape, &all!(u8)).expect("codes of the type")
        }
    }
}

struct Chunk<'a, C, T, N> {
    codes: &'a C,
    at: usize,
    out: &'a mut [T],
    narrow: N,
}

impl<C: Codes, T, N: Fn(i32) -> T + Copy> Work for Chunk<'_, C, T, N> {
    #[inline(always)]
    fn run(self) {
        self.codes.write(self.at, self.out, self.narrow);
    }
}

/// Codes of 8 bits at most through a table of codes of another type, which begins with the entry of the least code; `None`
/// for wider ones.
pub(in crate::ops) fn through(cx: &Scratch, x: &Tensor, table: &[i32], dtype: DType) -> Option<Tensor> {
    if !matches!(x.data(), Data::I8(_) | Data::U8(_) | Data::I4(_) | Data::U4(_)) {
        return None;
    }
    let (low, _) = x.dtype().limits()?;
    let mut by_byte = [0; 256];
    for (code, entry) in (low..).zip(table) {
        by_byte[usize::from(code.to_le_bytes()[0])] = *entry;
    }
    Some(filled(cx, dtype, x.shape(), &Through { bytes: x.bytes(), by_byte: &by_byte }))
}

struct Through<'a> {
    bytes: &'a [u8],
    by_byte: &'a [i32; 256],
}

impl Codes for Through<'_> {
    #[inline(always)]
    fn write<T>(&self, at: usize, out: &mut [T], narrow: impl Fn(i32) -> T + Copy) {
        for (y, x) in out.iter_mut().zip(&self.bytes[at..]) {
            *y = narrow(self.by_byte[usize::from(*x)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_entry() {
        for from in [DType::I8, DType::U8, DType::I4, DType::U4] {
            for to in [DType::I8, DType::U16, DType::I32, DType::U4] {
                let ((low, high), (least, most)) = (from.limits().unwrap(), to.limits().unwrap());
                let entry = |code: i32| (code * 7919).clamp(least, most);
                let codes: Vec<i32> = (0..40_000).map(|i| low + i % (high - low + 1)).collect();
                let table: Vec<i32> = (low..=high).map(entry).collect();
                let x = Tensor::from_codes(from, &[40_000], &codes).unwrap();
                let want: Vec<i32> = codes.into_iter().map(entry).collect();
                let y = through(&Scratch::new(), &x, &table, to).unwrap();
                assert_eq!((y.dtype(), y.codes().unwrap()), (to, want), "{from} {to}");
            }
        }
        assert!(through(&Scratch::new(), &Tensor::from_i16([1], vec![0]), &[0], DType::I8).is_none());
    }

    #[test]
    fn numbers_are_quantized_alike_with_any_instructions() {
        use crate::quant::{Division, QParams, Rounding};
        struct Numbers(Vec<f32>, crate::quant::Step);
        impl Codes for Numbers {
            #[inline(always)]
            fn write<T>(&self, at: usize, out: &mut [T], narrow: impl Fn(i32) -> T + Copy) {
                self.1.quantize_all(&self.0[at..at + out.len()], out, narrow);
            }
        }
        // Halves and their neighbours, what saturates, and what is no number.
        let halves = (-300..300).map(|i| (i as f32 + 0.5) * 0.25);
        let near = halves.flat_map(|v| [v.next_down(), v, v.next_up()]);
        let all = near.chain([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-45]);
        let x: Vec<f32> = all.collect();
        for rounding in Rounding::ALL {
            for division in Division::ALL {
                for zero in [-128, 127, 3] {
                    let q = QParams::per_tensor(DType::I8, 0.25, zero).unwrap();
                    let step = q.rounded(rounding).divided(division).step(0);
                    let want: Vec<i32> = x.iter().map(|x| step.quantize(*x)).collect();
                    for isa in Isa::all() {
                        let mut got = vec![0; x.len()];
                        let codes = &Numbers(x.clone(), step);
                        isa.run(Chunk { codes, at: 0, out: &mut got, narrow: |code: i32| code });
                        assert_eq!(got, want, "{rounding} {division} {zero} {isa:?}");
                    }
                }
            }
        }
    }
}
