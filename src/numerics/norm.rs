//! RMSNorm (Zhang and Sennrich 2019): y = x · w / √(mean(x²) + ε), row by row.

use super::device::{self, rows};
use super::parallel::for_each_rows;
use super::reduce::lanes::sum_squares;
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

dispatch! {
    pub(super) fn inverse_rows, inverse_rms_with(x: &[f32], hidden: usize, eps: f32, inverse: &mut [f32]) = inverse_kernel;
    pub(super) fn scale_rows, scale_rows_with(x: &[f32], weight: &[f32], inverse: &[f32], y: &mut [f32]) = scale_kernel;
    pub(super) fn backward_rows, backward_rows_with(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32]) = backward_kernel;
    pub(super) fn weight_gradient, weight_gradient_with(x: &[f32], inverse: &[f32], dy: &[f32], dweight: &mut [f32]) = weight_kernel;
}

/// `inverse`: (rows,) ← 1 / √(mean(x²) + eps) of the rows of `x`: (rows, hidden).
pub fn inverse_rms(x: &[f32], hidden: usize, eps: f32, inverse: &mut [f32]) {
    if let Some(device) = device::active() {
        return rows::rms_inverse(device, x, hidden, eps, inverse);
    }
    for_each_rows(inverse, 1, hidden, |r, inverse| inverse_rows(&x[r * hidden..], hidden, eps, inverse));
}

/// `y`: (rows, hidden) ← (x · inverse) · weight.
pub fn scale(x: &[f32], weight: &[f32], inverse: &[f32], y: &mut [f32]) {
    let hidden = weight.len();
    if let Some(device) = device::active() {
        return rows::rms_scale(device, x, weight, inverse, y);
    }
    for_each_rows(y, hidden, hidden, |r, y| scale_rows(&x[r * hidden..], weight, &inverse[r..], y));
}

/// Gradients of [`scale`] with its [`inverse_rms`]: `dx` += dL/dx; `dweight` continues its chain over the rows.
///
/// With g = dy · w and s = inverse: dx = s · g − x · s³ · Σ(g x) / hidden.
pub fn backward(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    backward_input(x, weight, inverse, dy, dx);
    match device::active() {
        Some(device) => rows::rms_weight(device, x, inverse, dy, dweight),
        None => weight_gradient(x, inverse, dy, dweight),
    }
}

/// [`backward`] under a frozen weight.
pub fn backward_input(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32]) {
    let hidden = weight.len();
    if let Some(device) = device::active() {
        return rows::rms_backward(device, x, weight, inverse, dy, dx);
    }
    for_each_rows(dx, hidden, 4 * hidden, |r, dx| {
        backward_rows(&x[r * hidden..], weight, &inverse[r..], &dy[r * hidden..], dx);
    });
}

#[inline(always)]
fn inverse_kernel<V: F32x16>(x: &[f32], hidden: usize, eps: f32, inverse: &mut [f32]) {
    for (row, inverse) in x.chunks_exact(hidden).zip(inverse) {
        *inverse = 1.0 / (sum_squares::<V>(row) / hidden as f32 + eps).sqrt();
    }
}

#[inline(always)]
fn scale_kernel<V: F32x16>(x: &[f32], weight: &[f32], inverse: &[f32], y: &mut [f32]) {
    let hidden = weight.len();
    for ((y, x), s) in y.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)).zip(inverse) {
        for i in starts(hidden) {
            store((load::<V>(x, i, 0.0) * V::splat(*s)) * load::<V>(weight, i, 0.0), y, i);
        }
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32]) {
    let hidden = weight.len();
    for (r, dx) in dx.chunks_exact_mut(hidden).enumerate() {
        let (x, dy, s) = (&x[r * hidden..][..hidden], &dy[r * hidden..][..hidden], inverse[r]);
        let mut along = V::splat(0.0);
        for i in starts(hidden) {
            // −0 beyond the end: as an addend it changes no lane.
            let g = load::<V>(dy, i, -0.0) * load::<V>(weight, i, 0.0);
            along = g.fma(load::<V>(x, i, 0.0), along);
        }
        let pull = V::splat(-(along.tree_sum() / hidden as f32) * (s * s * s));
        for i in starts(hidden) {
            let g = load::<V>(dy, i, 0.0) * load::<V>(weight, i, 0.0);
            let d = pull.fma(load::<V>(x, i, 0.0), V::splat(s) * g);
            store(load::<V>(dx, i, 0.0) + d, dx, i);
        }
    }
}

/// dweight[j] ← chain over rows of (x · inverse) · dy.
#[inline(always)]
fn weight_kernel<V: F32x16>(x: &[f32], inverse: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let hidden = dweight.len();
    for ((x, dy), s) in x.chunks_exact(hidden).zip(dy.chunks_exact(hidden)).zip(inverse) {
        for i in starts(hidden) {
            let sum = (load::<V>(x, i, 0.0) * V::splat(*s)).fma(load::<V>(dy, i, 0.0), load::<V>(dweight, i, 0.0));
            store(sum, dweight, i);
        }
    }
}
