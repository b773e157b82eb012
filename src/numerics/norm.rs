//! RMSNorm (Zhang and Sennrich 2019): y = x · w / √(mean(x²) + ε), row by row.

use super::interim::{dot, sum_squares};
use super::parallel::for_each_piece;

/// `inverse`: (rows,) ← 1 / √(mean(x²) + eps) of the rows of `x`: (rows, hidden).
pub(crate) fn inverse_rms(x: &[f32], hidden: usize, eps: f32, inverse: &mut [f32]) {
    for (row, inv) in x.chunks_exact(hidden).zip(inverse) {
        *inv = 1.0 / (sum_squares(row) / hidden as f32 + eps).sqrt();
    }
}

/// `y`: (rows, hidden) ← (x · inverse) · weight.
pub(crate) fn scale(x: &[f32], weight: &[f32], inverse: &[f32], y: &mut [f32]) {
    let hidden = weight.len();
    for_each_piece(y, hidden, |r, out| {
        let row = &x[r * hidden..][..hidden];
        for ((y, x), w) in out.iter_mut().zip(row).zip(weight) {
            *y = (x * inverse[r]) * w;
        }
    });
}

/// Gradients of [`scale`] with its [`inverse_rms`]: `dx` += dL/dx; `dweight` continues its chain over the rows.
///
/// With g = dy · w and s = inverse: dx = s · g − x · s³ · Σ(g x) / hidden.
pub(crate) fn backward(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    let hidden = weight.len();
    for_each_piece(dx, hidden, |r, dx| {
        let (x, dy) = (&x[r * hidden..][..hidden], &dy[r * hidden..][..hidden]);
        let s = inverse[r];
        let g: Vec<f32> = dy.iter().zip(weight).map(|(d, w)| d * w).collect();
        let pull = -(dot(&g, x) / hidden as f32) * (s * s * s);
        for ((dx, x), g) in dx.iter_mut().zip(x).zip(&g) {
            *dx += pull.mul_add(*x, s * g);
        }
    });
    for ((x, dy), s) in x.chunks_exact(hidden).zip(dy.chunks_exact(hidden)).zip(inverse) {
        for ((dw, x), dy) in dweight.iter_mut().zip(x).zip(dy) {
            *dw = (x * s).mul_add(*dy, *dw);
        }
    }
}
