//! The innermost work: tiles of C whose chains run side by side in registers.

use super::Product;
use super::few::few_rows;
use super::panels::{Out, Panels, View, pack};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{F32x16, LANES, Scalar, Software};

/// The tile shape that fits an instruction set's registers, and the tiles compiled for it.
pub(crate) trait Tiled: F32x16 {
    /// 12, 6 or 4.
    const ROWS: usize;
    /// At most 2.
    const VECTORS: usize;
    /// Up to this many rows of A, at most 8, fit into registers beside what transposing B takes.
    const FEW: usize;

    /// [`tile`]. This and the other two are functions of their own: among other code the compiler would not keep every sum in a
    /// register.
    ///
    /// # Safety
    /// See [`tile`].
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(of: Tile) {
        // SAFETY: handed on.
        unsafe { tile::<Self, ROWS, VECTORS>(of) }
    }
    /// [`few_rows`](super::few::few_rows).
    ///
    /// # Safety
    /// See there.
    #[inline(always)]
    unsafe fn few_rows<const ROWS: usize>(product: Product) {
        // SAFETY: handed on.
        unsafe { few_rows::<Self, ROWS>(product) }
    }
    /// [`pack`](super::panels::pack).
    ///
    /// # Safety
    /// See there.
    #[inline(always)]
    unsafe fn pack(from: View, lanes: usize, depth: usize, to: *mut f32, width: usize) {
        // SAFETY: handed on.
        unsafe { pack::<Self>(from, lanes, depth, to, width) }
    }
}

/// The three functions compiled with a vector type's instructions, which whoever got hold of the type has already asked the CPU
/// for.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($features:literal) => {
        #[inline(always)]
        unsafe fn tile<const ROWS: usize, const VECTORS: usize>(of: Tile) {
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn compiled<V: Tiled, const ROWS: usize, const VECTORS: usize>(of: &Tile) {
                // SAFETY: handed on.
                unsafe { tile::<V, ROWS, VECTORS>(*of) }
            }
            // SAFETY: handed on; the instructions are there (above).
            unsafe { compiled::<Self, ROWS, VECTORS>(&of) }
        }
        #[inline(always)]
        unsafe fn few_rows<const ROWS: usize>(product: Product) {
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn compiled<V: Tiled, const ROWS: usize>(product: &Product) {
                // SAFETY: handed on.
                unsafe { few_rows::<V, ROWS>(*product) }
            }
            // SAFETY: handed on; the instructions are there (above).
            unsafe { compiled::<Self, ROWS>(&product) }
        }
        #[inline(always)]
        unsafe fn pack(from: View, lanes: usize, depth: usize, to: *mut f32, width: usize) {
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn compiled<V: Tiled>(from: View, lanes: usize, depth: usize, to: *mut f32, width: usize) {
                // SAFETY: handed on.
                unsafe { pack::<V>(from, lanes, depth, to, width) }
            }
            // SAFETY: handed on; the instructions are there (above).
            unsafe { compiled::<Self>(from, lanes, depth, to, width) }
        }
    };
}

/// 24 sums, two columns of B and one element of A in 32 registers.
#[cfg(target_arch = "x86_64")]
impl Tiled for Avx512 {
    const ROWS: usize = 12;
    const VECTORS: usize = 2;
    const FEW: usize = 8;
    compiled!("avx512f,avx2,fma");
}

/// 12 sums, two halves of a column of B and one element of A in 16 registers.
#[cfg(target_arch = "x86_64")]
impl Tiled for Avx2 {
    const ROWS: usize = 6;
    const VECTORS: usize = 1;
    const FEW: usize = 3;
    compiled!("avx2,fma");
}

/// 24 sums, four quarters of a column of B and one element of A in 32 registers.
#[cfg(target_arch = "aarch64")]
impl Tiled for Neon {
    const ROWS: usize = 6;
    const VECTORS: usize = 1;
    const FEW: usize = 3;
}

impl Tiled for Scalar {
    const ROWS: usize = 4;
    const VECTORS: usize = 1;
    const FEW: usize = 2;
}

impl Tiled for Software {
    const ROWS: usize = 4;
    const VECTORS: usize = 1;
    const FEW: usize = 2;
}

/// Some rows and whole vectors of columns of a product.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) k: usize,
    pub(crate) a: View,
    pub(crate) b: View,
    /// The first row; its elements lie side by side.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Whether chains start from what C holds.
    pub(crate) carry: bool,
}

/// `$m` rows in tiles of the vector type's `ROWS`, then of 8, 4, 2 and 1 for what is left: `$tile` for each, its first row in
/// `$i` and its number of rows in the constant `$rows`.
macro_rules! in_tiles {
    ($vector:ident, $m:expr, |$i:ident, $rows:ident| $tile:expr) => {
        let m: usize = $m;
        let mut $i = 0;
        in_tiles!(@ $vector::ROWS == 12, 12, m, $i, $rows, $tile);
        in_tiles!(@ $vector::ROWS == 12, 8, m, $i, $rows, $tile);
        in_tiles!(@ $vector::ROWS == 6, 6, m, $i, $rows, $tile);
        in_tiles!(@ true, 4, m, $i, $rows, $tile);
        in_tiles!(@ true, 2, m, $i, $rows, $tile);
        in_tiles!(@ true, 1, m, $i, $rows, $tile);
    };
    (@ $used:expr, $count:literal, $m:ident, $i:ident, $rows:ident, $tile:expr) => {
        while $used && $m - $i >= $count {
            const $rows: usize = $count;
            $tile;
            $i += $count;
        }
    };
}
pub(crate) use in_tiles;

/// One block of C: each panel of B stays in the first-level cache while all rows of A pass.
///
/// # Safety
/// `a` must hold `m` lanes and `b` `n` lanes of depth `k`; `c` must be valid for m × n elements that nothing else touches.
#[inline(always)]
pub(super) unsafe fn block<V: Tiled>(m: usize, n: usize, k: usize, a: &Panels, b: &Panels, c: Out, carry: bool) {
    for j in (0..n).step_by(V::VECTORS * LANES) {
        let columns = (n - j).min(V::VECTORS * LANES);
        let b = b.panel(j);
        in_tiles!(V, m, |i, ROWS| {
            let a = a.panel(i);
            // SAFETY: handed on; the rows of a tile are below m and in one panel.
            unsafe {
                match columns > LANES {
                    true => tile_anywhere::<V, ROWS, 2>(k, a, b, c.from(i, j), columns, carry),
                    false => tile_anywhere::<V, ROWS, 1>(k, a, b, c.from(i, j), columns, carry),
                }
            }
        });
    }
}

/// A tile of any C: one whose elements don't lie side by side in whole vectors is worked on in a copy.
///
/// # Safety
/// As [`tile`], with C of `columns` columns, which are more than `(VECTORS - 1) * 16`.
#[inline(always)]
unsafe fn tile_anywhere<V: Tiled, const ROWS: usize, const VECTORS: usize>(
    k: usize,
    a: View,
    b: View,
    c: Out,
    columns: usize,
    carry: bool,
) {
    // SAFETY: handed on; the copy has the room of a whole tile.
    unsafe {
        if c.col_stride == 1 && columns == VECTORS * LANES {
            return V::tile::<ROWS, VECTORS>(Tile { k, a, b, c: c.data, c_stride: c.row_stride, carry });
        }
        let mut copy = [[[0.0f32; LANES]; VECTORS]; ROWS];
        let rows = copy.as_flattened_mut();
        for i in 0..if carry { ROWS } else { 0 } {
            let row = rows[i * VECTORS..].as_flattened_mut();
            (0..columns).for_each(|j| row[j] = *c.from(i, j).data);
        }
        let data = rows.as_flattened_mut().as_mut_ptr();
        V::tile::<ROWS, VECTORS>(Tile { k, a, b, c: data, c_stride: VECTORS * LANES, carry });
        for i in 0..ROWS {
            (0..columns).for_each(|j| *c.from(i, j).data = *data.add(i * VECTORS * LANES + j));
        }
    }
}

/// `for $i in 0..ROWS` (at most 12), `0..VECTORS` (at most 4) or `0..GROUPS` (at most 2), written out: sums stay in registers only where no loop is left.
macro_rules! unrolled {
    ($i:ident in 0..ROWS $body:block) => { unrolled!(@ $i ROWS $body 0 1 2 3 4 5 6 7 8 9 10 11) };
    ($v:ident in 0..VECTORS $body:block) => { unrolled!(@ $v VECTORS $body 0 1 2 3) };
    ($g:ident in 0..GROUPS $body:block) => { unrolled!(@ $g GROUPS $body 0 1) };
    (@ $i:ident $count:ident $body:block $($index:literal)*) => {$(
        if $index < $count {
            let $i: usize = $index;
            $body
        }
    )*};
}
pub(super) use unrolled;

/// The chains of `ROWS` × `VECTORS * 16` elements of C side by side in registers.
///
/// Elements are read by `read_unaligned` at wrapping offsets: the checks that development builds put on plain reads would force
/// every sum to memory at each step.
///
/// # Safety
/// A must be readable for `ROWS` rows and B for `VECTORS * 16` columns of depth `k`, C writable for `ROWS` rows of as many
/// elements, which nothing else touches.
#[inline(always)]
unsafe fn tile<V: F32x16, const ROWS: usize, const VECTORS: usize>(of: Tile) {
    let Tile { k, a, b, c, c_stride, carry } = of;
    let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
    // SAFETY: all indices are below k, ROWS and columns, which the caller vouches for.
    unsafe {
        if carry {
            unrolled!(i in 0..ROWS {
                unrolled!(v in 0..VECTORS {
                    sums[i][v] = V::load_pointer(c.wrapping_add(i * c_stride + v * LANES));
                });
            });
        }
        let (mut a_p, mut b_p) = (a.data, b.data);
        for _ in 0..k {
            let mut column = [V::splat(0.0); VECTORS];
            unrolled!(v in 0..VECTORS {
                column[v] = V::load_pointer(b_p.wrapping_add(v * LANES));
            });
            unrolled!(i in 0..ROWS {
                let x = V::splat(*a_p.add(i * a.row_stride));
                unrolled!(v in 0..VECTORS {
                    sums[i][v] = x.fma(column[v], sums[i][v]);
                });
            });
            a_p = a_p.wrapping_add(a.col_stride);
            b_p = b_p.wrapping_add(b.col_stride);
        }
        unrolled!(i in 0..ROWS {
            unrolled!(v in 0..VECTORS {
                sums[i][v].store_pointer(c.wrapping_add(i * c_stride + v * LANES));
            });
        });
    }
}
