//! RMSNorm and LayerNorm of one row.

use super::{dot, sum, sum_squares};

/// 1 / √(mean(x²) + eps).
pub fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_squares(x) / x.len() as f32 + eps).sqrt()
}

/// RMSNorm (Zhang and Sennrich 2019): y = x · w / √(mean(x²) + eps).
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let s = inverse_rms(x, eps);
    (0..x.len()).map(|i| (x[i] * s) * weight[i]).collect()
}

/// Gradients of [`rms_norm`]: `dx` += dL/dx; `dweight` continues its chain over the rows.
///
/// With s = 1 / √(mean(x²) + eps) and g = dy · w: dx = s · g − x · s³ · mean(g x).
pub fn rms_norm_backward(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    let s = inverse_rms(x, eps);
    let g: Vec<f32> = (0..x.len()).map(|i| dy[i] * weight[i]).collect();
    let pull = -(dot(&g, x) / x.len() as f32) * (s * s * s);
    for i in 0..x.len() {
        dx[i] += pull.mul_add(x[i], s * g[i]);
        dweight[i] = (x[i] * s).mul_add(dy[i], dweight[i]);
    }
}

/// The mean of a row, and 1 / √(variance + eps) with the variance taken about that mean.
pub fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let centred: Vec<f32> = x.iter().map(|x| x - mean).collect();
    (mean, 1.0 / (sum_squares(&centred) / n + eps).sqrt())
}

/// LayerNorm (Ba et al. 2016): y = x̂ · w + b, x̂ = (x − mean) / √(variance + eps).
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let (mean, s) = moments(x, eps);
    (0..x.len()).map(|i| ((x[i] - mean) * s).mul_add(weight[i], bias[i])).collect()
}

/// Gradients of [`layer_norm`]: `dx` += dL/dx; `dweight` and `dbias` continue their chains over the rows.
///
/// With g = dy · w: dx = s · (g − mean(g) − x̂ · mean(g x̂)).
pub fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let ((mean, s), n) = (moments(x, eps), x.len() as f32);
    let normed: Vec<f32> = x.iter().map(|x| (x - mean) * s).collect();
    let g: Vec<f32> = (0..x.len()).map(|i| dy[i] * weight[i]).collect();
    let (level, pull) = (sum(&g) / n, -(dot(&g, &normed) / n));
    for i in 0..x.len() {
        dx[i] = s.mul_add(pull.mul_add(normed[i], g[i] - level), dx[i]);
        dweight[i] = normed[i].mul_add(dy[i], dweight[i]);
        dbias[i] += dy[i];
    }
}
