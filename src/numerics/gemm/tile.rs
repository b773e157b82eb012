//! The innermost work: tiles of C whose chains run side by side in registers.

use super::panels::{Out, Panels, View};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{F32x16, LANES, Scalar, Software};

/// The tile shape that fits an instruction set's registers.
pub(super) trait Tiled: F32x16 {
    const ROWS: usize;
    const COLUMNS: usize;
    /// One panel of columns against all rows.
    ///
    /// # Safety
    /// See [`strip`].
    unsafe fn panel(m: usize, columns: usize, k: usize, a: &Panels, b: View, c: Out, carry: bool);
}

/// 24 sums, two columns of B and one element of A in 32 registers.
#[cfg(target_arch = "x86_64")]
impl Tiled for Avx512 {
    const ROWS: usize = 12;
    const COLUMNS: usize = 2 * LANES;
    #[inline(always)]
    unsafe fn panel(m: usize, columns: usize, k: usize, a: &Panels, b: View, c: Out, carry: bool) {
        // SAFETY: handed on.
        unsafe {
            if columns > LANES {
                strip::<Self, 12, 2>(m, columns, k, a, b, c, carry);
            } else {
                strip::<Self, 12, 1>(m, columns, k, a, b, c, carry);
            }
        }
    }
}

/// 12 sums, two halves of a column of B and one element of A in 16 registers.
#[cfg(target_arch = "x86_64")]
impl Tiled for Avx2 {
    const ROWS: usize = 6;
    const COLUMNS: usize = LANES;
    #[inline(always)]
    unsafe fn panel(m: usize, columns: usize, k: usize, a: &Panels, b: View, c: Out, carry: bool) {
        // SAFETY: handed on.
        unsafe { strip::<Self, 6, 1>(m, columns, k, a, b, c, carry) }
    }
}

/// 24 sums, four quarters of a column of B and one element of A in 32 registers.
#[cfg(target_arch = "aarch64")]
impl Tiled for Neon {
    const ROWS: usize = 6;
    const COLUMNS: usize = LANES;
    #[inline(always)]
    unsafe fn panel(m: usize, columns: usize, k: usize, a: &Panels, b: View, c: Out, carry: bool) {
        // SAFETY: handed on.
        unsafe { strip::<Self, 6, 1>(m, columns, k, a, b, c, carry) }
    }
}

impl Tiled for Scalar {
    const ROWS: usize = 4;
    const COLUMNS: usize = LANES;
    #[inline(always)]
    unsafe fn panel(m: usize, columns: usize, k: usize, a: &Panels, b: View, c: Out, carry: bool) {
        // SAFETY: handed on.
        unsafe { strip::<Self, 4, 1>(m, columns, k, a, b, c, carry) }
    }
}

impl Tiled for Software {
    const ROWS: usize = 4;
    const COLUMNS: usize = LANES;
    #[inline(always)]
    unsafe fn panel(m: usize, columns: usize, k: usize, a: &Panels, b: View, c: Out, carry: bool) {
        // SAFETY: handed on.
        unsafe { strip::<Self, 4, 1>(m, columns, k, a, b, c, carry) }
    }
}

/// One block of C: each panel of B stays in the first-level cache while all rows of A pass.
///
/// # Safety
/// `a` must hold `m` lanes and `b` `n` lanes of depth `k`; `c` must be valid for m × n elements that nothing else touches.
#[inline(always)]
pub(super) unsafe fn block<V: Tiled>(m: usize, n: usize, k: usize, a: &Panels, b: &Panels, c: Out, carry: bool) {
    for j in (0..n).step_by(V::COLUMNS) {
        // SAFETY: handed on.
        unsafe { V::panel(m, (n - j).min(V::COLUMNS), k, a, b.panel(j), c.from(0, j), carry) };
    }
}

/// All rows of A against one panel of B: tiles of `ROWS`, then of 8, 4, 2 and 1 for what is left.
///
/// # Safety
/// `a` must hold `m` lanes in panels of `ROWS`, `b` `VECTORS * 16` lanes side by side, both of depth `k`; `c` must be valid for `m` rows
/// and `columns` columns, more than `(VECTORS - 1) * 16`.
#[inline(always)]
unsafe fn strip<V: F32x16, const ROWS: usize, const VECTORS: usize>(
    m: usize,
    columns: usize,
    k: usize,
    a: &Panels,
    b: View,
    c: Out,
    carry: bool,
) {
    let whole = m - m % ROWS;
    // SAFETY: rows `i..i + R` of each tile are below m.
    unsafe {
        for i in (0..whole).step_by(ROWS) {
            tile::<V, ROWS, VECTORS>(k, a.panel(i), b, c.from(i, 0), columns, carry);
        }
        let (mut i, rest) = (0, m - whole);
        if rest == 0 {
            return;
        }
        let (a, c) = (a.panel(whole), c.from(whole, 0));
        if rest & 8 != 0 {
            tile::<V, 8, VECTORS>(k, a, b, c, columns, carry);
            i += 8;
        }
        if rest & 4 != 0 {
            tile::<V, 4, VECTORS>(k, a.from(i, 0), b, c.from(i, 0), columns, carry);
            i += 4;
        }
        if rest & 2 != 0 {
            tile::<V, 2, VECTORS>(k, a.from(i, 0), b, c.from(i, 0), columns, carry);
            i += 2;
        }
        if rest & 1 != 0 {
            tile::<V, 1, VECTORS>(k, a.from(i, 0), b, c.from(i, 0), columns, carry);
        }
    }
}

/// `for $i in 0..$count` for a constant of at most 12 (or 2), written out: sums stay in registers only where no loop is left.
macro_rules! unrolled {
    ($i:ident in 0..ROWS $body:block) => { unrolled!(@ $i ROWS $body 0 1 2 3 4 5 6 7 8 9 10 11) };
    ($v:ident in 0..VECTORS $body:block) => { unrolled!(@ $v VECTORS $body 0 1) };
    (@ $i:ident $count:ident $body:block $($index:literal)*) => {$(
        if $index < $count {
            let $i: usize = $index;
            $body
        }
    )*};
}

/// The chains of `ROWS` × `columns` elements of C side by side in registers.
///
/// Elements are read by `read_unaligned` at wrapping offsets: the checks that development builds put on plain reads would force
/// every sum to memory at each step.
///
/// # Safety
/// As [`strip`] with `ROWS` rows.
#[inline(always)]
unsafe fn tile<V: F32x16, const ROWS: usize, const VECTORS: usize>(
    k: usize,
    a: View,
    b: View,
    c: Out,
    columns: usize,
    carry: bool,
) {
    let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
    // SAFETY: all indices are below k, ROWS and columns, which the caller vouches for.
    unsafe {
        if carry {
            unrolled!(i in 0..ROWS {
                unrolled!(v in 0..VECTORS {
                    sums[i][v] = load_sums(c.from(i, v * LANES), (columns - v * LANES).min(LANES));
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
                store_sums(sums[i][v], c.from(i, v * LANES), (columns - v * LANES).min(LANES));
            });
        });
    }
}

/// # Safety
/// `c` must be valid for one row of `count <= 16` elements.
#[inline(always)]
unsafe fn load_sums<V: F32x16>(c: Out, count: usize) -> V {
    // SAFETY: as promised.
    unsafe {
        if c.col_stride == 1 {
            return if count == LANES { V::load_pointer(c.data) } else { V::load_part_pointer(c.data, count, 0.0) };
        }
        let mut lanes = [0.0; LANES];
        for (l, lane) in lanes.iter_mut().enumerate().take(count) {
            *lane = *c.data.add(l * c.col_stride);
        }
        V::load(&lanes)
    }
}

/// # Safety
/// `c` must be valid for one row of `count <= 16` elements.
#[inline(always)]
unsafe fn store_sums<V: F32x16>(sums: V, c: Out, count: usize) {
    // SAFETY: as promised.
    unsafe {
        if c.col_stride == 1 {
            return if count == LANES { sums.store_pointer(c.data) } else { sums.store_part_pointer(c.data, count) };
        }
        for (l, sum) in sums.to_array().into_iter().enumerate().take(count) {
            *c.data.add(l * c.col_stride) = sum;
        }
    }
}
