//! The inner loops of attention for one head of one segment, sixteen keys (or elements of the head) at a time.
//!
//! Matrices of the head are columns of larger ones or stand alone: `q`, `dout`, `k`, `v` are (rows, width) with the head's `dim`
//! elements and whatever follows them up to `width`, a multiple of 16; `kt`, `vt` are panels of keys along the vectors. Row i
//! of the queries sees the first `first + i · step` keys.
//! Rows are worked on in the tiles of the matrix products to keep many chains in flight; which rows share one never enters a bit.
//!
//! Vector code stands in `#[inline(always)]` functions and plain loops, never in closures: a closure doesn't inherit the
//! instructions that `dispatch!` enables, and would call each intrinsic instead of containing it.

use crate::elementary::lanes::exp;
use crate::gemm::panels::View;
use crate::gemm::tile::{Tile, Tiled, in_tiles};
use crate::simd::{F32x16, LANES, dispatch};
use crate::softcap::{capped, slope};

/// The queries' shape and what they see.
#[derive(Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub dim: usize,
    pub width: usize,
    /// Keys that the first row sees; each row sees `step` more than the row before it: 1 along a sequence, 0 where the rows are
    /// several heads of one position.
    pub first: usize,
    pub step: usize,
    /// How many of these keys count, the last ones; the weights of the others are 0.
    pub window: usize,
    pub scale: f32,
    /// What scores are soft-capped at; none: they aren't.
    pub cap: Option<f32>,
}

impl Shape {
    /// From a row of scores to the next.
    pub fn score_stride(&self) -> usize {
        score_stride(self.first + (self.rows - 1) * self.step)
    }
    /// Floats of scratch for the slopes of capped scores: of the rows of one tile.
    pub fn slopes(&self) -> usize {
        if self.cap.is_some() { SCORE_ROWS * self.score_stride() } else { 0 }
    }
}

/// Rows `stride` apart from the start of `data` on.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Whether there are so many rows of `width`.
    fn hold(&self, rows: usize, width: usize) -> bool {
        rows == 0 || (rows - 1) * self.stride + width <= self.data.len()
    }
    fn from(self, row: usize) -> Self {
        Self { data: &self.data[row * self.stride..], ..self }
    }
    /// Rows as the lanes of a tile.
    fn lanes(&self) -> View {
        View { data: self.data.as_ptr(), row_stride: self.stride, col_stride: 1 }
    }
    /// Rows as the steps of a tile's chains.
    fn steps(&self) -> View {
        self.lanes().transposed()
    }
}

/// As [`Rows`], for writing. Whoever makes one vouches that `rows` rows of `width` elements may be written for as long as it lives and
/// that nobody else touches these; what lies between the rows may be others'.
#[derive(Clone, Copy)]
pub struct Target {
    pub data: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub width: usize,
}

impl Target {
    /// Rows that stand alone.
    pub fn of(rows: &mut [f32], width: usize) -> Self {
        Self { data: rows.as_mut_ptr(), stride: width, rows: rows.len() / width, width }
    }
    fn row(&self, row: usize) -> *mut f32 {
        assert!(row < self.rows);
        self.data.wrapping_add(row * self.stride)
    }
    /// Fills the rows from the beginnings of rows of `from`: (rows, width).
    pub(super) fn copy_rows(&self, from: &[f32], width: usize) {
        for (i, from) in from.chunks_exact(width).enumerate() {
            let from = &from[..self.width];
            // SAFETY: a row that may be written, as whoever made this vouched.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.row(i), from.len()) };
        }
    }
}

/// Keys that stand together in a [`Transposed`].
pub const PANEL: usize = 4 * LANES;

/// A key or value matrix transposed, in panels of [`PANEL`] keys: (panels, dim, PANEL), so that a tile reads along memory.
#[derive(Clone, Copy)]
pub struct Transposed<'a>(pub &'a [f32]);

impl Transposed<'_> {
    /// How many floats it takes.
    pub fn length(keys: usize, dim: usize) -> usize {
        keys.next_multiple_of(PANEL) * dim
    }
    /// Where the element `d` of a key stands.
    #[inline(always)]
    pub fn place(key: usize, d: usize, dim: usize) -> usize {
        (key / PANEL * dim + d) * PANEL + key % PANEL
    }
}

/// From a row of scores over so many keys to the next: whole vectors of 16, and no multiple of 128, which would put many rows into
/// few sets of the cache.
pub fn score_stride(keys: usize) -> usize {
    let whole = keys.next_multiple_of(LANES);
    if whole.is_multiple_of(128) { whole + LANES } else { whole }
}

/// Rows of scores that [`attend`] works on at a time, at most.
pub const SCORE_ROWS: usize = 12;

dispatch! {
    /// `out`: (rows, width) ← softmax(q kᵀ · scale) v. `scores`: scratch, [`SCORE_ROWS`] rows of the last row's
    /// [`score_stride`].
    pub fn attend, attend_with(shape: Shape, q: Rows, kt: Transposed, v: Rows, scores: &mut [f32], out: Target) = attend_kernel;

    /// The backward pass of [`attend`]: `dq`: (rows, width) is written, `dk` and `dv`: (keys, width) continue their
    /// chains. `p`, `ds`: scratch, as many rows of the last row's [`score_stride`] as there are queries; `slopes`: [`Shape::slopes`].
    pub(super) fn attend_backward, attend_backward_with(shape: Shape, inputs: Inputs, p: &mut [f32], ds: &mut [f32], slopes: &mut [f32], dq: Target, dk: &mut [f32], dv: &mut [f32]) = attend_backward_kernel;

    /// `out`: a [`Transposed`] ← the first `dim` columns of the first `rows` rows of `x`, zeros after them.
    pub(super) fn transpose, transpose_with(x: Rows, rows: usize, dim: usize, out: &mut [f32]) = transpose_kernel;
}

/// What [`attend_backward`] reads.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub q: Rows<'a>,
    pub dout: Rows<'a>,
    pub k: Rows<'a>,
    pub kt: Transposed<'a>,
    pub vt: Transposed<'a>,
}

#[inline(always)]
fn transpose_kernel<V: F32x16>(x: Rows, rows: usize, dim: usize, out: &mut [f32]) {
    assert!(x.hold(rows, dim) && out.len() >= Transposed::length(rows, dim));
    // Four columns are read at a time.
    let (whole, fours) = (rows - rows % LANES, dim - dim % 4);
    for j in (0..whole).step_by(LANES) {
        for d in (0..fours).step_by(4) {
            // SAFETY: rows up to j + 16 ≤ rows, and the four columns from d lie below dim.
            let columns = unsafe { V::load_four_columns(x.data.as_ptr().add(j * x.stride + d), x.stride) };
            for (q, column) in columns.into_iter().enumerate() {
                column.store(&mut out[Transposed::place(j, d + q, dim)..]);
            }
        }
    }
    for d in 0..dim {
        for j in if d < fours { whole } else { 0 }..rows.next_multiple_of(PANEL) {
            out[Transposed::place(j, d, dim)] = if j < rows { x.data[j * x.stride + d] } else { 0.0 };
        }
    }
}

#[inline(always)]
fn attend_kernel<V: Tiled>(shape: Shape, q: Rows, kt: Transposed, v: Rows, scores: &mut [f32], out: Target) {
    assert!(q.hold(shape.rows, shape.dim) && out.rows >= shape.rows && out.width >= shape.width);
    in_tiles!(V, shape.rows, |i, R| attend_block::<V, R>(shape, i, q, kt, v, scores, out));
}

/// Rows `i..i + R` of [`attend`].
#[inline(always)]
fn attend_block<V: Tiled, const R: usize>(
    shape: Shape,
    i: usize,
    q: Rows,
    kt: Transposed,
    v: Rows,
    scores: &mut [f32],
    out: Target,
) {
    let (first, stride) = (shape.first + i * shape.step, shape.score_stride());
    let keys = first + (R - 1) * shape.step;
    dots::<V, R>(shape, q.from(i), kt, keys, stride, scores);
    let scores_shape = capped_scores::<V, R>(scores, stride, keys, shape, None);
    let totals = weights::<V, R>(scores, stride, first, scores_shape);
    mix::<V, R>(scores, stride, first, shape.step, v, shape.width, i, out);
    for (r, total) in totals.into_iter().enumerate() {
        for at in (0..shape.width).step_by(LANES) {
            let part = out.row(i + r).wrapping_add(at);
            // SAFETY: a vector of a row of `out`, whose rows are at least so wide (asked by the kernel).
            unsafe { (V::load_pointer(part) / V::splat(total)).store_pointer(part) };
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a product's operands, scratch and gradients")]
fn attend_backward_kernel<V: Tiled>(
    shape: Shape,
    from: Inputs,
    p: &mut [f32],
    ds: &mut [f32],
    slopes: &mut [f32],
    dq: Target,
    dk: &mut [f32],
    dv: &mut [f32],
) {
    assert!(from.q.hold(shape.rows, shape.width) && from.dout.hold(shape.rows, shape.width));
    assert!(dq.rows >= shape.rows && dq.width >= shape.width);
    in_tiles!(V, shape.rows, |i, R| backward_block::<V, R>(shape, i, from, p, ds, slopes, dq));
    add_mixed_columns::<V>(shape, p, from.dout, dv);
    add_mixed_columns::<V>(shape, ds, from.q, dk);
}

/// The softmax weights, the score gradients and the query gradients of rows `i..i + R`.
#[inline(always)]
fn backward_block<V: Tiled, const R: usize>(
    shape: Shape,
    i: usize,
    from: Inputs,
    p: &mut [f32],
    ds: &mut [f32],
    slopes: &mut [f32],
    dq: Target,
) {
    let (first, step, stride) = (shape.first + i * shape.step, shape.step, shape.score_stride());
    let keys = first + (R - 1) * step;
    let (p, ds) = (&mut p[i * stride..][..R * stride], &mut ds[i * stride..][..R * stride]);
    dots::<V, R>(shape, from.q.from(i), from.kt, keys, stride, p);
    dots::<V, R>(shape, from.dout.from(i), from.vt, keys, stride, ds);
    let scores_shape = capped_scores::<V, R>(p, stride, keys, shape, Some(slopes));
    let totals = weights::<V, R>(p, stride, first, scores_shape);
    for (r, total) in totals.into_iter().enumerate() {
        let (p, ds) = (&mut p[r * stride..][..stride], &mut ds[r * stride..][..stride]);
        softmax_backward::<V>(p, ds, first + r * step, total, scores_shape.scale);
        if shape.cap.is_some() {
            scale_by_slopes::<V>(ds, &slopes[r * stride..][..stride], first + r * step, shape.scale);
        }
    }
    mix::<V, R>(ds, stride, first, step, from.k, shape.width, i, dq);
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

/// `out[r, j]` ← chain over d of q[r, d] · k[j, d] for at least the first `keys` columns of each of R rows, `stride` apart.
#[inline(always)]
fn dots<V: Tiled, const R: usize>(shape: Shape, q: Rows, kt: Transposed, keys: usize, stride: usize, out: &mut [f32]) {
    let vectors = keys.div_ceil(LANES);
    assert!(q.hold(R, shape.dim) && out.len() >= R * stride && vectors * LANES <= stride);
    assert!(kt.0.len() >= Transposed::length(keys, shape.dim));
    let (a, c) = (q.lanes(), out.as_mut_ptr());
    let b = View { data: kt.0.as_ptr(), row_stride: 1, col_stride: PANEL };
    // One, two or four vectors at a multiple of their number lie in one panel.
    in_vectors!(V, R, vectors, |at, B| {
        let (b, c) = (b.from(Transposed::place(at * LANES, 0, shape.dim), 0), c.wrapping_add(at * LANES));
        let of = Tile { k: shape.dim, a, b, c, c_stride: stride, carry: false };
        // SAFETY: R rows of `q` and `out` exist, and the panels up to that of the last vector (above).
        unsafe { V::tile::<R, B>(of) }
    });
}

/// Where scores are capped: the first `keys` products of each of R rows become capped scores, and their slopes are written where somebody
/// wants them. Returns the shape under which the softmax takes the rows: such scores are scaled already.
#[inline(always)]
fn capped_scores<V: F32x16, const R: usize>(
    rows: &mut [f32],
    stride: usize,
    keys: usize,
    shape: Shape,
    mut slopes: Option<&mut [f32]>,
) -> Shape {
    let Some(cap) = shape.cap else { return shape };
    let (cap, scale) = (V::splat(cap), V::splat(shape.scale));
    for r in 0..R {
        for at in (r * stride..r * stride + keys).step_by(LANES) {
            let y = capped(V::load(&rows[at..]) * scale, cap);
            y.store(&mut rows[at..]);
            if let Some(slopes) = slopes.as_deref_mut() {
                slope(y, cap).store(&mut slopes[at..]);
            }
        }
    }
    Shape { scale: 1.0, ..shape }
}

/// `ds` ← (ds · slope) · scale for the first `n` of a row of scores.
#[inline(always)]
fn scale_by_slopes<V: F32x16>(ds: &mut [f32], slopes: &[f32], n: usize, scale: f32) {
    for at in (0..n).step_by(LANES) {
        let d = (V::load(&ds[at..]) * V::load(&slopes[at..])) * V::splat(scale);
        d.store(&mut ds[at..]);
    }
}

/// The vector of scores at `at`, scaled; −∞ beyond the first `n`, and before the last `window` of these where rows are `WINDOWED`.
#[inline(always)]
fn scaled<V: F32x16, const WINDOWED: bool>(row: &[f32], at: usize, n: usize, window: usize, scale: f32) -> V {
    let scores = if at + LANES <= n {
        V::load(&row[at..]) * V::splat(scale)
    } else {
        V::load_part(&row[at..n], f32::NEG_INFINITY) * V::splat(scale)
    };
    let start = n.saturating_sub(window);
    if !WINDOWED || at >= start {
        return scores;
    }
    let before = V::load_part(&[1.0; LANES][..LANES.min(start - at)], 0.0);
    V::select(before.eq(V::splat(1.0)), V::splat(f32::NEG_INFINITY), scores)
}

/// [`exponentials`], which asks for the window only where a row reaches beyond it.
#[inline(always)]
fn weights<V: F32x16, const R: usize>(rows: &mut [f32], stride: usize, first: usize, shape: Shape) -> [f32; R] {
    if first + (R - 1) * shape.step > shape.window {
        exponentials::<V, R, true>(rows, stride, first, shape)
    } else {
        exponentials::<V, R, false>(rows, stride, first, shape)
    }
}

/// The first `first + r · step` scores of each of R rows become exp(score · scale − max), zeros follow up to a whole vector; returns
/// each row's sum. All maxima come first: their rows don't wait for each other.
#[inline(always)]
fn exponentials<V: F32x16, const R: usize, const WINDOWED: bool>(
    rows: &mut [f32],
    stride: usize,
    first: usize,
    shape: Shape,
) -> [f32; R] {
    let Shape { step, window, scale, .. } = shape;
    let mut largest = [0.0; R];
    for (r, largest) in largest.iter_mut().enumerate() {
        let (row, n) = (&rows[r * stride..][..stride], first + r * step);
        let mut most = V::splat(f32::NEG_INFINITY);
        for at in (0..n).step_by(LANES) {
            most = scaled::<V, WINDOWED>(row, at, n, window, scale).max(most);
        }
        *largest = most.tree_max();
    }
    let mut sums = [0.0; R];
    for (r, total) in sums.iter_mut().enumerate() {
        let (row, n) = (&mut rows[r * stride..][..stride], first + r * step);
        let largest = V::splat(largest[r]);
        let mut sum = V::splat(0.0);
        for at in (0..n).step_by(LANES) {
            let e = exp(scaled::<V, WINDOWED>(row, at, n, window, scale) - largest);
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

/// `out[i + r, :]` ← chain over j < first + r · step of w[r, j] · m[j, :], for R rows.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a product's operands and shapes")]
fn mix<V: Tiled, const R: usize>(
    w: &[f32],
    stride: usize,
    first: usize,
    step: usize,
    m: Rows,
    width: usize,
    i: usize,
    out: Target,
) {
    let keys = first + (R - 1) * step;
    assert!(w.len() >= R * stride && keys <= stride && m.hold(keys, width) && out.rows >= i + R && out.width >= width);
    let (a, b) = (View { data: w.as_ptr(), row_stride: stride, col_stride: 1 }, m.steps());
    in_vectors!(V, R, width / LANES, |at, D| {
        let c = out.row(i).wrapping_add(at * LANES);
        let of = Tile { k: first, a, b: b.from(at * LANES, 0), c, c_stride: out.stride, carry: false };
        // SAFETY: R rows of `w` and `out` exist and `keys` rows of `m`, each whole vectors wide (above).
        unsafe { V::tile::<R, D>(of) }
    });
    for r in 1..R {
        let weights = &w[r * stride + first..][..r * step];
        // SAFETY: a row of `out`, at least `width` wide.
        unsafe { extend::<V>(weights, 1, m, first, width, out.row(i + r)) };
    }
}

/// `out`: (width) continues its chain by a step for each `apart`-th element of `w` and the rows of `m` from `start` on.
///
/// # Safety
/// `out` must be valid for `width` elements that nobody else touches.
#[inline(always)]
unsafe fn extend<V: F32x16>(w: &[f32], apart: usize, m: Rows, start: usize, width: usize, out: *mut f32) {
    for column in (0..width).step_by(LANES) {
        let out = out.wrapping_add(column);
        // SAFETY: sixteen of the promised elements.
        let mut sum = unsafe { V::load_pointer(out) };
        for (row, w) in w.iter().step_by(apart).enumerate() {
            sum = V::splat(*w).fma(V::load(&m.data[(start + row) * m.stride + column..]), sum);
        }
        // SAFETY: as above.
        unsafe { sum.store_pointer(out) };
    }
}

/// `out[j, :]`, (keys, width), continues its chain over the rows i that see key j (j < first + i · step): w[i, j] · m[i, :].
#[inline(always)]
fn add_mixed_columns<V: Tiled>(shape: Shape, w: &[f32], m: Rows, out: &mut [f32]) {
    let Shape { rows, width, first, step, .. } = shape;
    let stride = shape.score_stride();
    let keys = out.len() / width;
    assert!(w.len() >= rows * stride && m.hold(rows, width) && keys <= stride && first >= 1 && step <= 1);
    assert!(keys <= first + (rows - 1) * step);
    // Every row sees these keys; from here on each key is seen from one row later than the one before it.
    let seen_by_all = if step == 0 { keys } else { keys.min(first - 1) };
    let (a, b) = (View { data: w.as_ptr(), row_stride: 1, col_stride: stride }, m.steps());
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
            let (w, out) = (&w[row * stride + key..all * stride], &mut out[key * width..][..width]);
            // SAFETY: `out` is `width` long.
            unsafe { extend::<V>(w, stride, m, row, width, out.as_mut_ptr()) };
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
