//! The inner loops of attention for one head.

use crate::numerics::interim::{dot, exp, max, sum};

/// `out[j]` ← chain over d of q[d] · kt[d, j], for the first `n` columns of `kt`: (head_dim, stride).
pub(super) fn dots(q: &[f32], kt: &[f32], stride: usize, n: usize, out: &mut [f32]) {
    out[..n].fill(0.0);
    for (d, q) in q.iter().enumerate() {
        for (sum, k) in out[..n].iter_mut().zip(&kt[d * stride..]) {
            *sum = q.mul_add(*k, *sum);
        }
    }
}

/// `out`: (head_dim,) ← chain over j of w[j] · m[j, :].
pub(super) fn mix_rows(w: &[f32], m: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (w, row) in w.iter().zip(m.chunks_exact(out.len())) {
        for (sum, x) in out.iter_mut().zip(row) {
            *sum = w.mul_add(*x, *sum);
        }
    }
}

/// `out[j, :]` continues its chain over the rows i that see key j (j ≤ before + i): w[i, j] · m[i, :].
pub(super) fn add_mixed_columns(w: &[f32], stride: usize, before: usize, m: &[f32], dim: usize, out: &mut [f32]) {
    for (j, out) in out.chunks_exact_mut(dim).enumerate() {
        for (i, row) in m.chunks_exact(dim).enumerate().skip(j.saturating_sub(before)) {
            let w = w[i * stride + j];
            for (sum, x) in out.iter_mut().zip(row) {
                *sum = w.mul_add(*x, *sum);
            }
        }
    }
}

/// `e[..n]` ← exp(score − max) of one query; returns their sum.
fn exponentials(q: &[f32], kt: &[f32], stride: usize, n: usize, scale: f32, e: &mut [f32]) -> f32 {
    dots(q, kt, stride, n, e);
    let e = &mut e[..n];
    e.iter_mut().for_each(|s| *s *= scale);
    let m = max(e);
    e.iter_mut().for_each(|s| *s -= m);
    exp(e);
    sum(e)
}

/// `p[..n]` ← the softmax weights of one query.
pub(super) fn weights(q: &[f32], kt: &[f32], stride: usize, n: usize, scale: f32, p: &mut [f32]) {
    let total = exponentials(q, kt, stride, n, scale, p);
    p[..n].iter_mut().for_each(|p| *p /= total);
}

/// One query's attention over the first `n` keys: `out`: (head_dim,). `kt`: (head_dim, stride), `v`: (keys, head_dim),
/// `scores`: scratch of at least `n`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attend(q: &[f32], kt: &[f32], stride: usize, v: &[f32], n: usize, scale: f32, scores: &mut [f32], out: &mut [f32]) {
    let total = exponentials(q, kt, stride, n, scale, scores);
    mix_rows(&scores[..n], v, out);
    out.iter_mut().for_each(|x| *x /= total);
}

/// `ds`: dP becomes dS · scale, with dS = P · (dP − Σ P dP).
pub(super) fn softmax_backward(p: &[f32], ds: &mut [f32], scale: f32) {
    let mean = dot(p, ds);
    for (ds, p) in ds.iter_mut().zip(p) {
        *ds = (p * (*ds - mean)) * scale;
    }
}
