//! Few rows times a matrix stored by columns: a weight matrix applied to the tokens being decoded.
//!
//! Sixteen columns of B stand side by side, turned in registers as they are read: B is read once, where it lies.

use super::Product;
use super::panels::{Room, nearby};
use super::tile::Tiled;
use crate::simd::{F32x16, LANES};

/// A product of at most `V::FEW` rows and at least sixteen columns whose B has a row stride of 1.
///
/// # Safety
/// The product's matrices must fit their memory, and nothing else may touch its elements of C.
#[inline(always)]
pub(super) unsafe fn few_rows<V: Tiled>(product: Product) {
    // SAFETY: handed on.
    unsafe {
        match product.m {
            1 => all_columns::<V, 1>(product),
            2 => all_columns::<V, 2>(product),
            3 if V::FEW >= 3 => all_columns::<V, 3>(product),
            4 if V::FEW >= 4 => all_columns::<V, 4>(product),
            5 if V::FEW >= 5 => all_columns::<V, 5>(product),
            6 if V::FEW >= 6 => all_columns::<V, 6>(product),
            7 if V::FEW >= 7 => all_columns::<V, 7>(product),
            8 if V::FEW >= 8 => all_columns::<V, 8>(product),
            _ => unreachable!("more than a few rows"),
        }
    }
}

/// # Safety
/// As [`few_rows`], with `ROWS` rows.
#[inline(always)]
unsafe fn all_columns<V: F32x16, const ROWS: usize>(product: Product) {
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
/// As [`few_rows`], with `ROWS` rows and all these columns.
#[inline(always)]
unsafe fn columns<V: F32x16, const ROWS: usize, const GROUPS: usize>(product: Product, j: usize, known: usize) {
    let Product { k, a, b, c, accumulate, .. } = product;
    let mut sums = [[V::splat(0.0); GROUPS]; ROWS];
    // SAFETY: rows, columns and steps are inside the matrices, as the caller vouches.
    unsafe {
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (g, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(&lanes(c.from(i, j + g * LANES).data, c.col_stride));
                }
            }
        }
        let whole = k - k % 4;
        let mut rooms = [const { Room::uninit() }; GROUPS];
        for p in (0..whole).step_by(4) {
            for (g, room) in rooms.iter_mut().enumerate() {
                let rows = nearby::<V>(b.from(0, j + g * LANES).transposed(), p, k, GROUPS * LANES, room);
                let weights = V::load_four_columns(rows.data, rows.row_stride);
                for (q, weights) in weights.into_iter().enumerate() {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        sums[g] = V::splat(*a.from(i, p + q).data).fma(weights, sums[g]);
                    }
                }
            }
        }
        for p in whole..k {
            for g in 0..GROUPS {
                let weights = V::load(&lanes(b.from(p, j + g * LANES).data, b.col_stride));
                for (i, sums) in sums.iter_mut().enumerate() {
                    sums[g] = V::splat(*a.from(i, p).data).fma(weights, sums[g]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (g, sum) in sums.into_iter().enumerate() {
                for (l, value) in sum.to_array().into_iter().enumerate().skip(known) {
                    *c.from(i, j + g * LANES + l).data = value;
                }
            }
        }
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
