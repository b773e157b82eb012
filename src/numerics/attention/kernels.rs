//! The inner loops of attention for one head of one segment, sixteen keys (or elements of the head) at a time.
//!
//! Matrices of the head: `q`, `dout`, `k`, `v` are (rows, width) with the head's `dim` elements and zeros up to `width`, a
//! multiple of 16; `kt`, `vt` are (dim, stride), keys along the vectors. Row i of the queries sees the first `first + i` keys.
//! Rows are worked on four at a time to keep several chains in flight; which four never enters a bit.
//!
//! Vector code stands in `#[inline(always)]` functions and plain loops, never in closures: a closure doesn't inherit the
//! instructions that `dispatch!` enables, and would call each intrinsic instead of containing it.

use crate::elementary::lanes::exp;
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

dispatch! {
    /// `out`: (rows, width) ← softmax(q kᵀ · scale) v. `scores`: scratch of four rows of `kt`'s stride.
    pub fn attend, attend_with(shape: Shape, q: &[f32], kt: Transposed, v: &[f32], scores: &mut [f32], out: &mut [f32]) = attend_kernel;

    /// The backward pass of [`attend`]: `dq` is written, `dk` and `dv`: (keys, width) continue their chains. `p`, `ds`:
    /// scratch, (rows, stride).
    pub(super) fn attend_backward, attend_backward_with(shape: Shape, inputs: Inputs, p: &mut [f32], ds: &mut [f32], dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) = attend_backward_kernel;
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
fn attend_kernel<V: F32x16>(shape: Shape, q: &[f32], kt: Transposed, v: &[f32], scores: &mut [f32], out: &mut [f32]) {
    let rows = shape.rows(q);
    let mut i = 0;
    while i + 4 <= rows {
        attend_block::<V, 4>(shape, i, q, kt, v, scores, out);
        i += 4;
    }
    while i < rows {
        attend_block::<V, 1>(shape, i, q, kt, v, scores, out);
        i += 1;
    }
}

/// Rows `i..i + R` of [`attend`].
#[inline(always)]
fn attend_block<V: F32x16, const R: usize>(
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
    let mut totals = [0.0; R];
    for (r, total) in totals.iter_mut().enumerate() {
        *total = exponentials::<V>(&mut scores[r * kt.stride..][..kt.stride], first + r, shape.scale);
    }
    let out = &mut out[i * shape.width..][..R * shape.width];
    mix::<V, R>(scores, kt.stride, first, v, shape.width, out);
    for (row, total) in out.chunks_exact_mut(shape.width).zip(totals) {
        for part in row.chunks_exact_mut(LANES) {
            (V::load(part) / V::splat(total)).store(part);
        }
    }
}

#[inline(always)]
fn attend_backward_kernel<V: F32x16>(
    shape: Shape,
    from: Inputs,
    p: &mut [f32],
    ds: &mut [f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let rows = shape.rows(from.q);
    let mut i = 0;
    while i + 4 <= rows {
        backward_block::<V, 4>(shape, i, from, p, ds, dq);
        i += 4;
    }
    while i < rows {
        backward_block::<V, 1>(shape, i, from, p, ds, dq);
        i += 1;
    }
    add_mixed_columns::<V>(p, from.kt.stride, shape.first, from.dout, shape.width, dv);
    add_mixed_columns::<V>(ds, from.kt.stride, shape.first, from.q, shape.width, dk);
}

/// The softmax weights, the score gradients and the query gradients of rows `i..i + R`.
#[inline(always)]
fn backward_block<V: F32x16, const R: usize>(
    shape: Shape,
    i: usize,
    from: Inputs,
    p: &mut [f32],
    ds: &mut [f32],
    dq: &mut [f32],
) {
    let (first, stride) = (shape.first + i, from.kt.stride);
    let (p, ds) = (&mut p[i * stride..][..R * stride], &mut ds[i * stride..][..R * stride]);
    dots::<V, R>(shape, &from.q[i * shape.width..], from.kt, first + R - 1, p);
    dots::<V, R>(shape, &from.dout[i * shape.width..], from.vt, first + R - 1, ds);
    for r in 0..R {
        let (p, ds) = (&mut p[r * stride..][..stride], &mut ds[r * stride..][..stride]);
        let total = exponentials::<V>(p, first + r, shape.scale);
        softmax_backward::<V>(p, ds, first + r, total, shape.scale);
    }
    mix::<V, R>(ds, stride, first, from.k, shape.width, &mut dq[i * shape.width..][..R * shape.width]);
}

/// `out[r, j]` ← chain over d of q[r, d] · kt[d, j] for at least the first `keys` columns of each of R rows.
#[inline(always)]
fn dots<V: F32x16, const R: usize>(shape: Shape, q: &[f32], kt: Transposed, keys: usize, out: &mut [f32]) {
    let vectors = keys.div_ceil(LANES);
    assert!(q.len() >= R * shape.width && out.len() >= R * kt.stride);
    assert!(kt.data.len() >= shape.dim * kt.stride && vectors * LANES <= kt.stride);
    let mut at = 0;
    while at + 2 <= vectors {
        dots_block::<V, R, 2>(shape, q, kt, at * LANES, out);
        at += 2;
    }
    if at < vectors {
        dots_block::<V, R, 1>(shape, q, kt, at * LANES, out);
    }
}

/// Columns `at..at + 16 B` of [`dots`], which has checked that they exist.
#[inline(always)]
fn dots_block<V: F32x16, const R: usize, const B: usize>(shape: Shape, q: &[f32], kt: Transposed, at: usize, out: &mut [f32]) {
    let mut sums = [[V::splat(0.0); B]; R];
    for d in 0..shape.dim {
        // SAFETY: row d < dim and columns up to at + 16 B ≤ stride lie inside `kt`; row r < R lies inside `q`.
        unsafe {
            let keys: [V; B] = vectors(kt.data, d * kt.stride + at);
            for (r, sums) in sums.iter_mut().enumerate() {
                add(sums, *q.get_unchecked(r * shape.width + d), keys);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (b, sum) in sums.iter().enumerate() {
            sum.store(&mut out[r * kt.stride + at + b * LANES..]);
        }
    }
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

/// The first `n` scores of `row` become exp(score · scale − max), zeros follow up to a whole vector; returns their sum.
#[inline(always)]
fn exponentials<V: F32x16>(row: &mut [f32], n: usize, scale: f32) -> f32 {
    let mut largest = V::splat(f32::NEG_INFINITY);
    for at in (0..n).step_by(LANES) {
        largest = scaled::<V>(row, at, n, scale).max(largest);
    }
    let largest = V::splat(largest.tree_max());
    let mut sum = V::splat(0.0);
    for at in (0..n).step_by(LANES) {
        let e = exp(scaled::<V>(row, at, n, scale) - largest);
        sum = sum + e;
        e.store(&mut row[at..]);
    }
    sum.tree_sum()
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
fn mix<V: F32x16, const R: usize>(w: &[f32], stride: usize, first: usize, m: &[f32], width: usize, out: &mut [f32]) {
    assert!(w.len() >= R * stride && first + R - 1 <= stride && m.len() >= (first + R - 1) * width && out.len() >= R * width);
    let mut column = 0;
    while column + 2 * LANES <= width {
        mix_block::<V, R, 2>(w, stride, first, m, width, column, out);
        column += 2 * LANES;
    }
    if column < width {
        mix_block::<V, R, 1>(w, stride, first, m, width, column, out);
    }
}

/// Columns `column..column + 16 D` of [`mix`], which has checked that rows and columns exist.
#[inline(always)]
fn mix_block<V: F32x16, const R: usize, const D: usize>(
    w: &[f32],
    stride: usize,
    first: usize,
    m: &[f32],
    width: usize,
    column: usize,
    out: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); D]; R];
    // SAFETY, here and below: j < first + R − 1 rows of `m` exist, as do `column` and the 16 D columns from it; r < R rows of
    // `w` exist, and j < stride.
    for j in 0..first {
        let row = unsafe { vectors(m, j * width + column) };
        for (r, sums) in sums.iter_mut().enumerate() {
            add(sums, unsafe { *w.get_unchecked(r * stride + j) }, row);
        }
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        for j in first..first + r {
            add(sums, w[r * stride + j], unsafe { vectors(m, j * width + column) });
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (d, sum) in sums.iter().enumerate() {
            sum.store(&mut out[r * width + column + d * LANES..]);
        }
    }
}

/// `sums` ← fma(w, row, sums).
#[inline(always)]
fn add<V: F32x16, const D: usize>(sums: &mut [V; D], w: f32, row: [V; D]) {
    let w = V::splat(w);
    for d in 0..D {
        sums[d] = w.fma(row[d], sums[d]);
    }
}

/// D vectors from `x` at `at`.
///
/// # Safety
/// `x` holds at least `at + 16 D` elements.
#[inline(always)]
unsafe fn vectors<V: F32x16, const D: usize>(x: &[f32], at: usize) -> [V; D] {
    let mut loaded = [V::splat(0.0); D];
    for (d, vector) in loaded.iter_mut().enumerate() {
        // SAFETY: promised by the caller.
        *vector = unsafe { V::load_pointer(x.as_ptr().add(at + d * LANES)) };
    }
    loaded
}

/// `out[j, :]` continues its chain over the rows i that see key j (j < first + i): w[i, j] · m[i, :].
#[inline(always)]
fn add_mixed_columns<V: F32x16>(w: &[f32], stride: usize, first: usize, m: &[f32], width: usize, out: &mut [f32]) {
    let (keys, rows) = (out.len() / width, m.len() / width);
    assert!(w.len() >= rows * stride && keys <= stride && keys < first + rows);
    let mut j = 0;
    while j < keys {
        let mut column = 0;
        while column < width {
            let wide = column + 2 * LANES <= width;
            match (j + 4 <= keys, wide) {
                (true, true) => columns_block::<V, 4, 2>(w, stride, first, m, width, j, column, out),
                (true, false) => columns_block::<V, 4, 1>(w, stride, first, m, width, j, column, out),
                (false, true) => columns_block::<V, 1, 2>(w, stride, first, m, width, j, column, out),
                (false, false) => columns_block::<V, 1, 1>(w, stride, first, m, width, j, column, out),
            }
            column += if wide { 2 * LANES } else { LANES };
        }
        j += if j + 4 <= keys { 4 } else { 1 };
    }
}

/// Keys `j..j + J`, columns `column..column + 16 D` of [`add_mixed_columns`], which has checked that they exist.
#[allow(clippy::too_many_arguments, reason = "a kernel takes its operands and shapes flat")]
#[inline(always)]
fn columns_block<V: F32x16, const J: usize, const D: usize>(
    w: &[f32],
    stride: usize,
    first: usize,
    m: &[f32],
    width: usize,
    j: usize,
    column: usize,
    out: &mut [f32],
) {
    let rows = m.len() / width;
    let mut sums = [[V::splat(0.0); D]; J];
    for (t, sums) in sums.iter_mut().enumerate() {
        // SAFETY: key j + t < keys exists in `out`, and the 16 D columns from `column`.
        *sums = unsafe { vectors(out, (j + t) * width + column) };
    }
    // SAFETY, here and below: i < rows, and the 16 D columns from `column` exist; j + t < keys ≤ stride.
    let all = first_seeing(j + J - 1, first);
    for (t, sums) in sums.iter_mut().enumerate() {
        for i in first_seeing(j + t, first)..all {
            add(sums, w[i * stride + j + t], unsafe { vectors(m, i * width + column) });
        }
    }
    for i in all..rows {
        let row = unsafe { vectors(m, i * width + column) };
        for (t, sums) in sums.iter_mut().enumerate() {
            add(sums, unsafe { *w.get_unchecked(i * stride + j + t) }, row);
        }
    }
    for (t, sums) in sums.iter().enumerate() {
        for (d, sum) in sums.iter().enumerate() {
            sum.store(&mut out[(j + t) * width + column + d * LANES..]);
        }
    }
}

/// The first row that sees key `j`.
#[inline(always)]
fn first_seeing(j: usize, first: usize) -> usize {
    (j + 1).saturating_sub(first)
}
