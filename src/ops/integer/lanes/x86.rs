//! `vpdpbusd`, and `vpmaddwd` on bytes widened to 16 bits: `vpmaddubsw` would saturate.

use super::Lanes;
use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16,
    _mm256_storeu_si256, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512,
};

pub(in super::super) struct Vnni;

impl Lanes for Vnni {
    const LANES: usize = 16;
    type Sums = __m512i;
    type Inputs = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn load(at: *const i32) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store(sums: __m512i, at: *mut i32) {
        // SAFETY: by the caller.
        unsafe { _mm512_storeu_si512(at.cast(), sums) };
    }

    #[inline(always)]
    unsafe fn inputs(at: *const u8) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(at: *const i8) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512i, inputs: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_dpbusd_epi32(sums, inputs, weights) }
    }
}

pub(in super::super) struct Avx2;

impl Lanes for Avx2 {
    const LANES: usize = 8;
    type Sums = __m256i;
    /// Bytes 0 and 2 of each four, and bytes 1 and 3, as 16 bits each.
    type Inputs = [__m256i; 2];
    type Weights = [__m256i; 2];

    #[inline(always)]
    unsafe fn load(at: *const i32) -> __m256i {
        // SAFETY: by the caller.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store(sums: __m256i, at: *mut i32) {
        // SAFETY: by the caller.
        unsafe { _mm256_storeu_si256(at.cast(), sums) };
    }

    #[inline(always)]
    unsafe fn inputs(at: *const u8) -> [__m256i; 2] {
        // SAFETY: by the caller.
        unsafe {
            let four = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
            [_mm256_and_si256(four, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(four)]
        }
    }

    #[inline(always)]
    unsafe fn weights(at: *const i8) -> [__m256i; 2] {
        // SAFETY: by the caller.
        unsafe {
            let four = _mm256_loadu_si256(at.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(four)), _mm256_srai_epi16::<8>(four)]
        }
    }

    #[inline(always)]
    unsafe fn add(sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
        // SAFETY: by the caller.
        unsafe {
            let sums = _mm256_add_epi32(sums, _mm256_madd_epi16(x[0], w[0]));
            _mm256_add_epi32(sums, _mm256_madd_epi16(x[1], w[1]))
        }
    }
}
