//! NEON: products of a u8 and an i8 fit 16 bits, neighbours are added pairwise.

use super::Lanes;
use std::arch::aarch64::{
    int16x8_t, int32x4_t, vaddq_s32, vget_low_s8, vld1_dup_s32, vld1q_s8, vld1q_s32, vmovl_high_s8, vmovl_s8,
    vmovl_u8, vmulq_s16, vpaddlq_s16, vpaddq_s32, vreinterpret_u8_s32, vreinterpretq_s16_u16, vst1q_s32,
};

pub(in super::super) struct Neon;

impl Lanes for Neon {
    const LANES: usize = 4;
    type Sums = int32x4_t;
    type Inputs = int16x8_t;
    type Weights = [int16x8_t; 2];

    #[inline(always)]
    unsafe fn load(at: *const i32) -> int32x4_t {
        // SAFETY: by the caller.
        unsafe { vld1q_s32(at) }
    }

    #[inline(always)]
    unsafe fn store(sums: int32x4_t, at: *mut i32) {
        // SAFETY: by the caller.
        unsafe { vst1q_s32(at, sums) };
    }

    #[inline(always)]
    unsafe fn inputs(at: *const u8) -> int16x8_t {
        let four = [
            // SAFETY: by the caller.
            unsafe { at.cast::<i32>().read_unaligned() },
        ];
        // SAFETY: one number, and all such processors have NEON.
        unsafe { vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_s32(vld1_dup_s32(four.as_ptr())))) }
    }

    #[inline(always)]
    unsafe fn weights(at: *const i8) -> [int16x8_t; 2] {
        // SAFETY: by the caller.
        unsafe {
            let w = vld1q_s8(at);
            [vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w)]
        }
    }

    #[inline(always)]
    unsafe fn add(sums: int32x4_t, x: int16x8_t, w: [int16x8_t; 2]) -> int32x4_t {
        // SAFETY: all such processors have NEON.
        unsafe {
            let pairs = w.map(|w| vpaddlq_s16(vmulq_s16(x, w)));
            vaddq_s32(sums, vpaddq_s32(pairs[0], pairs[1]))
        }
    }
}
