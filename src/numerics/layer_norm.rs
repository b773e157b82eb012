//! LayerNorm (Ba et al. 2016): y = x̂ · w + b with x̂ = (x − mean) / √(variance + ε), row by row.

use super::device::{self, rows};
use super::parallel::for_each_rows;
use super::reduce::lanes::sum;
use super::row::{keep, load, starts, store};
use super::simd::{F32x16, dispatch};

/// What the forward pass leaves to the backward pass of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub struct Moments {
    pub mean: f32,
    /// 1 / √(variance + ε)
    pub inverse: f32,
}

dispatch! {
    pub(super) fn moments_of_rows, moments_with(x: &[f32], hidden: usize, eps: f32, moments: &mut [Moments]) = moments_kernel;
    pub(super) fn scale_rows, scale_rows_with(x: &[f32], weight: &[f32], bias: &[f32], moments: &[Moments], y: &mut [f32]) = scale_kernel;
    pub(super) fn backward_rows, backward_rows_with(x: &[f32], weight: &[f32], moments: &[Moments], dy: &[f32], dx: &mut [f32]) = backward_kernel;
    pub(super) fn parameter_gradients, parameter_gradients_with(x: &[f32], moments: &[Moments], dy: &[f32], dweight: &mut [f32], dbias: &mut [f32]) = parameters_kernel;
}

/// `moments`: (rows,) ← those of the rows of `x`: (rows, hidden).
pub fn moments(x: &[f32], hidden: usize, eps: f32, moments: &mut [Moments]) {
    match device::active() {
        Some(device) => rows::layer_moments(device, x, hidden, eps, moments),
        None => moments_of_rows(x, hidden, eps, moments),
    }
}

/// `y`: (rows, hidden) ← x̂ · weight + bias.
pub fn scale(x: &[f32], weight: &[f32], bias: &[f32], moments: &[Moments], y: &mut [f32]) {
    let hidden = weight.len();
    if let Some(device) = device::active() {
        return rows::layer_scale(device, x, weight, bias, moments, y);
    }
    for_each_rows(y, hidden, hidden, |r, y| scale_rows(&x[r * hidden..], weight, bias, &moments[r..], y));
}

/// Gradients of [`scale`] with its [`moments`]: `dx` += dL/dx; `dweight` and `dbias` continue their chains over the rows.
///
/// With g = dy · w: dx = inverse · (g − mean(g) − x̂ · mean(g x̂)).
pub fn backward(
    x: &[f32],
    weight: &[f32],
    moments: &[Moments],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    backward_input(x, weight, moments, dy, dx);
    match device::active() {
        Some(device) => rows::layer_parameters(device, x, moments, dy, dweight, dbias),
        None => parameter_gradients(x, moments, dy, dweight, dbias),
    }
}

/// [`backward`] under frozen parameters.
pub fn backward_input(x: &[f32], weight: &[f32], moments: &[Moments], dy: &[f32], dx: &mut [f32]) {
    let hidden = weight.len();
    if let Some(device) = device::active() {
        return rows::layer_backward(device, x, weight, moments, dy, dx);
    }
    for_each_rows(dx, hidden, 6 * hidden, |r, dx| {
        backward_rows(&x[r * hidden..], weight, &moments[r..], &dy[r * hidden..], dx);
    });
}

#[inline(always)]
fn moments_kernel<V: F32x16>(x: &[f32], hidden: usize, eps: f32, moments: &mut [Moments]) {
    let n = hidden as f32;
    for (row, moments) in x.chunks_exact(hidden).zip(moments) {
        let mean = sum::<V>(row) / n;
        let mut squares = V::splat(0.0);
        for i in starts(hidden) {
            let centred = keep(load::<V>(row, i, 0.0) - V::splat(mean), hidden, i);
            squares = centred.fma(centred, squares);
        }
        *moments = Moments { mean, inverse: 1.0 / (squares.tree_sum() / n + eps).sqrt() };
    }
}

/// x̂ of the vector at `i`.
#[inline(always)]
fn normed<V: F32x16>(x: &[f32], i: usize, m: Moments) -> V {
    (load::<V>(x, i, 0.0) - V::splat(m.mean)) * V::splat(m.inverse)
}

#[inline(always)]
fn scale_kernel<V: F32x16>(x: &[f32], weight: &[f32], bias: &[f32], moments: &[Moments], y: &mut [f32]) {
    let hidden = weight.len();
    for ((y, x), m) in y.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)).zip(moments) {
        for i in starts(hidden) {
            store(normed::<V>(x, i, *m).fma(load(weight, i, 0.0), load(bias, i, 0.0)), y, i);
        }
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(x: &[f32], weight: &[f32], moments: &[Moments], dy: &[f32], dx: &mut [f32]) {
    let (hidden, n) = (weight.len(), weight.len() as f32);
    for (r, dx) in dx.chunks_exact_mut(hidden).enumerate() {
        let (x, dy, m) = (&x[r * hidden..][..hidden], &dy[r * hidden..][..hidden], moments[r]);
        let (mut level, mut along) = (V::splat(0.0), V::splat(0.0));
        for i in starts(hidden) {
            // −0 beyond the end, which as an addend changes no lane; −0 · 0 is −0 too.
            let g = load::<V>(dy, i, -0.0) * load::<V>(weight, i, 0.0);
            level = level + g;
            along = g.fma(keep(normed(x, i, m), hidden, i), along);
        }
        let (level, pull) = (V::splat(level.tree_sum() / n), V::splat(-(along.tree_sum() / n)));
        for i in starts(hidden) {
            let g = load::<V>(dy, i, 0.0) * load::<V>(weight, i, 0.0);
            let d = pull.fma(normed(x, i, m), g - level);
            store(V::splat(m.inverse).fma(d, load(dx, i, 0.0)), dx, i);
        }
    }
}

/// dweight[j] ← chain over rows of x̂ · dy, dbias[j] ← of dy.
#[inline(always)]
fn parameters_kernel<V: F32x16>(x: &[f32], moments: &[Moments], dy: &[f32], dweight: &mut [f32], dbias: &mut [f32]) {
    let hidden = dweight.len();
    for ((x, dy), m) in x.chunks_exact(hidden).zip(dy.chunks_exact(hidden)).zip(moments) {
        for i in starts(hidden) {
            let dy = load::<V>(dy, i, 0.0);
            store(normed::<V>(x, i, *m).fma(dy, load(dweight, i, 0.0)), dweight, i);
            store(load::<V>(dbias, i, 0.0) + dy, dbias, i);
        }
    }
}
