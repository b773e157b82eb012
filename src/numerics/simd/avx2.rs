//! Two 8-lane registers a vector.
//!
//! Every method is `#[inline(always)]` and only ever instantiated by `dispatch!` inside a function that enables AVX2 and FMA
//! after the CPU was asked for them: that is what each `unsafe` below stands on, beside what it says itself.

use std::arch::x86_64::*;

use super::{F32x16, arithmetic};

#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

/// All ones in the first `count` of the lanes `from..from + 8`.
#[inline(always)]
fn first(count: usize, from: i32) -> __m256i {
    // SAFETY: AVX2 is there (module doc).
    unsafe {
        let lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(from));
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane)
    }
}

#[inline(always)]
fn int(x: __m256) -> __m256i {
    // SAFETY: AVX2 is there (module doc).
    unsafe { _mm256_castps_si256(x) }
}

#[inline(always)]
fn float(x: __m256i) -> __m256 {
    // SAFETY: AVX2 is there (module doc).
    unsafe { _mm256_castsi256_ps(x) }
}

/// Four columns of eight rows, `stride` elements apart.
///
/// # Safety
/// `from` must be valid for reading four elements at each row.
#[inline(always)]
unsafe fn four_columns(from: *const f32, stride: usize) -> [__m256; 4] {
    // SAFETY: as promised; AVX2 is there (module doc).
    unsafe {
        // Half b of register r holds row 4 b + r; transposing each half's four rows leaves the rows in order.
        let mut rows = [_mm256_setzero_ps(); 4];
        for (r, row) in rows.iter_mut().enumerate() {
            let (low, high) = (from.wrapping_add(r * stride), from.wrapping_add((r + 4) * stride));
            *row = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high));
        }
        let (a, b) = (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3]));
        let (c, d) = (_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3]));
        [
            _mm256_shuffle_ps::<0x44>(a, b),
            _mm256_shuffle_ps::<0xee>(a, b),
            _mm256_shuffle_ps::<0x44>(c, d),
            _mm256_shuffle_ps::<0xee>(c, d),
        ]
    }
}

/// One instruction on both halves of one or two vectors.
macro_rules! halves {
    // SAFETY (each): AVX2 and FMA are there (module doc); the instruction touches registers only.
    ($instruction:path, $a:expr) => {{ Avx2(unsafe { $instruction($a.0) }, unsafe { $instruction($a.1) }) }};
    ($instruction:path, $a:expr, $b:expr) => {{ Avx2(unsafe { $instruction($a.0, $b.0) }, unsafe { $instruction($a.1, $b.1) }) }};
}

/// One integer instruction on both halves of two vectors.
macro_rules! int_halves {
    // SAFETY (each): AVX2 is there (module doc); the instruction touches registers only.
    ($instruction:path, $a:expr, $b:expr) => {{ Avx2(float(unsafe { $instruction(int($a.0), int($b.0)) }), float(unsafe { $instruction(int($a.1), int($b.1)) })) }};
}

arithmetic!(Avx2, |a, b| add halves!(_mm256_add_ps, a, b), sub halves!(_mm256_sub_ps, a, b), mul halves!(_mm256_mul_ps, a, b), div halves!(_mm256_div_ps, a, b));

// SAFETY (each block without a comment of its own): AVX2 and FMA are there (module doc); the instruction touches registers only.
impl F32x16 for Avx2 {
    type Mask = Self;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        let half = unsafe { _mm256_set1_ps(x) };
        Self(half, half)
    }
    #[inline(always)]
    unsafe fn load_pointer(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store_pointer(self, to: *mut f32) {
        // SAFETY: the caller promises 16 writable elements.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_part_pointer(from: *const f32, count: usize, fill: f32) -> Self {
        let (low, high) = (first(count, 0), first(count, 8));
        let mut read = Self::splat(fill);
        // SAFETY: the caller promises `count` readable elements; masked lanes are not touched. A half with no lane to read is left
        // out: QEMU 7.2 faults on lanes that only the mask keeps it from, and a slice may be empty.
        unsafe {
            if count > 0 {
                read.0 = _mm256_maskload_ps(from, low);
            }
            if count > 8 {
                read.1 = _mm256_maskload_ps(from.add(8), high);
            }
        }
        Self::select(Self(float(low), float(high)), read, Self::splat(fill))
    }
    #[inline(always)]
    unsafe fn store_part_pointer(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promises `count` writable elements; masked lanes are not touched, so the address may lie beyond.
        unsafe {
            _mm256_maskstore_ps(to, first(count, 0), self.0);
            _mm256_maskstore_ps(to.wrapping_add(8), first(count, 8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_four_columns(from: *const f32, stride: usize) -> [Self; 4] {
        // SAFETY: the caller promises four readable elements at each row.
        let (low, high) = unsafe { (four_columns(from, stride), four_columns(from.wrapping_add(8 * stride), stride)) };
        [Self(low[0], high[0]), Self(low[1], high[1]), Self(low[2], high[2]), Self(low[3], high[3])]
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        halves!(_mm256_sqrt_ps, self)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        halves!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        halves!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        halves!(_mm256_cmp_ps::<_CMP_LT_OQ>, self, other)
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        halves!(_mm256_cmp_ps::<_CMP_LE_OQ>, self, other)
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        halves!(_mm256_cmp_ps::<_CMP_EQ_OQ>, self, other)
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        unsafe { Self(_mm256_blendv_ps(no.0, yes.0, mask.0), _mm256_blendv_ps(no.1, yes.1, mask.1)) }
    }
    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        halves!(_mm256_and_ps, self, other)
    }
    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        halves!(_mm256_or_ps, self, other)
    }
    #[inline(always)]
    fn xor_bits(self, other: Self) -> Self {
        halves!(_mm256_xor_ps, self, other)
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        int_halves!(_mm256_add_epi32, self, other)
    }
    #[inline(always)]
    fn sub_bits(self, other: Self) -> Self {
        int_halves!(_mm256_sub_epi32, self, other)
    }
    #[inline(always)]
    fn shift_left_bits<const N: u32>(self) -> Self {
        unsafe {
            let count = _mm_cvtsi32_si128(N as i32);
            Self(float(_mm256_sll_epi32(int(self.0), count)), float(_mm256_sll_epi32(int(self.1), count)))
        }
    }
    #[inline(always)]
    fn shift_right_bits<const N: u32>(self) -> Self {
        unsafe {
            let count = _mm_cvtsi32_si128(N as i32);
            Self(float(_mm256_sra_epi32(int(self.0), count)), float(_mm256_sra_epi32(int(self.1), count)))
        }
    }
    #[inline(always)]
    fn int_to_float(self) -> Self {
        unsafe { Self(_mm256_cvtepi32_ps(int(self.0)), _mm256_cvtepi32_ps(int(self.1))) }
    }
}
