//! The inner loops of attention for one head of one segment, sixteen keys (or elements of the head) at a time.
//!
//! Matrices of the head: `q`, `dout`, `k`, `v` are (rows, width) with the head's `dim` elements and zeros up to `width`, a
//! multiple of 16; `kt`, `vt` are (dim, stride), keys along the vectors. Row i of the queries sees the first `first + i` keys.
//! Rows are worked on in the tiles of the matrix products to keep many chains in flight; which rows share one never enters a bit.
//!
//! Vector code stands in `#[inline(always)]` functions and plain loops, never in closures: a closure doesn't inherit the
//! instructions that `dispatch!` enables, and would call each intrinsic instead of containing it.

use crate::elementary::lanes::exp;
use crate::gemm::panels::View;
use crate::gemm::tile::{Tile, Tiled, in_tiles};
use crate::simd::{F32x16, LANES, dispatch};

/// The queries' shape and what they see.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dim: usize,
    pub width: usize,
    /// Keys that the first row sees; each row sees one more than the row before it.
    pub first: usize,
    pub scale: f32,
}

impl Shape {
    fn rows(&self, q: &[f32]) -> usize {
        q.len() / self.width
    }
}

/// A key or value matrix transposed: (dim, stride).
#[derive(Clone, Copy)]
pub struct Transposed<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// Rows of scores that [`attend`] works on at a time, at most.
pub const SCORE_ROWS: usize = 12;

dispatch! {
    /// `out`: (rows, width) ← softmax(q kᵀ · scale) v. `scores`: scratch of `kt`'s stride for each row, at most [`SCORE_ROWS`].
    pub fn attend, attend_with(shape: Shape, q: &[f32], kt: Transposed, v: &[f32], scores: &mut [f32], out: &mut [f32]) = attend_kernel;

    /// The backward pass of [`attend`]: `dq` is written, `dk` and `dv`: (keys, width) continue their chains. `p`, `ds`:
    /// scratch, (rows, stride).
    pub(super) fn attend_backward, attend_backward_with(shape: Shape, inputs: Inputs, p: &mut [f32], ds: &mut [f32], dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) = attend_backward_kernel;

    /// `out`: (dim, stride) ← the first `dim` columns of `x`: (rows, width) transposed, zeros after them.
    pub(super) fn transpose, transpose_with(x: &[f32], width: usize, dim: usize, stride: usize, out: &mut [f32]) = transpose_kernel;
}

/// What [`attend_backward`] reads.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub q: &'a [f32],
    pub dout: &'a [f32],
    pub k: &'a [f32],
    pub kt: Transposed<'a>,
    pub vt: Transposed<'a>,
}

#[inline(always)]
fn transpose_kernel<V: F32x16>(x: &[f32], width: usize, dim: usize, stride: usize, out: &mut [f32]) {
    let rows = x.len() / width;
    assert!(dim <= width && width.is_multiple_of(LANES) && rows <= stride && out.len() >= dim * stride);
    let whole = rows - rows % LANES;
    for j in (0..whole).step_by(LANES) {
        for d in (0..dim).step_by(4) {
            // SAFETY: rows up to j + 16 ≤ rows, and the four columns from d lie below the width, a multiple of four.
            let columns = unsafe { V::load_four_columns(x.as_ptr().add(j * width + d), width) };
            for (q, column) in columns.into_iter().enumerate().take(dim - d) {
                column.store(&mut out[(d + q) * stride + j..]);
            }
        }
    }
    for (d, out) in out.chunks_exact_mut(stride).enumerate().take(dim) {
        (whole..rows).for_each(|j| out[j] = x[j * width + d]);
        out[rows..].fill(0.0);
    }
}

#[inline(always)]
fn attend_kernel<V: Tiled>(shape: Shape, q: &[f32], kt: Transposed, v: &[f32], scores: &mut [f32], out: &mut [f32]) {
    in_tiles!(V, shape.rows(q), |i, R| attend_block::<V, R>(shape, i, q, kt, v, scores, out));
}

/// Rows `i..i + R` of [`attend`].
#[inline(always)]
fn attend_block<V: Tiled, const R: usize>(
    shape: Shape,
    i: usize,
    q: &[f32],
    kt: Transposed,
    v: &[f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let first = shape.first + i;
    dots::<V, R>(shape, &q[i * shape.width..], kt, first + R - 1, scores);
    let totals = exponentials::<V, R>(scores, kt.stride, first, shape.scale);
    let out = &mut out[i * shape.width..][..R * shape.width];
    mix::<V, R>(scores, kt.stride, first, v, shape.width, out);
    for (row, total) in out.chunks_exact_mut(shape.width).zip(totals) {
        for part in row.chunks_exact_mut(LANES) {
            (V::load(part) / V::splat(total)).store(part);
        }
    }
}

#[inline(always)]
fn attend_backward_kernel<V: Tiled>(
    shape: Shape,
    from: Inputs,
    p: &mut [f32],
    ds: &mut [f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    in_tiles!(V, shape.rows(from.q), |i, R| backward_block::<V, R>(shape, i, from, p, ds, dq));
    add_mixed_columns::<V>(p, from.kt.stride, shape.first, from.dout, shape.width, dv);
    add_mixed_columns::<V>(ds, from.kt.stride, shape.first, from.q, shape.width, dk);
}

/// The softmax weights, the score gradients and the query gradients of rows `i..i + R`.
#[inline(always)]
fn backward_block<V: Tiled, const R: usize>(shape: Shape, i: usize, from: Inputs, p: &mut [f32], ds: &mut [f32], dq: &mut [f32]) {
    let (first, stride) = (shape.first + i, from.kt.stride);
    let (p, ds) = (&mut p[i * stride..][..R * stride], &mut ds[i * stride..][..R * stride]);
    dots::<V, R>(shape, &from.q[i * shape.width..], from.kt, first + R - 1, p);
    dots::<V, R>(shape, &from.dout[i * shape.width..], from.vt, first + R - 1, ds);
    let totals = exponentials::<V, R>(p, stride, first, shape.scale);
    for (r, total) in totals.into_iter().enumerate() {
        let (p, ds) = (&mut p[r * stride..][..stride], &mut ds[r * stride..][..stride]);
        softmax_backward::<V>(p, ds, first + r, total, shape.scale);
    }
    mix::<V, R>(ds, stride, first, from.k, shape.width, &mut dq[i * shape.width..][..R * shape.width]);
}

/// `vectors` vectors of columns in tiles of `R` rows: calls `$tile` for each, its first vector in `$at` and its number of
/// vectors in the constant `$vectors`. Few rows take more vectors, so that enough chains are in flight.
macro_rules! in_vectors {
    ($vector:ident, $rows:ident, $count:expr, |$at:ident, $vectors:ident| $tile:expr) => {
        let count: usize = $count;
        let mut $at = 0;
        in_vectors!(@ $rows == 1, 4, count, $at, $vectors, $tile);
        in_vectors!(@ $vector::VECTORS == 2 || $rows <= 2, 2, count, $at, $vectors, $tile);
        in_vectors!(@ true, 1, count, $at, $vectors, $tile);
    };
    (@ $used:expr, $n:literal, $count:ident, $at:ident, $vectors:ident, $tile:expr) => {
        while $used && $count - $at >= $n {
            const $vectors: usize = $n;
            $tile;
            $at += $n;
        }
    };
}

/// `out[r, j]` ← chain over d of q[r, d] · kt[d, j] for at least the first `keys` columns of each of R rows.
#[inline(always)]
fn dots<V: Tiled, const R: usize>(shape: Shape, q: &[f32], kt: Transposed, keys: usize, out: &mut [f32]) {
    let vectors = keys.div_ceil(LANES);
    assert!(q.len() >= R * shape.width && out.len() >= R * kt.stride && shape.dim <= shape.width);
    assert!(kt.data.len() >= shape.dim * kt.stride && vectors * LANES <= kt.stride);
    let a = View { data: q.as_ptr(), row_stride: shape.width, col_stride: 1 };
    let b = View { data: kt.data.as_ptr(), row_stride: 1, col_stride: kt.stride };
    let c = out.as_mut_ptr();
    in_vectors!(V, R, vectors, |at, B| {
        let c = c.wrapping_add(at * LANES);
        let of = Tile { k: shape.dim, a, b: b.from(at * LANES, 0), c, c_stride: kt.stride, carry: false };
        // SAFETY: R rows of `q` and `out` exist, dim rows of `kt`, and columns up to that of the last vector (above).
        unsafe { V::tile::<R, B>(of) }
    });
}

/// The vector of scores at `at`, scaled; −∞ beyond the first `n`.
#[inline(always)]
fn scaled<V: F32x16>(row: &[f32], at: usize, n: usize, scale: f32) -> V {
    if at + LANES <= n {
        V::load(&row[at..]) * V::splat(scale)
    } else {
        V::load_part(&row[at..n], f32::NEG_INFINITY) * V::splat(scale)
    }
}

/// The first `first + r` scores of each of R rows become exp(score · scale − max), zeros follow up to a whole vector; returns
/// each row's sum. All maxima come first: their rows don't wait for each other.
#[inline(always)]
fn exponentials<V: F32x16, const R: usize>(rows: &mut [f32], stride: usize, first: usize, scale: f32) -> [f32; R] {
    let mut largest = [0.0; R];
    for (r, largest) in largest.iter_mut().enumerate() {
        let (row, n) = (&rows[r * stride..][..stride], first + r);
        let mut most = V::splat(f32::NEG_INFINITY);
        for at in (0..n).step_by(LANES) {
            most = scaled::<V>(row, at, n, scale).max(most);
        }
        *largest = most.tree_max();
    }
    let mut sums = [0.0; R];
    for (r, total) in sums.iter_mut().enumerate() {
        let (row, n) = (&mut rows[r * stride..][..stride], first + r);
        let largest = V::splat(largest[r]);
        let mut sum = V::splat(0.0);
        for at in (0..n).step_by(LANES) {
            let e = exp(scaled::<V>(row, at, n, scale) - largest);
            sum = sum + e;
            e.store(&mut row[at..]);
        }
        *total = sum.tree_sum();
    }
    sums
}

/// `p`: exponentials become the weights P = e / total; `ds`: dP becomes P · (dP − Σ P dP) · scale.
#[inline(always)]
fn softmax_backward<V: F32x16>(p: &mut [f32], ds: &mut [f32], n: usize, total: f32, scale: f32) {
    let total = V::splat(total);
    let mut mean = V::splat(0.0);
    for at in (0..n).step_by(LANES) {
        let weight = V::load(&p[at..]) / total;
        weight.store(&mut p[at..]);
        // 0 · −0 beyond the end: as an addend it changes no lane.
        let dp = if at + LANES <= n { V::load(&ds[at..]) } else { V::load_part(&ds[at..n], -0.0) };
        mean = weight.fma(dp, mean);
    }
    let (mean, scale) = (V::splat(mean.tree_sum()), V::splat(scale));
    for at in (0..n).step_by(LANES) {
        let d = (V::load(&p[at..]) * (V::load(&ds[at..]) - mean)) * scale;
        d.store(&mut ds[at..]);
    }
}

/// `out[r, :]` ← chain over j < first + r of w[r, j] · m[j, :], for R rows.
#[inline(always)]
fn mix<V: Tiled, const R: usize>(w: &[f32], stride: usize, first: usize, m: &[f32], width: usize, out: &mut [f32]) {
    assert!(w.len() >= R * stride && first + R - 1 <= stride && m.len() >= (first + R - 1) * width && out.len() >= R * width);
    let a = View { data: w.as_ptr(), row_stride: stride, col_stride: 1 };
    let b = View { data: m.as_ptr(), row_stride: 1, col_stride: width };
    let c = out.as_mut_ptr();
    in_vectors!(V, R, width / LANES, |at, D| {
        let c = c.wrapping_add(at * LANES);
        let of = Tile { k: first, a, b: b.from(at * LANES, 0), c, c_stride: width, carry: false };
        // SAFETY: R rows of `w` and `out` exist and first + R − 1 rows of `m`, each whole vectors wide (above).
        unsafe { V::tile::<R, D>(of) }
    });
    for r in 1..R {
        let weights = &w[r * stride + first..][..r];
        extend::<V>(weights, 1, &m[first * width..], width, &mut out[r * width..][..width]);
    }
}

/// `out`: (width) continues its chain by a step for each row of `m`: (_, width) and each `step`-th element of `w`.
#[inline(always)]
fn extend<V: F32x16>(w: &[f32], step: usize, m: &[f32], width: usize, out: &mut [f32]) {
    for column in (0..width).step_by(LANES) {
        let mut sum = V::load(&out[column..]);
        for (w, m) in w.iter().step_by(step).zip(m.chunks_exact(width)) {
            sum = V::splat(*w).fma(V::load(&m[column..]), sum);
        }
        sum.store(&mut out[column..]);
    }
}

/// `out[j, :]` continues its chain over the rows i that see key j (j < first + i): w[i, j] · m[i, :].
#[inline(always)]
fn add_mixed_columns<V: Tiled>(w: &[f32], stride: usize, first: usize, m: &[f32], width: usize, out: &mut [f32]) {
    let (keys, rows) = (out.len() / width, m.len() / width);
    assert!(w.len() >= rows * stride && keys <= stride && first >= 1 && keys < first + rows);
    // Every row sees these keys; from here on each key is seen from one row later than the one before it.
    let seen_by_all = keys.min(first - 1);
    let a = View { data: w.as_ptr(), row_stride: 1, col_stride: stride };
    let b = View { data: m.as_ptr(), row_stride: 1, col_stride: width };
    let c = out.as_mut_ptr();
    in_tiles!(V, seen_by_all, |j, J| {
        in_vectors!(V, J, width / LANES, |at, D| {
            let c = c.wrapping_add(j * width + at * LANES);
            let of = Tile { k: rows, a: a.from(j, 0), b: b.from(at * LANES, 0), c, c_stride: width, carry: true };
            // SAFETY: keys j..j + J are below `keys`; `rows` rows of `w` and `m` exist.
            unsafe { V::tile::<J, D>(of) }
        });
    });
    in_tiles!(V, keys - seen_by_all, |t, J| {
        // All of the keys j..j + J are seen from row t + J − 1 on.
        let (j, all) = (seen_by_all + t, t + J - 1);
        for row in t..all {
            let key = seen_by_all + row;
            let (w, m) = (&w[row * stride + key..all * stride], &m[row * width..all * width]);
            extend::<V>(w, stride, m, width, &mut out[key * width..][..width]);
        }
        let c = out.as_mut_ptr();
        in_vectors!(V, J, width / LANES, |at, D| {
            let (a, b, c) = (a.from(j, all), b.from(at * LANES, all), c.wrapping_add(j * width + at * LANES));
            let of = Tile { k: rows - all, a, b, c, c_stride: width, carry: true };
            // SAFETY: as above; key j + J − 1 < first + rows − 1 is seen by a row, so that `all` < rows.
            unsafe { V::tile::<J, D>(of) }
        });
    });
}
