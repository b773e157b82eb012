//! One 16-lane register a vector.
//!
//! Every method is `#[inline(always)]` and only ever instantiated by `dispatch!` inside a function that enables AVX-512 F after
//! the CPU was asked for it: that is what each `unsafe` below stands on, beside what it says itself.

use std::arch::x86_64::*;

use super::{F32x16, arithmetic};

#[derive(Clone, Copy)]
pub struct Avx512(__m512);

/// The first `count <= 16` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// # Safety
/// `from` must be valid for reading four elements at `at`.
#[inline(always)]
unsafe fn four(from: *const f32, at: usize) -> __m128 {
    // SAFETY: as promised; AVX-512 F is there (module doc).
    unsafe { _mm_loadu_ps(from.wrapping_add(at)) }
}

#[inline(always)]
fn int(x: Avx512) -> __m512i {
    // SAFETY: AVX-512 F is there (module doc).
    unsafe { _mm512_castps_si512(x.0) }
}

#[inline(always)]
fn float(x: __m512i) -> Avx512 {
    // SAFETY: AVX-512 F is there (module doc).
    Avx512(unsafe { _mm512_castsi512_ps(x) })
}

// SAFETY (each): AVX-512 F is there (module doc).
arithmetic!(Avx512, |a, b| add Avx512(unsafe { _mm512_add_ps(a.0, b.0) }), sub Avx512(unsafe { _mm512_sub_ps(a.0, b.0) }), mul Avx512(unsafe { _mm512_mul_ps(a.0, b.0) }), div Avx512(unsafe { _mm512_div_ps(a.0, b.0) }));

// SAFETY (each block without a comment of its own): AVX-512 F is there (module doc); the instruction touches registers only.
impl F32x16 for Avx512 {
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load_pointer(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable elements.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store_pointer(self, to: *mut f32) {
        // SAFETY: the caller promises 16 writable elements.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_part_pointer(from: *const f32, count: usize, fill: f32) -> Self {
        // SAFETY: the caller promises `count` readable elements; masked lanes are not touched.
        Self(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(count), from) })
    }
    #[inline(always)]
    unsafe fn store_part_pointer(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promises `count` writable elements; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(to, first(count), self.0) }
    }
    #[inline(always)]
    unsafe fn load_four_columns(from: *const f32, stride: usize) -> [Self; 4] {
        // SAFETY: the caller promises four readable elements at each row.
        unsafe {
            // Part b of register r holds row 4 b + r; transposing each part's four rows leaves the rows in order.
            let mut rows = [_mm512_setzero_ps(); 4];
            for (r, row) in rows.iter_mut().enumerate() {
                let low = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(four(from, r * stride)), four(from, (r + 4) * stride));
                *row = _mm512_insertf32x4::<3>(
                    _mm512_insertf32x4::<2>(low, four(from, (r + 8) * stride)),
                    four(from, (r + 12) * stride),
                );
            }
            let (a, b) = (_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpacklo_ps(rows[2], rows[3]));
            let (c, d) = (_mm512_unpackhi_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[2], rows[3]));
            [
                Self(_mm512_shuffle_ps::<0x44>(a, b)),
                Self(_mm512_shuffle_ps::<0xee>(a, b)),
                Self(_mm512_shuffle_ps::<0x44>(c, d)),
                Self(_mm512_shuffle_ps::<0xee>(c, d)),
            ]
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self(unsafe { _mm512_mask_blend_ps(mask, no.0, yes.0) })
    }
    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        float(unsafe { _mm512_and_si512(int(self), int(other)) })
    }
    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        float(unsafe { _mm512_or_si512(int(self), int(other)) })
    }
    #[inline(always)]
    fn xor_bits(self, other: Self) -> Self {
        float(unsafe { _mm512_xor_si512(int(self), int(other)) })
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        float(unsafe { _mm512_add_epi32(int(self), int(other)) })
    }
    #[inline(always)]
    fn sub_bits(self, other: Self) -> Self {
        float(unsafe { _mm512_sub_epi32(int(self), int(other)) })
    }
    #[inline(always)]
    fn shift_left_bits<const N: u32>(self) -> Self {
        float(unsafe { _mm512_slli_epi32::<N>(int(self)) })
    }
    #[inline(always)]
    fn shift_right_bits<const N: u32>(self) -> Self {
        float(unsafe { _mm512_srai_epi32::<N>(int(self)) })
    }
    #[inline(always)]
    fn int_to_float(self) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(int(self)) })
    }
}
