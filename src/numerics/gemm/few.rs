//! Few rows times a matrix stored by columns: a weight matrix applied to the tokens being decoded.
//!
//! Sixteen columns of B stand side by side, turned in registers as they are read: B is read once, where it lies.

use super::Product;
use super::panels::{Room, nearby};
use super::tile::{Tiled, unrolled};
use crate::simd::{F32x16, LANES};

/// A product of at most `V::FEW` rows and at least sixteen columns whose B has a row stride of 1.
///
/// # Safety
/// The product's matrices must fit their memory, and nothing else may touch its elements of C.
#[inline(always)]
pub(super) unsafe fn any_few_rows<V: Tiled>(product: Product) {
    // SAFETY: handed on.
    unsafe {
        match product.m {
            1 => V::few_rows::<1>(product),
            2 => V::few_rows::<2>(product),
            3 if V::FEW >= 3 => V::few_rows::<3>(product),
            4 if V::FEW >= 4 => V::few_rows::<4>(product),
            5 if V::FEW >= 5 => V::few_rows::<5>(product),
            6 if V::FEW >= 6 => V::few_rows::<6>(product),
            7 if V::FEW >= 7 => V::few_rows::<7>(product),
            8 if V::FEW >= 8 => V::few_rows::<8>(product),
            _ => unreachable!("more than a few rows"),
        }
    }
}

/// A product of `ROWS` rows.
///
/// # Safety
/// As [`any_few_rows`].
#[inline(always)]
pub(super) unsafe fn few_rows<V: F32x16, const ROWS: usize>(product: Product) {
    let n = product.n;
    let mut j = 0;
    // SAFETY: all columns are below n.
    unsafe {
        // One or two rows have too few chains to keep the multipliers busy.
        while ROWS <= 2 && j + 2 * LANES <= n {
            columns::<V, ROWS, 2>(product, j, 0);
            j += 2 * LANES;
        }
        while j + LANES <= n {
            columns::<V, ROWS, 1>(product, j, 0);
            j += LANES;
        }
        if j < n {
            columns::<V, ROWS, 1>(product, n - LANES, j - (n - LANES));
        }
    }
}

/// `GROUPS` times sixteen columns from `j`; the first `known` are in C already and are computed for nothing.
///
/// # Safety
/// As [`few_rows`], with all these columns.
#[inline(always)]
unsafe fn columns<V: F32x16, const ROWS: usize, const GROUPS: usize>(product: Product, j: usize, known: usize) {
    let Product { k, a, b, c, accumulate, .. } = product;
    let mut sums = [[V::splat(0.0); GROUPS]; ROWS];
    // SAFETY: rows, columns and steps are inside the matrices, as the caller vouches.
    unsafe {
        if accumulate {
            unrolled!(i in 0..ROWS {
                unrolled!(g in 0..GROUPS {
                    sums[i][g] = V::load(&lanes(c.from(i, j + g * LANES).data, c.col_stride));
                });
            });
        }
        let whole = k - k % 4;
        let mut rooms = [const { Room::uninit() }; GROUPS];
        for p in (0..whole).step_by(4) {
            unrolled!(g in 0..GROUPS {
                let rows = nearby::<V>(b.from(0, j + g * LANES).transposed(), p, k, GROUPS * LANES, &mut rooms[g]);
                for (q, weights) in V::load_four_columns(rows.data, rows.row_stride).into_iter().enumerate() {
                    unrolled!(i in 0..ROWS {
                        sums[i][g] = V::splat(*a.from(i, p + q).data).fma(weights, sums[i][g]);
                    });
                }
            });
        }
        for p in whole..k {
            unrolled!(g in 0..GROUPS {
                let weights = V::load(&lanes(b.from(p, j + g * LANES).data, b.col_stride));
                unrolled!(i in 0..ROWS {
                    sums[i][g] = V::splat(*a.from(i, p).data).fma(weights, sums[i][g]);
                });
            });
        }
        unrolled!(i in 0..ROWS {
            unrolled!(g in 0..GROUPS {
                let values = sums[i][g].to_array();
                for (l, value) in values.iter().enumerate() {
                    if l >= known {
                        *c.from(i, j + g * LANES + l).data = *value;
                    }
                }
            });
        });
    }
}

/// Sixteen elements, `stride` apart.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn lanes(from: *const f32, stride: usize) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (l, lane) in lanes.iter_mut().enumerate() {
        // SAFETY: as promised.
        *lane = unsafe { *from.wrapping_add(l * stride) };
    }
    lanes
}
