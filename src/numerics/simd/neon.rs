//! Four 4-lane registers a vector.
//!
//! NEON is part of every aarch64 target, so nothing needs to be asked for: that is what each `unsafe` below stands on, beside what
//! it says itself. The instructions are IEEE-754's, subnormals kept. `min` and `max` are a comparison and a selection, as
//! NEON's own hand NaN on.

use std::arch::aarch64::*;
use std::array::from_fn;

use super::{F32x16, LANES, arithmetic};

#[derive(Clone, Copy)]
pub struct Neon([float32x4_t; 4]);

/// All ones in the lanes where it holds.
#[derive(Clone, Copy)]
pub struct Mask([uint32x4_t; 4]);

impl Neon {
    #[inline(always)]
    fn map(self, f: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Self(from_fn(|i| f(self.0[i])))
    }
    #[inline(always)]
    fn map2(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(from_fn(|i| f(self.0[i], other.0[i])))
    }
    #[inline(always)]
    fn map_bits(self, other: Self, f: impl Fn(uint32x4_t, uint32x4_t) -> uint32x4_t) -> Self {
        self.map2(other, |x, y| unsafe { vreinterpretq_f32_u32(f(vreinterpretq_u32_f32(x), vreinterpretq_u32_f32(y))) })
    }
    #[inline(always)]
    fn compare(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> uint32x4_t) -> Mask {
        Mask(from_fn(|i| f(self.0[i], other.0[i])))
    }
    /// To the left, with zeros; to the right by a negative count, with copies of the sign.
    #[inline(always)]
    fn shift(self, count: i32) -> Self {
        self.map(|x| unsafe { vreinterpretq_f32_s32(vshlq_s32(vreinterpretq_s32_f32(x), vdupq_n_s32(count))) })
    }
}

arithmetic!(Neon, |a, b| add a.map2(b, |x, y| unsafe { vaddq_f32(x, y) }), sub a.map2(b, |x, y| unsafe { vsubq_f32(x, y) }), mul a.map2(b, |x, y| unsafe { vmulq_f32(x, y) }), div a.map2(b, |x, y| unsafe { vdivq_f32(x, y) }));

// SAFETY (each block without a comment of its own): NEON is there (module doc); the instruction touches registers only.
impl F32x16 for Neon {
    type Mask = Mask;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([unsafe { vdupq_n_f32(x) }; 4])
    }
    #[inline(always)]
    unsafe fn load_pointer(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable elements.
        Self(from_fn(|i| unsafe { vld1q_f32(from.add(4 * i)) }))
    }
    #[inline(always)]
    unsafe fn store_pointer(self, to: *mut f32) {
        for (i, quarter) in self.0.into_iter().enumerate() {
            // SAFETY: the caller promises 16 writable elements.
            unsafe { vst1q_f32(to.add(4 * i), quarter) };
        }
    }
    #[inline(always)]
    unsafe fn load_part_pointer(from: *const f32, count: usize, fill: f32) -> Self {
        let mut lanes = [fill; LANES];
        // SAFETY: the caller promises `count` readable elements, at most 16; the array has 16.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
            Self::load_pointer(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_part_pointer(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promises `count` writable elements, at most 16; the array has 16.
        unsafe { std::ptr::copy_nonoverlapping(self.to_array().as_ptr(), to, count) };
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(from_fn(|i| unsafe { vfmaq_f32(c.0[i], self.0[i], b.0[i]) }))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(|x| unsafe { vsqrtq_f32(x) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.map2(other, |x, y| unsafe { vbslq_f32(vcgtq_f32(x, y), x, y) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.map2(other, |x, y| unsafe { vbslq_f32(vcltq_f32(x, y), x, y) })
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Mask {
        self.compare(other, |x, y| unsafe { vcltq_f32(x, y) })
    }
    #[inline(always)]
    fn le(self, other: Self) -> Mask {
        self.compare(other, |x, y| unsafe { vcleq_f32(x, y) })
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Mask {
        self.compare(other, |x, y| unsafe { vceqq_f32(x, y) })
    }
    #[inline(always)]
    fn select(mask: Mask, yes: Self, no: Self) -> Self {
        Self(from_fn(|i| unsafe { vbslq_f32(mask.0[i], yes.0[i], no.0[i]) }))
    }
    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| unsafe { vandq_u32(x, y) })
    }
    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| unsafe { vorrq_u32(x, y) })
    }
    #[inline(always)]
    fn xor_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| unsafe { veorq_u32(x, y) })
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| unsafe { vaddq_u32(x, y) })
    }
    #[inline(always)]
    fn sub_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| unsafe { vsubq_u32(x, y) })
    }
    #[inline(always)]
    fn shift_left_bits<const N: u32>(self) -> Self {
        self.shift(N as i32)
    }
    #[inline(always)]
    fn shift_right_bits<const N: u32>(self) -> Self {
        self.shift(-(N as i32))
    }
    #[inline(always)]
    fn int_to_float(self) -> Self {
        self.map(|x| unsafe { vcvtq_f32_s32(vreinterpretq_s32_f32(x)) })
    }
}
