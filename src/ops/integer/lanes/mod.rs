//! Products of four u8 and four i8 added to an i32 in each lane of a vector, for every processor.
#![allow(unsafe_code, reason = "loads and stores of vectors")]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Vnni};

/// A vector of sums.
///
/// # Safety
/// The methods take pointers to as many elements as they say, and run on processors that have the instructions. They are
/// inlined into functions compiled for these.
pub(super) trait Lanes {
    /// Sums in a vector.
    const LANES: usize;
    /// One i32 a lane.
    type Sums: Copy;
    /// Four bytes, the same for every lane, in the form in which they are multiplied.
    type Inputs: Copy;
    /// Four bytes a lane, likewise.
    type Weights: Copy;

    /// From `LANES` numbers.
    unsafe fn load(at: *const i32) -> Self::Sums;
    /// Into `LANES` numbers.
    unsafe fn store(sums: Self::Sums, at: *mut i32);
    /// From 4 bytes.
    unsafe fn inputs(at: *const u8) -> Self::Inputs;
    /// From `4 * LANES` bytes.
    unsafe fn weights(at: *const i8) -> Self::Weights;
    /// `sums + inputs * weights`.
    unsafe fn add(sums: Self::Sums, inputs: Self::Inputs, weights: Self::Weights) -> Self::Sums;
}

/// In plain Rust, as every processor can.
pub(super) struct Scalar;

const PLAIN: usize = 4;

impl Lanes for Scalar {
    const LANES: usize = PLAIN;
    type Sums = [i32; PLAIN];
    type Inputs = [u8; 4];
    type Weights = [[i8; 4]; PLAIN];

    #[inline(always)]
    unsafe fn load(at: *const i32) -> Self::Sums {
        // SAFETY: by the caller.
        unsafe { at.cast::<Self::Sums>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(sums: Self::Sums, at: *mut i32) {
        // SAFETY: by the caller.
        unsafe { at.cast::<Self::Sums>().write_unaligned(sums) };
    }

    #[inline(always)]
    unsafe fn inputs(at: *const u8) -> Self::Inputs {
        // SAFETY: by the caller.
        unsafe { at.cast::<Self::Inputs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights(at: *const i8) -> Self::Weights {
        // SAFETY: by the caller.
        unsafe { at.cast::<Self::Weights>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Sums, inputs: Self::Inputs, weights: Self::Weights) -> Self::Sums {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            let products = inputs.iter().zip(weights).map(|(x, w)| i32::from(*x) * i32::from(w));
            *sum = sum.wrapping_add(products.sum());
        }
        sums
    }
}
