//! Sixteen f32 lanes, written once as `F32x16` and compiled for each instruction set.
//!
//! A kernel is a generic `#[inline(always)] fn kernel<V: F32x16>(…)`; the `dispatch!` macro instantiates it inside a function that
//! enables the instructions, and picks one by [`Isa`](super::isa::Isa). Every operation is the IEEE-754 one (round to nearest
//! even, subnormals kept), lane by lane, so a kernel gives the same bits under every instruction set. Only which NaN comes out
//! of a NaN is left open, as IEEE leaves it.

use std::ops::{Add, Div, Mul, Sub};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod fma;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::{Scalar, Software};

/// Lanes of a vector, under every instruction set: the lane count is part of the definition of a row reduction.
pub const LANES: usize = 16;

/// Asks for the cache line of an address that will be read or written soon; any address will do.
#[inline(always)]
pub fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64; it reads nothing that the program could see, and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Sixteen f32 values.
///
/// Comparisons, `min`, `max` and `select` follow the x86 instructions: a comparison with NaN is false.
/// Operations named `…_bits` work on the lanes' 32-bit patterns as integers.
pub trait F32x16: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    /// One truth value a lane.
    type Mask: Copy;

    fn splat(x: f32) -> Self;
    /// # Safety
    /// `from` must be valid for reading 16 f32. No alignment is needed.
    unsafe fn load_pointer(from: *const f32) -> Self;
    /// # Safety
    /// `to` must be valid for writing 16 f32. No alignment is needed.
    unsafe fn store_pointer(self, to: *mut f32);
    /// The first `count <= 16` lanes from memory, the rest `fill`.
    ///
    /// # Safety
    /// `from` must be valid for reading `count` f32.
    unsafe fn load_part_pointer(from: *const f32, count: usize, fill: f32) -> Self;
    /// Writes the first `count <= 16` lanes.
    ///
    /// # Safety
    /// `to` must be valid for writing `count` f32.
    unsafe fn store_part_pointer(self, to: *mut f32, count: usize);

    /// Four columns of sixteen rows: lane l of vector q is `from[l * stride + q]`.
    ///
    /// # Safety
    /// `from` must be valid for reading four f32 at each of sixteen rows, `stride` elements apart.
    #[inline(always)]
    unsafe fn load_four_columns(from: *const f32, stride: usize) -> [Self; 4] {
        let mut columns = [[0.0; LANES]; 4];
        for l in 0..LANES {
            for (q, column) in columns.iter_mut().enumerate() {
                // SAFETY: promised by the caller.
                column[l] = unsafe { *from.wrapping_add(l * stride + q) };
            }
        }
        [Self::load(&columns[0]), Self::load(&columns[1]), Self::load(&columns[2]), Self::load(&columns[3])]
    }

    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The same for single numbers: `a * b + c`, rounded once.
    #[inline(always)]
    fn fma_one(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    fn sqrt(self) -> Self;
    /// `if self > other { self } else { other }`: `other` when either is NaN or both are zeros.
    fn max(self, other: Self) -> Self;
    /// `if self < other { self } else { other }`: `other` when either is NaN or both are zeros.
    fn min(self, other: Self) -> Self;

    fn lt(self, other: Self) -> Self::Mask;
    fn le(self, other: Self) -> Self::Mask;
    fn eq(self, other: Self) -> Self::Mask;
    /// `yes` where the mask holds, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    fn and_bits(self, other: Self) -> Self;
    fn or_bits(self, other: Self) -> Self;
    fn xor_bits(self, other: Self) -> Self;
    /// Wrapping.
    fn add_bits(self, other: Self) -> Self;
    /// Wrapping.
    fn sub_bits(self, other: Self) -> Self;
    fn shift_left_bits<const N: u32>(self) -> Self;
    /// With copies of the sign.
    fn shift_right_bits<const N: u32>(self) -> Self;
    /// The lanes' patterns read as i32, converted to f32 (rounded to nearest even).
    fn int_to_float(self) -> Self;

    #[inline(always)]
    fn splat_bits(pattern: u32) -> Self {
        Self::splat(f32::from_bits(pattern))
    }
    /// The first sixteen elements.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        assert!(from.len() >= LANES);
        // SAFETY: at least 16 elements, just checked.
        unsafe { Self::load_pointer(from.as_ptr()) }
    }
    /// Into the first sixteen elements.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        assert!(to.len() >= LANES);
        // SAFETY: at least 16 elements, just checked.
        unsafe { self.store_pointer(to.as_mut_ptr()) }
    }
    /// All elements of a slice of at most sixteen (the first sixteen of a longer one); lanes beyond it are `fill`.
    #[inline(always)]
    fn load_part(from: &[f32], fill: f32) -> Self {
        // SAFETY: the count is at most the slice's length.
        unsafe { Self::load_part_pointer(from.as_ptr(), from.len().min(LANES), fill) }
    }
    /// Fills a slice of at most sixteen elements (the first sixteen of a longer one).
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        // SAFETY: the count is at most the slice's length.
        unsafe { self.store_part_pointer(to.as_mut_ptr(), to.len().min(LANES)) }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has 16 elements.
        unsafe { self.store_pointer(lanes.as_mut_ptr()) };
        lanes
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.and_bits(Self::splat_bits(0x7fff_ffff))
    }
    /// `-self`: flips the sign, of zeros and NaN too.
    #[inline(always)]
    fn negate(self) -> Self {
        self.xor_bits(Self::splat(-0.0))
    }

    /// The fixed tree 16→8→4→2→1 that adds lane `l + half` to lane `l`.
    #[inline(always)]
    fn tree_sum(self) -> f32 {
        let a = self.to_array();
        let b: [f32; 8] = std::array::from_fn(|l| a[l] + a[l + 8]);
        let c: [f32; 4] = std::array::from_fn(|l| b[l] + b[l + 4]);
        (c[0] + c[2]) + (c[1] + c[3])
    }
    /// The same tree with `if lane > other { lane } else { other }`.
    #[inline(always)]
    fn tree_max(self) -> f32 {
        #[inline(always)]
        fn larger(x: f32, y: f32) -> f32 {
            if x > y { x } else { y }
        }
        let a = self.to_array();
        let b: [f32; 8] = std::array::from_fn(|l| larger(a[l], a[l + 8]));
        let c: [f32; 4] = std::array::from_fn(|l| larger(b[l], b[l + 4]));
        larger(larger(c[0], c[2]), larger(c[1], c[3]))
    }
}

/// Implements `+ - * /` for a vector type over one expression each.
macro_rules! arithmetic {
    ([$($generics:tt)*] $vector:ty, |$a:ident, $b:ident| add $add:expr, sub $sub:expr, mul $mul:expr, div $div:expr) => {
        $crate::simd::arithmetic!(@one [$($generics)*] $vector, Add, add, $a, $b, $add);
        $crate::simd::arithmetic!(@one [$($generics)*] $vector, Sub, sub, $a, $b, $sub);
        $crate::simd::arithmetic!(@one [$($generics)*] $vector, Mul, mul, $a, $b, $mul);
        $crate::simd::arithmetic!(@one [$($generics)*] $vector, Div, div, $a, $b, $div);
    };
    ($vector:ty, |$a:ident, $b:ident| $($operations:tt)*) => {
        $crate::simd::arithmetic!([] $vector, |$a, $b| $($operations)*);
    };
    (@one [$($generics:tt)*] $vector:ty, $operator:ident, $method:ident, $a:ident, $b:ident, $value:expr) => {
        impl<$($generics)*> std::ops::$operator for $vector {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let ($a, $b) = (self, other);
                $value
            }
        }
    };
}
pub(crate) use arithmetic;

/// Makes functions of a generic kernel (which must be `#[inline(always)]`, without closures that touch vectors, for the instructions
/// to reach it): one under the active instruction set, one (`…_with`) under a given one.
///
/// ```ignore
/// #[inline(always)]
/// fn double_kernel<V: F32x16>(xs: &mut [f32]) { … }
///
/// dispatch! {
///     /// Doubles each element.
///     pub fn double, double_with(xs: &mut [f32]) = double_kernel;
/// }
/// ```
///
/// With one name only, only the function that takes the instruction set is made.
macro_rules! dispatch {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident, $with:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? = $kernel:ident;)+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands and shapes flat")]
        $visibility fn $name($($argument: $type),*) $(-> $output)? {
            $with($crate::isa::active(), $($argument),*)
        }

        $crate::simd::dispatch! {
            $(#[$meta])*
            ///
            /// Under a given instruction set (the result's bits are the same under each).
            $visibility fn $with($($argument: $type),*) $(-> $output)? = $kernel;
        }
    )+};
    ($($(#[$meta:meta])* $visibility:vis fn $with:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? = $kernel:ident;)+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands and shapes flat")]
        $visibility fn $with(isa: $crate::isa::Isa, $($argument: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "fma")]
            fn scalar_fma($($argument: $type),*) $(-> $output)? {
                $kernel::<$crate::simd::Scalar>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $output)? {
                $kernel::<$crate::simd::Avx2>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $output)? {
                $kernel::<$crate::simd::Avx512>($($argument),*)
            }
            match isa {
                $crate::isa::Isa::Software => $kernel::<$crate::simd::Software>($($argument),*),
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Scalar if is_x86_feature_detected!("fma") => {
                    // SAFETY: the CPU was just asked.
                    unsafe { scalar_fma($($argument),*) }
                }
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Scalar => $kernel::<$crate::simd::Scalar>($($argument),*),
                #[cfg(not(target_arch = "aarch64"))]
                $crate::isa::Isa::Scalar => $kernel::<$crate::simd::Software>($($argument),*),
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Neon => $kernel::<$crate::simd::Neon>($($argument),*),
                // SAFETY: the value holds the proof that this CPU has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2(_) => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512(_) => unsafe { avx512($($argument),*) },
            }
        }
    )+};
}
pub(crate) use dispatch;
