//! The portable vector: an array, lane by lane.

use super::{F32x16, LANES, arithmetic, fma};

/// `HARDWARE`: whether `fma` is the CPU's own instruction, or [`fma::in_binary64`].
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Portable<const HARDWARE: bool>([f32; LANES]);

/// For a CPU with a fused multiply-add. (On another, `f32::mul_add` calls the system's mathematics library.)
pub type Scalar = Portable<true>;
/// For any CPU.
pub type Software = Portable<false>;

impl<const HARDWARE: bool> Portable<HARDWARE> {
    #[inline(always)]
    fn map2(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|l| f(self.0[l], other.0[l])))
    }
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        self.map2(self, |x, _| f(x))
    }
    #[inline(always)]
    fn map_bits(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        self.map2(other, |x, y| f32::from_bits(f(x.to_bits(), y.to_bits())))
    }
    #[inline(always)]
    fn compare(self, other: Self, f: impl Fn(f32, f32) -> bool) -> [bool; LANES] {
        std::array::from_fn(|l| f(self.0[l], other.0[l]))
    }
}

arithmetic!([const HARDWARE: bool] Portable<HARDWARE>, |a, b| add a.map2(b, |x, y| x + y), sub a.map2(b, |x, y| x - y), mul a.map2(b, |x, y| x * y), div a.map2(b, |x, y| x / y));

impl<const HARDWARE: bool> F32x16 for Portable<HARDWARE> {
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    unsafe fn load_pointer(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable elements; an f32 array has the alignment of f32.
        Self(unsafe { from.cast::<[f32; LANES]>().read() })
    }
    #[inline(always)]
    unsafe fn store_pointer(self, to: *mut f32) {
        // SAFETY: the caller promises 16 writable elements; an f32 array has the alignment of f32.
        unsafe { to.cast::<[f32; LANES]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn load_part_pointer(from: *const f32, count: usize, fill: f32) -> Self {
        let mut lanes = [fill; LANES];
        for (l, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller promises `count` readable elements.
            *lane = unsafe { *from.add(l) };
        }
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store_part_pointer(self, to: *mut f32, count: usize) {
        for (l, lane) in self.0.iter().enumerate().take(count) {
            // SAFETY: the caller promises `count` writable elements.
            unsafe { *to.add(l) = *lane };
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        if HARDWARE {
            Self(std::array::from_fn(|l| self.0[l].mul_add(b.0[l], c.0[l])))
        } else {
            Self(fma::of_lanes(&self.0, &b.0, &c.0))
        }
    }
    #[inline(always)]
    fn fma_one(a: f32, b: f32, c: f32) -> f32 {
        if HARDWARE { a.mul_add(b, c) } else { fma::in_binary64(a, b, c) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.map2(other, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.map2(other, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        self.compare(other, |x, y| x < y)
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        self.compare(other, |x, y| x <= y)
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        self.compare(other, |x, y| x == y)
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|l| if mask[l] { yes.0[l] } else { no.0[l] }))
    }
    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| x & y)
    }
    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| x | y)
    }
    #[inline(always)]
    fn xor_bits(self, other: Self) -> Self {
        self.map_bits(other, |x, y| x ^ y)
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        self.map_bits(other, u32::wrapping_add)
    }
    #[inline(always)]
    fn sub_bits(self, other: Self) -> Self {
        self.map_bits(other, u32::wrapping_sub)
    }
    #[inline(always)]
    fn shift_left_bits<const N: u32>(self) -> Self {
        self.map_bits(self, |x, _| x << N)
    }
    #[inline(always)]
    fn shift_right_bits<const N: u32>(self) -> Self {
        self.map_bits(self, |x, _| ((x as i32) >> N) as u32)
    }
    #[inline(always)]
    fn int_to_float(self) -> Self {
        self.map(|x| x.to_bits() as i32 as f32)
    }
}
